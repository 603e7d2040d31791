"""What is common to both kinds of checkpoint folders: the config, the weight files, and what may not be in them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wszoo.errors import BuildError, MissingExtraError, UsageError
from wszoo.families.checkpoints import named
from wszoo.families.torch_export import require_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from wszoo_cnn.preprocess import Preprocess

TRIED = (
    "ResNet, ConvNeXt, EfficientNet, MobileNetV1, MobileNetV2 and ViT from transformers, "
    "and ResNet, ConvNeXt, EfficientNet, MobileNetV3 and ViT from timm"
)
PRECISIONS = {"fp32": "float32", "fp16": "float16"}

_PRECISION_OF = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F64": "fp64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A classifier that has been loaded and checked.

    Attributes:
        module: takes ``pixel_values`` ``(batch, 3, height, width)``, gives logits ``(batch, classes)``.
        architecture: as the library calls it.
        library: ``transformers`` or ``timm``.
        preprocess: how images are made ready.
        size: height and width.
        labels: a name for each class.
    """

    module: torch.nn.Module
    architecture: str
    library: str
    preprocess: Preprocess
    size: tuple[int, int]
    labels: tuple[str, ...]


def choose_precision(files: Sequence[Path], wanted: str) -> str:
    """The precision to export in: the one asked for, or the checkpoint's own.

    Raises:
        UsageError: unknown, or nothing asked for and the checkpoint's own is neither fp32 nor fp16.
        BuildError: nothing asked for and the checkpoint mixes element types; or a file is damaged.
    """
    if wanted:
        if wanted not in PRECISIONS:
            raise UsageError(f"no precision {wanted!r}", hint=f"the family 'cnn' exports {' and '.join(PRECISIONS)}")
        return wanted
    counts = Counter(dtype for dtype in _dtypes(files) if dtype in _PRECISION_OF or dtype.startswith("F8"))
    listing = ", ".join(f"{count} tensors in {_PRECISION_OF.get(name, name)}" for name, count in counts.most_common())
    if len(counts) != 1:
        raise BuildError(
            f"the checkpoint mixes element types: {listing or 'no floating-point tensors at all'}",
            hint="say which to export with --precision fp32 or --precision fp16",
        )
    own = _PRECISION_OF.get(next(iter(counts)), "fp8")
    if own not in PRECISIONS:
        raise UsageError(f"the checkpoint is in {own}", hint="choose with --precision fp32 or --precision fp16")
    return own


def check_finite(module: torch.nn.Module) -> None:
    """Refuse weights that are not numbers.

    Raises:
        BuildError: the message names the first tensors.
    """
    bad = [
        name
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if bad:
        raise BuildError(
            f"these weights hold NaN or infinity: {named(bad)}",
            hint="the checkpoint is damaged, or too large for fp16: try --precision fp32",
        )


def logits_module(model: torch.nn.Module, pick: Callable[[Any], torch.Tensor]) -> torch.nn.Module:
    """A module whose only argument is ``pixel_values`` and whose only result is the logits.

    Args:
        model: takes the pixels as its first argument.
        pick: finds the logits in what ``model`` returns.
    """
    library = require_torch()

    class Logits(library.nn.Module):  # type: ignore[misc,name-defined]  # torch is imported only when it is needed
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return pick(self.model(pixel_values))

    wrapped: torch.nn.Module = Logits().eval()
    return wrapped


def one_line(label: object) -> str:
    """A class's name without line breaks, as ``labels.txt`` holds one a line."""
    return " ".join(str(label).split()) or "?"


def _dtypes(files: Sequence[Path]) -> list[str]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise missing_library("safetensors") from error
    found = []
    for path in files:
        try:
            with safe_open(path, "numpy") as file:
                found += [str(file.get_slice(key).get_dtype()) for key in file.keys()]  # noqa: SIM118 - not a dict
        except SafetensorError as error:
            raise BuildError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    return found


def missing_library(
    module: str, extra: str = "export", purpose: str = "exporting this checkpoint"
) -> MissingExtraError:
    """The error for a library that is one of this plugin's extras, or comes with it."""
    error = MissingExtraError(module, extra, purpose)
    error.hint = f'install it with: pip install "wszoo-cnn[{extra}]"'
    return error
