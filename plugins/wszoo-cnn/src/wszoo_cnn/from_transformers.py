"""Classifiers from a transformers checkpoint folder."""

from __future__ import annotations

from contextlib import contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from wszoo.errors import BuildError
from wszoo.families.checkpoints import check_keys, read_json
from wszoo.families.torch_export import require_torch
from wszoo_cnn.checkpoint import PRECISIONS, TRIED, Checkpoint, check_finite, logits_module, missing_library, one_line
from wszoo_cnn.preprocess import Interpolation, Preprocess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_DEFAULT_EDGE = 224
_FILTERS: tuple[Interpolation, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's order
_WARPED_EDGE = 384  # ConvNeXt's processor crops below this size and only resizes from it on


def load(folder: Path, config: Mapping[str, Any], precision: str) -> Checkpoint:
    """Load and check a classifier.

    Args:
        folder: with ``config.json`` and safetensors, perhaps ``preprocessor_config.json``.
        config: the parsed ``config.json``.
        precision: ``fp32`` or ``fp16``.

    Raises:
        BuildError: not an image classifier, an unknown architecture, or weights that do not fit or are not finite.
        MissingExtraError: transformers is not installed.
    """
    model = _load_model(folder, config, precision)
    check_finite(model)
    preprocess = _preprocess(folder, config)
    return Checkpoint(
        module=logits_module(model, attrgetter("logits")),
        architecture=type(model).__name__,
        library="transformers",
        preprocess=preprocess,
        size=preprocess.size or (_DEFAULT_EDGE, _DEFAULT_EDGE),
        labels=tuple(one_line(label) for _, label in sorted(model.config.id2label.items())),
    )


def _load_model(folder: Path, config: Mapping[str, Any], precision: str) -> Any:  # noqa: ANN401 - transformers' own
    torch = require_torch()
    try:
        from transformers import AutoModelForImageClassification
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN
    except ImportError as error:
        raise missing_library("transformers") from error
    kind = config.get("model_type")
    if kind not in KNOWN:
        raise BuildError(f"transformers has no image classifier of the type {kind!r}", hint=f"tried are: {TRIED}")
    try:
        with _quiet():
            model, report = AutoModelForImageClassification.from_pretrained(
                folder,
                dtype=getattr(torch, PRECISIONS[precision]),
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are reported like the other misfits
            )
    except Exception as error:  # whatever a config of the wrong kind makes the library raise
        raise BuildError(
            f"transformers cannot load {folder}: {type(error).__name__}: {error}", hint=f"tried are: {TRIED}"
        ) from error
    mismatched = [str(item[0]) if isinstance(item, tuple) else str(item) for item in report.get("mismatched_keys", ())]
    check_keys(report.get("missing_keys", ()), report.get("unexpected_keys", ()), mismatched)
    return model.eval()


def _preprocess(folder: Path, config: Mapping[str, Any]) -> Preprocess:
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        size = _pair(config.get("image_size")) or (_DEFAULT_EDGE, _DEFAULT_EDGE)
        return Preprocess(resize=size, crop=None, assumed=True)
    stored = read_json(path)
    try:
        return msgspec.convert(_numbers(stored), Preprocess)
    except (msgspec.ValidationError, ValueError, TypeError, IndexError, KeyError) as error:
        raise BuildError(f"{path} is not understood: {error}") from error


def _numbers(stored: Mapping[str, Any]) -> dict[str, Any]:
    mean, std = [0.0] * 3, [1.0] * 3
    if stored.get("do_normalize", True):
        mean, std = stored.get("image_mean", [0.485, 0.456, 0.406]), stored.get("image_std", [0.229, 0.224, 0.225])
    if _is(stored, "EfficientNet") and stored.get("include_top", True):
        std = [number * number for number in stored.get("image_std", std)]  # it normalises twice, see its processor
    rescale = stored.get("do_rescale", True)
    return {
        **_sizes(stored),
        "interpolation": _FILTERS[int(stored.get("resample", 3 if _is(stored, "ConvNext") else 2))],
        "scale": float(stored.get("rescale_factor", 1 / 255)) if rescale else 1.0,
        "offset": 1.0 if stored.get("rescale_offset") else 0.0,
        "mean": mean,
        "std": std,
    }


def _sizes(stored: Mapping[str, Any]) -> dict[str, Any]:
    size = stored.get("size", _DEFAULT_EDGE) if stored.get("do_resize", True) else None
    edge = size.get("shortest_edge") if isinstance(size, dict) else None
    if _is(stored, "ConvNext"):
        edge = edge or (size if isinstance(size, int) else _WARPED_EDGE)
        if edge >= _WARPED_EDGE:
            return {"resize": (edge, edge)}
        return {"shortest_edge": int(edge / stored.get("crop_pct", 224 / 256)), "crop": (edge, edge)}
    crop = _pair(stored.get("crop_size", _DEFAULT_EDGE)) if stored.get("do_center_crop") else None
    return {"shortest_edge": edge, "resize": None if edge else _pair(size), "crop": crop}


def _is(stored: Mapping[str, Any], kind: str) -> bool:
    named = stored.get("image_processor_type") or stored.get("feature_extractor_type") or ""
    return str(named).startswith(kind)


def _pair(size: Any) -> tuple[int, int] | None:  # noqa: ANN401 - JSON
    if isinstance(size, dict):
        return int(size["height"]), int(size["width"])
    if isinstance(size, list):
        return int(size[0]), int(size[1])
    return (int(size), int(size)) if size else None


@contextmanager
def _quiet() -> Iterator[None]:
    # Its report of keys that do not fit is raised as an error of ours, with the names.
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
