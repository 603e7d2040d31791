from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from wszoo_echo import EchoFamily

from wszoo.errors import NotFoundError, UsageError
from wszoo.families.local import local_model
from wszoo.families.protocol import ExportRequest
from wszoo.progress import Silent

if TYPE_CHECKING:
    from pathlib import Path


def request_for(folder: Path, text: str, **changes: object) -> ExportRequest:
    (folder / "gain.txt").write_text(text)
    return ExportRequest(source=folder / "gain.txt", scratch=folder, progress=Silent(), **changes)


def test_multiplies_by_the_number(tmp_path: Path) -> None:
    model = local_model(EchoFamily().export(request_for(tmp_path, "2.5\n")))
    x = np.arange(3 * 64, dtype=np.float32).reshape(3, 64)
    np.testing.assert_array_equal(model["model"].load()(x=x)["y"], x * np.float32(2.5))


def test_gain_is_a_tensor_and_not_part_of_the_graph(tmp_path: Path) -> None:
    two, three = (next(iter(EchoFamily().export(request_for(tmp_path, text)).components)).graph for text in "23")
    assert [tensor.name for tensor in two.tensors] == ["gain"]
    assert two.proto == three.proto


def test_default_profile_is_batch_1_to_8(tmp_path: Path) -> None:
    (component,) = EchoFamily().export(request_for(tmp_path, "2")).components
    assert component.profiles[0].inputs["x"].max == (8, 64)
    (component,) = EchoFamily().export(request_for(tmp_path, "2", profiles=("x=1x64:2x64:4x64",))).components
    assert component.profiles[0].inputs["x"].max == (4, 64)


def test_demo_describes_the_output(tmp_path: Path) -> None:
    model = local_model(EchoFamily().export(request_for(tmp_path, "2")))
    result = EchoFamily().demo(model, ["--input", "x=3"], Silent())
    assert result.values["outputs"] == [
        {"name": "y", "dtype": "float32", "shape": [1, 64], "min": 6.0, "mean": 6.0, "max": 6.0}
    ]


@pytest.mark.parametrize("text", ["", "two", "nan", "1e99", "\x00", "1 2"])
def test_source_that_is_no_number_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="not a number"):
        EchoFamily().export(request_for(tmp_path, text))


def test_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        EchoFamily().export(ExportRequest(source=tmp_path / "nowhere", scratch=tmp_path, progress=Silent()))


@pytest.mark.parametrize("changes", [{"precision": "fp16"}, {"options": {"colour": "red"}}, {"profiles": ("big",)}])
def test_unknown_requests_are_usage_errors(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        EchoFamily().export(request_for(tmp_path, "2", **changes))
