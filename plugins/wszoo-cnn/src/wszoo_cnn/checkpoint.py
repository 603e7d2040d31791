"""What is common to both kinds of checkpoint folders: the config, the weight files, and what may not be in them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from wszoo.errors import BuildError, MalformedError, MissingExtraError, NotFoundError, UsageError
from wszoo.families.sources import read_asset
from wszoo.families.torch_export import require_torch
from wszoo.names import is_portable_file_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import torch

    from wszoo_cnn.preprocess import Preprocess

TRIED = (
    "ResNet, ConvNeXt, EfficientNet, MobileNetV1, MobileNetV2 and ViT from transformers, "
    "and ResNet, ConvNeXt, EfficientNet, MobileNetV3 and ViT from timm"
)
PRECISIONS = {"fp32": "float32", "fp16": "float16"}
SHOWN = 5  # names in a message

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
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


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        NotFoundError: no such file.
        MalformedError: not a JSON object.
    """
    if not path.is_file():
        raise NotFoundError(f"no such file: {path}")
    try:
        return msgspec.json.decode(read_asset(path), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedError(f"{path} is not a JSON object: {error}") from error


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint.

    Raises:
        NotFoundError: there are none.
        UsageError: there are only pickles, which run code when they are loaded.
        MalformedError: an index that lists files elsewhere.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted({str(name) for name in (read_json(index).get("weight_map") or {}).values()})
        for name in names:
            if not is_portable_file_name(name):
                raise MalformedError(f"{index} lists {name!r}, which is not a file's name")
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise NotFoundError(f"{folder} lacks {named(missing)}, which {index.name} lists")
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    pickles = [path.name for pattern in _PICKLES for path in sorted(folder.glob(pattern))]
    if pickles:
        raise UsageError(
            f"{folder} holds its weights only as a pickle ({named(pickles)}), and loading a pickle runs its code",
            hint="save them with safetensors: model.save_pretrained(folder, safe_serialization=True)",
        )
    raise NotFoundError(f"no model.safetensors in {folder}", hint="give the folder that holds config.json and weights")


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


def check_keys(missing: Iterable[str], unexpected: Iterable[str], mismatched: Iterable[str]) -> None:
    """Refuse a checkpoint whose tensors are not those of the architecture.

    Raises:
        BuildError: the message names the first of each kind.
    """
    parts = [
        f"{what} {named(sorted(names))}"
        for what, names in (
            ("misses", list(missing)),
            ("does not expect", list(unexpected)),
            ("has another shape for", list(mismatched)),
        )
        if names
    ]
    if parts:
        raise BuildError(
            f"the checkpoint does not fit its config: the architecture {'; it '.join(parts)}",
            hint="config.json and model.safetensors must come from the same model, with its classifier",
        )


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


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


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


def missing_library(module: str, extra: str = "export") -> MissingExtraError:
    """The error for a library that only publishers need."""
    error = MissingExtraError(module, extra, "exporting this checkpoint")
    error.hint = f'install it with: pip install "wszoo-cnn[{extra}]"'
    return error
