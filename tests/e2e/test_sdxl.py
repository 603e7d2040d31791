"""A tiny Stable Diffusion XL from its folder to a picture: built, published, pulled into an empty store, and drawn."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
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
DOCS = Path(__file__).parents[2] / "docs" / "sdxl.md"
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


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A folder in which the commands of docs/sdxl.md find the plugin installed and a store of their own."""
    info = tmp_path / "site" / "wszoo_sdxl-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wszoo-sdxl\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[wszoo]\nsdxl = wszoo_sdxl\n")
    (tmp_path / "work").mkdir()
    return tmp_path


def run(page: Path, words: list[str]) -> str:
    paths = [str(page / "site"), str(PLUGIN), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "WSZOO_STORE": str(page / "store")}
    done = subprocess.run(
        [sys.executable, *words], cwd=page / "work", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_a_new_user_gets_from_a_folder_to_a_picture_by_the_page(page: Path) -> None:
    """Every command and the Python of docs/sdxl.md, in order; then what they left is looked at."""
    commands = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    assert len(commands) > 8
    said = {}
    for command in commands:
        words = shlex.split(command)
        said[command] = run(page, ["-m", *words] if words[0] == "wszoo" else words[1:])
    run(page, ["-c", "\n".join(blocks("python"))])

    zoo = wszoo.Zoo(page / "store")
    _check_base(zoo)
    _check_style(zoo)
    _check_tuned(zoo, next(text for command, text in said.items() if "--weights-only" in command))
    assert np.asarray(Image.open(page / "work" / "cat.png")).std() > 10
    assert (page / "work" / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    _check_elsewhere(page)


def _check_base(zoo: wszoo.Zoo) -> None:
    view = show(zoo.store, Ref.parse("sdxl:1.0"))
    assert tuple(component.name for component in view.components) == COMPONENTS
    assert len(view.plans) == 15
    assert all(plan.plan_bytes < plan.engine_bytes / 2 for plan in view.plans if plan.target != "portable")
    assert (view.options["precision"], view.options["vae_precision"]) == ("fp16", "mixed")


def _check_style(zoo: wszoo.Zoo) -> None:
    """The page's LoRA changes one weight of the unet; the VAE is another one, as there is no Turing to build for."""
    found = {part.name: part for part in diff(zoo.store, Ref.parse("sdxl:1.0"), Ref.parse("sdxl:style")).components}
    assert len(found["unet"].changed) == 1
    assert not found["text_encoder"].changed
    assert not found["text_encoder_2"].changed


def _check_tuned(zoo: wszoo.Zoo, said: str) -> None:
    found = {part.name: part for part in diff(zoo.store, Ref.parse("sdxl:1.0"), Ref.parse("sdxl:1.1")).components}
    assert [name for name, part in found.items() if part.changed] == ["unet"]
    assert found["unet"].shared_bytes > found["unet"].only_second_bytes > 0
    actions = {tuple(line.split()[:2]): line for line in said.splitlines() if " kept " in line or " rebuilt " in line}
    assert len(actions) == 15
    rebuilt = {key for key, line in actions.items() if " rebuilt " in line}
    assert rebuilt == {("unet", "rtx-sm75"), ("unet", "rtx-sm89")}


def _check_elsewhere(page: Path) -> None:
    """A client with an empty store gets the very plans that were built."""
    client = wszoo.Zoo(page / "client")
    for tag, gpu in (("sdxl:1.0", "sm75"), ("sdxl:1.1", "sm89")):
        engines = client.pull(tag, gpu=gpu, source=str(page / "store"))
        for name in COMPONENTS:
            assert Digest.of_file(engines[name].assemble()) == engines[name].facts.engine_digest


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
