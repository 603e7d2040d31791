"""Checkpoint folders: which files hold the weights, and what is refused before anything is loaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from wszoo.errors import BuildError, LimitError, MalformedError, NotFoundError, UsageError
from wszoo.families.checkpoints import check_keys, named, read_json, refuse_pickles, weight_files
from wszoo.families.sources import MAX_ASSET

if TYPE_CHECKING:
    from pathlib import Path


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"")


def index(folder: Path, name: str, *files: str) -> None:
    (folder / name).write_text(json.dumps({"weight_map": {f"tensor{at}": file for at, file in enumerate(files)}}))


def test_an_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": [1, 2.5, null]}')
    assert read_json(tmp_path / "config.json") == {"a": [1, 2.5, None]}


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b'"text"', b"\xff\xfe", b"{1: 2}", b"[" * 100_000])
def test_what_is_no_object_is_malformed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(MalformedError, match="is not a JSON object"):
        read_json(tmp_path / "config.json")


def test_a_config_larger_than_any_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b" " * (MAX_ASSET + 1))
    with pytest.raises(LimitError):
        read_json(tmp_path / "config.json")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere\.json"):
        read_json(tmp_path / "nowhere.json")


def test_one_file(tmp_path: Path) -> None:
    put(tmp_path, "model.safetensors", "other.safetensors")
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]
    assert weight_files(tmp_path, "other") == [tmp_path / "other.safetensors"]


@pytest.mark.parametrize(
    "name", ["model.safetensors.index.json", "model.safetensors.index.fp16.json", "model.fp16.safetensors.index.json"]
)
def test_shards_in_order_and_each_once(tmp_path: Path, name: str) -> None:
    put(tmp_path, "b.safetensors", "a.safetensors")
    index(tmp_path, name, "b.safetensors", "a.safetensors", "b.safetensors")
    found = weight_files(tmp_path, variants=("fp16", ""))
    assert found == [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]


def test_variants_are_tried_in_order(tmp_path: Path) -> None:
    put(tmp_path, "model.safetensors", "model.fp16.safetensors")
    assert weight_files(tmp_path, variants=("bf16", "fp16", ""))[0].name == "model.fp16.safetensors"
    assert weight_files(tmp_path, variants=("bf16", ""))[0].name == "model.safetensors"


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    put(tmp_path, "a.safetensors")
    index(tmp_path, "model.safetensors.index.json", "a.safetensors", "b.safetensors")
    with pytest.raises(NotFoundError, match=r"lacks b\.safetensors, which model\.safetensors\.index\.json lists"):
        weight_files(tmp_path)


@pytest.mark.parametrize("file", ["../a.safetensors", "/a.safetensors", "x/a.safetensors", "..", "con", "a:b"])
def test_an_index_may_not_point_elsewhere(tmp_path: Path, file: str) -> None:
    index(tmp_path, "model.safetensors.index.json", file)
    with pytest.raises(MalformedError, match="which is not a file's name"):
        weight_files(tmp_path)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": null}'])
def test_an_index_that_lists_nothing_is_no_checkpoint(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(NotFoundError, match="lacks files"):
        weight_files(tmp_path)


def test_a_weight_map_that_is_a_list_is_malformed(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
    with pytest.raises(MalformedError, match="weight_map"):
        weight_files(tmp_path)


def test_nothing_at_all_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no model\.safetensors in"):
        weight_files(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.ckpt", "a.pt", "a.pth", "a.pkl"])
def test_a_pickle_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    for refused in (refuse_pickles, weight_files):
        with pytest.raises(UsageError, match=f"{name}.*loading a pickle runs its code"):
            refused(tmp_path)


def test_a_pickle_beside_safetensors_does_no_harm(tmp_path: Path) -> None:
    put(tmp_path, "model.safetensors", "pytorch_model.bin")
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]


def test_tensors_that_do_not_fit_are_listed_by_kind() -> None:
    check_keys([], [], [])
    with pytest.raises(BuildError) as caught:
        check_keys(["b", "a"], ["c"], ["d [1] instead of [2]"], "unet")
    message = "the checkpoint of unet does not fit its config: the architecture misses a, b; it does not expect c; "
    assert caught.value.message == message + "it has another shape for d [1] instead of [2]"


def test_long_lists_of_names_are_cut() -> None:
    assert named(["a"]) == "a"
    assert named([str(number) for number in range(8)]) == "0, 1, 2, 3, 4 and 3 more"
