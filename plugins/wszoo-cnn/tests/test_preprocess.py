"""Our preprocessing against transformers' own image processors, on the same images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from wszoo_cnn.from_transformers import _preprocess
from wszoo_cnn.preprocess import Preprocess, to_array

if TYPE_CHECKING:
    from pathlib import Path

PROCESSORS: list[tuple[str, str, dict[str, Any]]] = [
    ("convnext", "ConvNextImageProcessorPil", {"size": {"shortest_edge": 32}}),
    ("convnext", "ConvNextImageProcessorPil", {"size": {"shortest_edge": 384}}),
    ("efficientnet", "EfficientNetImageProcessorPil", {"size": {"height": 40, "width": 40}}),
    (
        "efficientnet",
        "EfficientNetImageProcessorPil",
        {
            "do_center_crop": True,
            "crop_size": {"height": 36, "width": 36},
            "rescale_offset": True,
            "include_top": False,
        },
    ),
    ("mobilenet_v1", "MobileNetV1ImageProcessorPil", {}),
    ("mobilenet_v2", "MobileNetV2ImageProcessorPil", {"crop_size": {"height": 33, "width": 31}}),
    ("vit", "ViTImageProcessorPil", {"size": {"height": 32, "width": 48}}),
    ("vit", "ViTImageProcessorPil", {"do_resize": False, "do_normalize": False}),
]


@pytest.mark.parametrize(("package", "kind", "arguments"), PROCESSORS)
@pytest.mark.parametrize("size", [(64, 48), (301, 500)])
def test_same_pixels_as_transformers(
    package: str, kind: str, arguments: dict[str, Any], size: tuple[int, int], tmp_path: Path
) -> None:
    import importlib

    module = importlib.import_module(f"transformers.models.{package}.image_processing_pil_{package}")
    processor = getattr(module, kind)(**arguments)
    processor.save_pretrained(tmp_path)
    pixels = np.random.default_rng(3).integers(0, 256, (*size, 3), np.uint8)
    image = Image.fromarray(pixels)

    ours = to_array(image, _preprocess(tmp_path, {}))

    theirs = np.asarray(processor(image, return_tensors="np")["pixel_values"][0], np.float32)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-5)


def test_resized_keeps_the_part_that_the_crop_sees() -> None:
    how = Preprocess(shortest_edge=256, crop=(224, 224)).resized(112, 112)
    assert (how.shortest_edge, how.crop) == (128, (112, 112))
    assert Preprocess(resize=(32, 32), crop=None).resized(48, 64).size == (48, 64)


def test_crop_larger_than_the_image_is_filled_with_black() -> None:
    image = Image.new("RGB", (10, 7), (255, 255, 255))
    how = Preprocess(resize=None, crop=(12, 12), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    array = to_array(image, how)
    assert array.shape == (3, 12, 12)
    assert array.sum() == pytest.approx(3 * 70)


def test_old_size_numbers_are_understood(tmp_path: Path) -> None:
    stored = {"size": 32, "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stored))
    how = _preprocess(tmp_path, {})
    assert (how.resize, how.interpolation, how.assumed) == ((32, 32), "bicubic", False)
