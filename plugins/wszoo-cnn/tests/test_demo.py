from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from wszoo_cnn.family import CnnFamily

from wszoo.errors import MalformedError, NotFoundError, UsageError
from wszoo.families.local import LocalModel, local_model
from wszoo.progress import Silent

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def model(resnet: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    from wszoo.families.protocol import ExportRequest

    scratch = tmp_path_factory.mktemp("scratch")
    return local_model(CnnFamily().export(ExportRequest(source=resnet, scratch=scratch, progress=Silent())))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_classifies_an_image(model: LocalModel, picture: Path) -> None:
    result = CnnFamily().demo(model, ["--image", str(picture), "--top", "2"], Silent())
    (image,) = result.values["images"]
    assert image["image"] == str(picture)
    assert len(image["top"]) == 2
    assert image["top"][0]["label"] in {"cat", "dog", "fox", "owl", "eel"}
    assert image["top"][0]["probability"] >= image["top"][1]["probability"]
    assert image["top"][0]["label"] in result.text
    json.dumps(result.values)


def test_several_images_are_classified_alike_together_and_alone(model: LocalModel, picture: Path) -> None:
    other = picture.with_name("other.jpg")
    Image.open(picture).rotate(90).save(other)
    both = CnnFamily().demo(model, ["--image", str(picture), "--image", str(other)], Silent()).values["images"]
    alone = CnnFamily().demo(model, ["--image", str(other)], Silent()).values["images"]
    assert both[1]["top"][0]["probability"] == pytest.approx(alone[0]["top"][0]["probability"])


def test_without_an_image_it_says_that_it_is_noise(model: LocalModel) -> None:
    first, second = (CnnFamily().demo(model, [], Silent()) for _ in range(2))
    assert "noise" in first.text
    assert first == second


def test_assumed_normalisation_is_admitted(model: LocalModel) -> None:
    result = CnnFamily().demo(model, [], Silent())
    assert result.values["assumed_preprocessing"] is True
    assert "assumed" in result.text


def test_help_is_a_result(model: LocalModel) -> None:
    assert "--image" in CnnFamily().demo(model, ["--help"], Silent()).text


@pytest.mark.parametrize("arguments", [["--top", "0"], ["--top", "x"], ["--nonsense"], ["picture.png"]])
def test_wrong_arguments_are_usage_errors(model: LocalModel, arguments: list[str]) -> None:
    with pytest.raises(UsageError, match="wszoo run REF"):
        CnnFamily().demo(model, arguments, Silent())


def test_missing_image_is_named(model: LocalModel, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        CnnFamily().demo(model, ["--image", str(tmp_path / "nowhere.png")], Silent())


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\x00" * 40])
def test_file_that_is_no_image_is_refused(model: LocalModel, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="not a usable image"):
        CnnFamily().demo(model, ["--image", str(path)], Silent())


def test_truncated_image_is_refused(model: LocalModel, picture: Path) -> None:
    picture.write_bytes(picture.read_bytes()[:2000])
    with pytest.raises(UsageError, match="not a usable image"):
        CnnFamily().demo(model, ["--image", str(picture)], Silent())


@pytest.mark.parametrize(
    "change",
    [
        {"crop": [100000, 100000]},
        {"shortest_edge": -1},
        {"resize": [1, 2, 3]},
        {"std": [0.0, 1.0, 1.0]},
        {"mean": [1.0]},
        {"interpolation": "magic"},
    ],
)
def test_hostile_preprocessing_is_refused(model: LocalModel, change: dict[str, object]) -> None:
    stored = json.loads(model.files["preprocess.json"])
    files = {**model.files, "preprocess.json": json.dumps({**stored, **change}).encode()}
    with pytest.raises(MalformedError, match=r"preprocess\.json"):
        CnnFamily().demo(LocalModel(model.graphs, files), [], Silent())


def test_labels_cannot_steer_the_terminal(model: LocalModel) -> None:
    files = {**model.files, "labels.txt": b"\x1b[2Jcat\ndog\nfox\nowl\neel\n"}
    result = CnnFamily().demo(LocalModel(model.graphs, files), [], Silent())
    assert "\x1b" not in result.text
