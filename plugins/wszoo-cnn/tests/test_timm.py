"""timm checkpoints, with timm's real models.

timm imports torchvision's FrozenBatchNorm2d and feature extraction, and its data module imports the transforms; none of
it runs here. Where no torchvision is installed that fits torch, an empty package stands in while timm is imported.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import json
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from wszoo_cnn.family import CnnFamily
from wszoo_cnn.preprocess import Preprocess

from wszoo.errors import BuildError, MissingExtraError
from wszoo.families.local import local_model
from wszoo.families.protocol import ExportRequest
from wszoo.progress import Silent
from wszoo.schema.decode import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from wszoo.families.protocol import Export

    Make = Callable[..., ExportRequest]


class AnyAttribute(type):
    """Makes ``InterpolationMode.NEAREST`` a string of that name."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        return name


class EmptyTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds any module of torchvision, and makes it of classes that do nothing."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        class Empty(ModuleType):
            def __getattr__(self, name: str) -> Any:
                if name.startswith("__"):
                    raise AttributeError(name)
                return AnyAttribute(name, (torch.nn.Module,), {})

        return Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def import_timm() -> ModuleType:
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):
        finder = EmptyTorchvision()
        sys.meta_path.insert(0, finder)
        try:
            return importlib.import_module("timm")
        finally:  # nobody else may take it for the real one
            sys.meta_path.remove(finder)
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
    return importlib.import_module("timm")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timm")
    torch.manual_seed(0)
    model = import_timm().create_model("test_resnet", pretrained=False, num_classes=4, zero_init_last=False)
    save_file(model.state_dict(), folder / "model.safetensors")
    numbers = {
        "input_size": [3, 64, 64],
        "crop_pct": 0.8,
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    }
    config = {
        "architecture": "test_resnet",
        "num_classes": 4,
        "pretrained_cfg": numbers,
        "label_names": ["a", "b", "c", "d"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def export(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    scratch = tmp_path_factory.mktemp("scratch")
    return CnnFamily().export(ExportRequest(source=checkpoint, scratch=scratch, progress=Silent()))


def test_export_equals_timm(checkpoint: Path, export: Export) -> None:
    assert export.options["library"] == "timm"
    assert export.options["image_size"] == "64x64"
    assert export.assets["labels.txt"] == b"a\nb\nc\nd\n"
    original = import_timm().create_model("test_resnet", pretrained=False, num_classes=4).eval()
    original.load_state_dict(load_file(checkpoint / "model.safetensors"))
    pixels = np.random.default_rng(7).standard_normal((3, 3, 64, 64), np.float32)
    with torch.inference_mode():
        expected = original(torch.from_numpy(pixels)).numpy()
    logits = local_model(export)["model"].load()(pixel_values=pixels)["logits"]
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def test_half_precision(checkpoint: Path, request_for: Make) -> None:
    (component,) = CnnFamily().export(request_for(checkpoint, precision="fp16")).components
    assert {tensor.dtype.name for tensor in component.graph.tensors} == {"float16"}


def test_preprocessing_follows_crop_pct(export: Export) -> None:
    how = decode(export.assets["preprocess.json"], Preprocess, what="it")
    assert (how.shortest_edge, how.crop, how.mean) == (80, (64, 64), (0.5, 0.5, 0.5))


def copy_of(checkpoint: Path, folder: Path, tensors: dict[str, torch.Tensor], **changes: object) -> Path:
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((checkpoint / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_unknown_architecture_names_those_tried(checkpoint: Path, tmp_path: Path, request_for: Make) -> None:
    folder = copy_of(checkpoint, tmp_path, load_file(checkpoint / "model.safetensors"), architecture="resnet_of_mine")
    with pytest.raises(BuildError, match=r"'resnet_of_mine'[\s\S]*MobileNetV3"):
        CnnFamily().export(request_for(folder))


def test_tensors_that_do_not_fit_are_named(checkpoint: Path, tmp_path: Path, request_for: Make) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["stray"] = tensors.pop("fc.bias")
    tensors["fc.weight"] = torch.zeros(3, 3)
    with pytest.raises(BuildError, match=r"misses fc\.bias.*expect stray.*shape for fc\.weight"):
        CnnFamily().export(request_for(copy_of(checkpoint, tmp_path, tensors)))


def test_missing_timm_says_what_to_install(
    checkpoint: Path, request_for: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"wszoo-cnn\[timm\]"):
        CnnFamily().export(request_for(checkpoint))
