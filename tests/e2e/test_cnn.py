"""A classifier from its checkpoint to a label: built, published, pulled for a machine without a GPU, and run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification

import wszoo
from wszoo import plugins

PLUGIN = Path(__file__).parents[2] / "plugins" / "wszoo-cnn" / "src"


@pytest.fixture
def _cnn_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin, also where it is not installed."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.setattr(plugins, "BUILTIN", (*plugins.BUILTIN, "wszoo_cnn"))
    plugins.registry.cache_clear()
    yield
    plugins.registry.cache_clear()
    for name in [name for name in sys.modules if name.startswith("wszoo_cnn")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(3)
    names = dict(enumerate(["cat", "dog", "fox"]))
    config = ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", id2label=names, image_size=32
    )
    model = ResNetForImageClassification(config).eval()
    model.save_pretrained(folder)
    return folder, model


@pytest.mark.usefixtures("_cnn_installed")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_checkpoint_to_label(original: tuple[Path, torch.nn.Module], precision: str, tmp_path: Path) -> None:
    folder, network = original
    zoo = wszoo.Zoo(tmp_path / "store")
    zoo.build(
        "cnn",
        folder,
        tag="tiny:1",
        targets=["portable"],
        precision=precision,
        options={"image-size": "32", "licence": "MIT"},
    )

    model = zoo.pull("tiny:1", gpu="none")

    assert model.family == "cnn"
    pixels = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    dtype = {"fp32": np.float32, "fp16": np.float16}[precision]
    logits = model["model"].load()(pixel_values=pixels.astype(dtype))["logits"]
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels)).logits.numpy()
    allowed = {"fp32": 1e-4, "fp16": 2e-2}[precision] * np.abs(expected).max()
    assert np.abs(np.asarray(logits, np.float32) - expected).max() <= allowed

    picture = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)).save(picture)
    result = model.demo(["--image", str(picture), "--top", "1"])
    assert result.values["images"][0]["top"][0]["label"] in {"cat", "dog", "fox"}
