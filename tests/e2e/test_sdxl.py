"""A tiny Stable Diffusion XL from its folder to a picture: built, published, pulled into an empty store, and drawn."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import wszoo
from wszoo import plugins
from wszoo.describe import diff, show
from wszoo.digest import Digest
from wszoo.names import Ref

PLUGIN = Path(__file__).parents[2] / "plugins" / "wszoo-sdxl" / "src"
COMPONENTS = ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder")
LAYER = "encoder.layers.1.mlp.fc1"


@pytest.fixture(autouse=True)
def _sdxl_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin, also where it is not installed."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    if "sdxl" not in plugins.registry().families:
        monkeypatch.setattr(plugins, "BUILTIN", (*plugins.BUILTIN, "wszoo_sdxl"))
        plugins.registry.cache_clear()
    yield
    plugins.registry.cache_clear()
    for name in [name for name in sys.modules if name.startswith("wszoo_sdxl")]:
        del sys.modules[name]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    from wszoo_sdxl import tiny

    return tiny.make(tmp_path / "tiny")


def test_folder_to_picture(source: Path, tmp_path: Path) -> None:
    zoo = wszoo.Zoo(tmp_path / "publisher")
    options = {"vae-precision": "mixed", "licence": "MIT"}
    targets = ["portable", "rtx-sm75", "rtx-sm89"]
    report = zoo.build("sdxl", source, tag="tiny:1", targets=targets, profiles=["512"], options=options)
    view = show(zoo.store, report.ref)
    assert tuple(component.name for component in view.components) == COMPONENTS
    assert len(view.plans) == 15
    assert all(plan.plan_bytes < plan.engine_bytes / 2 for plan in view.plans if plan.target != "portable")

    client = wszoo.Zoo(tmp_path / "client")
    engines = client.pull("tiny:1", gpu="sm89", source=str(tmp_path / "publisher"))
    for name in COMPONENTS:
        path = engines[name].assemble()
        assert Digest.of_file(path) == engines[name].facts.engine_digest

    model = client.pull("tiny:1", gpu="none", source=str(tmp_path / "publisher"))
    result = model.demo(["--prompt", "a cat", "--steps", "2", "-o", str(tmp_path / "cat.png")])
    assert (result.values["height"], result.values["width"]) == (32, 32)
    assert np.asarray(Image.open(tmp_path / "cat.png")).std() > 10


def test_a_lora_adds_only_the_tensors_that_it_changes(source: Path, tmp_path: Path) -> None:
    zoo = wszoo.Zoo(tmp_path / "store")
    stored = load_file(source / "text_encoder" / "model.safetensors")
    weight = next(tensor for name, tensor in stored.items() if name.endswith(f"{LAYER}.weight"))
    down, up = torch.randn(2, weight.shape[1]), torch.randn(weight.shape[0], 2)
    key = f"text_encoder.text_model.{LAYER}"
    save_file({f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}, tmp_path / "style.safetensors")
    options = {"components": "text_encoder"}
    for tag, more in (("plain:1", {}), ("style:1", {"lora": f"{tmp_path / 'style.safetensors'}:0.5"})):
        report = zoo.build("sdxl", source, tag=tag, targets=["portable"], precision="fp32", options=options | more)

    found = diff(zoo.store, Ref.parse("plain:1"), Ref.parse("style:1"))

    (component,) = found.components
    (changed,) = component.changed
    assert component.only_second_bytes == weight.nbytes
    assert report.new_weight_bytes <= weight.nbytes
    assert show(zoo.store, Ref.parse("style:1")).options["lora"] == "style.safetensors:0.5"
    tensor = torch.from_numpy(_tensor(zoo, "style:1", changed))
    torch.testing.assert_close(tensor.T, weight + 0.5 * (up @ down))  # exported for MatMul, which has the weight last


def _tensor(zoo: wszoo.Zoo, ref: str, name: str) -> np.ndarray:
    from wszoo.weights.packs import PackReader

    model = zoo.pull(ref, gpu="none").selection.model.config
    tensors = PackReader(zoo.store.blobs, model).component("text_encoder")
    return next(tensor.array() for tensor in tensors if tensor.name == name).copy()


def test_nothing_is_published_when_a_component_is_broken(source: Path, tmp_path: Path) -> None:
    path = source / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["decoder.conv_in.bias"].fill_(torch.nan)
    save_file(tensors, path)
    zoo = wszoo.Zoo(tmp_path / "store")
    with pytest.raises(wszoo.errors.BuildError, match=r"NaN or infinity: decoder\.conv_in\.bias"):
        zoo.build(
            "sdxl", source, tag="tiny:1", targets=["portable"], options={"components": "text_encoder,vae_decoder"}
        )
    with pytest.raises(wszoo.errors.NotFoundError):
        zoo.pull("tiny:1", gpu="none")
