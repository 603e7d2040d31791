from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wszoo.errors import IntegrityError, LimitError, MalformedError, NotFoundError
from wszoo.families import tensor_files
from wszoo.families.tensor_files import checkpoint_tensors, tensors_of

if TYPE_CHECKING:
    from pathlib import Path

VALUES = np.arange(6, dtype=np.float16).reshape(2, 3)
ENTRY = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}


def write(path: Path, header: dict[str, Any] | bytes, data: bytes = VALUES.tobytes()) -> Path:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)
    return path


def test_tensor_is_mapped_with_its_type_and_shape(tmp_path: Path) -> None:
    found = tensors_of(write(tmp_path / "a.safetensors", {"__metadata__": {"format": "pt"}, "w": ENTRY}))
    assert list(found) == ["w"]
    assert (found["w"].array() == VALUES).all()
    assert not found["w"].load().flags.writeable


def test_what_the_safetensors_library_writes_is_read(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"a": torch.randn(3, 5).to(torch.bfloat16), "b": torch.arange(4), "c": torch.zeros(0, 2)}
    save_file(tensors, tmp_path / "a.safetensors")
    found = tensors_of(tmp_path / "a.safetensors")
    assert {name: tensor.shape for name, tensor in found.items()} == {"a": (3, 5), "b": (4,), "c": (0, 2)}
    assert found["a"].load().tobytes() == tensors["a"].view(torch.int16).numpy().tobytes()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({**ENTRY, "data_offsets": [0, 14]}, "needs 12 bytes"),
        ({**ENTRY, "data_offsets": [4, 16]}, "places it at 4 to 16 of 12"),
        ({**ENTRY, "data_offsets": [12, 0]}, "places it at 12 to 0"),
        ({**ENTRY, "shape": [1 << 62, 1 << 62]}, "malformed"),
        ({**ENTRY, "shape": [-1, 6]}, "malformed"),
        ({**ENTRY, "dtype": "F17"}, "unknown element type 'F17'"),
        ({"dtype": "F16"}, "malformed"),
        ([1, 2], "malformed"),
    ],
)
def test_entry_that_does_not_fit_the_file_is_refused(tmp_path: Path, entry: Any, words: str) -> None:
    with pytest.raises(MalformedError, match=words):
        tensors_of(write(tmp_path / "a.safetensors", {"w": entry}))


@pytest.mark.parametrize("data", [b"", b"1234", struct.pack("<Q", 0), struct.pack("<Q", 100) + b"{}"])
def test_file_without_a_whole_header_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(MalformedError, match="not a safetensors file"):
        tensors_of(tmp_path / "a.safetensors")


@pytest.mark.parametrize("header", [b"[]", b"{", b"\xff\xff", b'{"a": NaN}'])
def test_header_that_is_no_json_object_is_refused(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(MalformedError):
        tensors_of(write(tmp_path / "a.safetensors", header))


def test_header_over_the_limit_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "MAX_HEADER", 16)
    with pytest.raises(LimitError, match="more than the 16"):
        tensors_of(write(tmp_path / "a.safetensors", {"w": ENTRY}))


def sharded(folder: Path, **index: Any) -> Path:
    write(folder / "model-1.safetensors", {"a": ENTRY})
    write(folder / "model-2.safetensors", {"b": ENTRY})
    document = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}, **index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(document))
    return folder


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    assert list(checkpoint_tensors(sharded(tmp_path, metadata={"total_size": 24}))) == ["a", "b"]


@pytest.mark.parametrize(
    "weight_map",
    [
        {"a": "model-2.safetensors", "b": "model-1.safetensors"},
        {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"},
    ],
)
def test_index_that_disagrees_with_its_shards_is_refused(tmp_path: Path, weight_map: dict[str, str]) -> None:
    with pytest.raises(IntegrityError, match="disagree about"):
        checkpoint_tensors(sharded(tmp_path, weight_map=weight_map))


def test_index_with_another_total_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="says that the tensors have 25 bytes, and they have 24"):
        checkpoint_tensors(sharded(tmp_path, metadata={"total_size": 25}))


def test_one_name_in_two_shards_is_refused(tmp_path: Path) -> None:
    sharded(tmp_path)
    write(tmp_path / "model-2.safetensors", {"a": ENTRY})
    with pytest.raises(IntegrityError, match=r"both model-1\.safetensors and model-2\.safetensors"):
        checkpoint_tensors(tmp_path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"a\.safetensors"):
        tensors_of(tmp_path / "a.safetensors")
