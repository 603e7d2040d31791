from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from wszoo_sdxl.family import SdxlFamily

from wszoo.errors import NotFoundError, StorageError, UsageError
from wszoo.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wszoo.families.local import LocalModel

Exported = "tuple[LocalModel, dict[str, str]]"


@pytest.fixture(scope="module")
def model(exported: Exported) -> LocalModel:
    return exported[0]


class Steps(Silent):
    def __init__(self) -> None:
        self.done: dict[str, int] = {}

    def stage(self, label: str, total: int | None = None, unit: str = "B") -> Iterator[Callable[[int], None]]:
        from contextlib import contextmanager

        @contextmanager
        def opened() -> Iterator[Callable[[int], None]]:
            self.done[label] = 0
            yield lambda amount: self.done.update({label: self.done[label] + amount})

        return opened()


def test_draws_into_a_file_and_tells_its_steps(model: LocalModel, tmp_path: Path) -> None:
    out, progress = tmp_path / "cat.png", Steps()
    result = SdxlFamily().demo(model, ["--prompt", "a cat", "--steps", "3", "--seed", "4", "-o", str(out)], progress)
    assert Image.open(out).size == (32, 32)
    assert result.values["files"] == [str(out)]
    assert "seed 4" in result.text
    assert progress.done["denoise"] == 3
    json.dumps(result.values)


def test_several_pictures_are_numbered(model: LocalModel, tmp_path: Path) -> None:
    out = tmp_path / "cat.png"
    arguments = ["--steps", "1", "--count", "2", "--height", "24", "--show", "-o", str(out)]
    result = SdxlFamily().demo(model, arguments, Silent())
    pictures = [np.asarray(Image.open(tmp_path / f"cat-{number}.png")) for number in (1, 2)]
    assert pictures[0].shape == (24, 32, 3)
    assert not np.array_equal(*pictures)
    assert len(result.text.splitlines()) > 5


def test_starts_from_a_picture(model: LocalModel, tmp_path: Path) -> None:
    picture = tmp_path / "in.png"
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(picture)
    arguments = ["--image", str(picture), "--strength", "0.5", "--steps", "2", "-o", str(tmp_path / "out.png")]
    SdxlFamily().demo(model, arguments, Silent())
    assert (tmp_path / "out.png").is_file()


def test_help_is_a_result(model: LocalModel) -> None:
    assert "--prompt" in SdxlFamily().demo(model, ["--help"], Silent()).text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--steps", "0"],
        ["--steps", "many"],
        ["--guidance", "nan"],
        ["--strength", "2"],
        ["--seed", "-1"],
        ["--count", "5"],
        ["--nonsense"],
        ["-o", "picture.txt"],
    ],
)
def test_wrong_arguments_are_usage_errors(model: LocalModel, arguments: list[str]) -> None:
    with pytest.raises(UsageError):
        SdxlFamily().demo(model, arguments, Silent())


def test_files_that_are_not_there(model: LocalModel, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        SdxlFamily().demo(model, ["--image", str(tmp_path / "nowhere.png")], Silent())
    with pytest.raises(StorageError, match="no such folder"):
        SdxlFamily().demo(model, ["-o", str(tmp_path / "nowhere" / "out.png")], Silent())


def test_files_that_are_no_pictures(model: LocalModel, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 40)
    with pytest.raises(UsageError, match="not a usable image"):
        SdxlFamily().demo(model, ["--image", str(broken)], Silent())
    Image.new("RGB", (8, 8)).save(broken)
    with pytest.raises(UsageError, match="own size"):
        SdxlFamily().demo(model, ["--image", str(broken), "--height", "64"], Silent())
