"""Classifiers from a timm checkpoint folder: ``config.json`` with an ``architecture``, and ``model.safetensors``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from wszoo.errors import BuildError
from wszoo.families.checkpoints import check_keys
from wszoo.families.torch_export import require_torch
from wszoo_cnn.checkpoint import PRECISIONS, TRIED, Checkpoint, check_finite, logits_module, missing_library, one_line
from wszoo_cnn.preprocess import Preprocess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    import torch


def load(files: Sequence[Path], config: Mapping[str, Any], precision: str) -> Checkpoint:
    """Load and check a classifier.

    Args:
        files: its safetensors files.
        config: the parsed ``config.json``.
        precision: ``fp32`` or ``fp16``.

    Raises:
        BuildError: an unknown architecture, or weights that do not fit or are not finite.
        MissingExtraError: timm, or torchvision that it needs, is not installed.
    """
    timm = _import_timm()
    name = str(config["architecture"])
    arguments = dict(config.get("model_args") or {})
    if config.get("num_classes"):
        arguments["num_classes"] = int(config["num_classes"])
    try:
        model = timm.create_model(name, pretrained=False, **arguments).eval()
    except Exception as error:  # timm raises RuntimeError for unknown names, and whatever wrong arguments cause
        raise BuildError(f"timm cannot make {name!r}: {error}", hint=f"tried are: {TRIED}") from error
    model = model.to(getattr(require_torch(), PRECISIONS[precision]))
    _fill(model, files)
    check_finite(model)
    return _checkpoint(model, name, config)


def _import_timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise missing_library(error.name or "timm", "timm") from error
    except RuntimeError as error:  # "operator torchvision::nms does not exist"
        raise BuildError(
            f"timm cannot be imported: {error}", hint="install the torchvision that belongs to this torch"
        ) from error
    module: ModuleType = timm
    return module


def _fill(model: torch.nn.Module, files: Sequence[Path]) -> None:
    # Tensor by tensor from the mapped file, so that the weights are in memory once.
    from safetensors import safe_open

    torch = require_torch()
    own = model.state_dict()
    seen, unexpected, mismatched = set(), [], []
    for path in files:
        with torch.no_grad(), safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a dict
                if key not in own:
                    unexpected.append(key)
                    continue
                seen.add(key)
                tensor = file.get_tensor(key)
                if tensor.shape == own[key].shape:
                    own[key].copy_(tensor)
                else:
                    mismatched.append(key)
    check_keys(own.keys() - seen, unexpected, mismatched)


def _checkpoint(model: torch.nn.Module, name: str, config: Mapping[str, Any]) -> Checkpoint:
    numbers = {**getattr(model, "pretrained_cfg", {}), **config.get("pretrained_cfg", {})}
    _, height, width = numbers.get("input_size") or (3, 224, 224)
    crop_pct = float(numbers.get("crop_pct") or 0.875)
    try:
        preprocess = msgspec.convert(
            {
                "shortest_edge": math.floor(min(height, width) / crop_pct),
                "crop": (height, width),
                "interpolation": numbers.get("interpolation") or "bicubic",
                "mean": numbers["mean"],
                "std": numbers["std"],
            },
            Preprocess,
        )
    except (msgspec.ValidationError, KeyError) as error:
        raise BuildError(f"the pretrained_cfg of {name!r} is not understood: {error}") from error
    classes = int(getattr(model, "num_classes", 0))
    labels = config.get("label_names") or numbers.get("label_names") or [f"class {at}" for at in range(classes)]
    return Checkpoint(
        module=logits_module(model, lambda scores: scores),
        architecture=name,
        library="timm",
        preprocess=preprocess,
        size=(height, width),
        labels=tuple(one_line(label) for label in labels),
    )
