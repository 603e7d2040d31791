"""Safetensors files, opened so that what is wrong with them is said in wszoo's words."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wszoo.errors import BuildError, MalformedError
from wszoo_sdxl.libraries import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

PRECISION_OF = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F64": "fp64"}


@contextmanager
def open_file(path: Path) -> Iterator[Any]:
    """A safetensors file; its tensors are torch's, mapped from the file and not read.

    Raises:
        MalformedError: not a safetensors file, or a damaged one.
        MissingExtraError: safetensors is not installed.
    """
    safetensors = require("safetensors", "export")
    try:
        with safetensors.safe_open(path, "pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise MalformedError(f"{path} is not a safetensors file, or is damaged: {error}") from error


def check_types(files: Sequence[Path], component: str) -> None:
    """Refuse a checkpoint of several floating-point types: which of them was meant?

    Raises:
        BuildError: it mixes them, or has one that cannot be widened (fp8).
        MalformedError: a file is damaged.
    """
    floats = {name: count for name, count in _types(files).items() if name in PRECISION_OF or name.startswith("F8")}
    listing = ", ".join(f"{count} tensors in {PRECISION_OF.get(name, name)}" for name, count in floats.items())
    if any(name.startswith("F8") for name in floats):
        raise BuildError(f"the checkpoint of {component} is quantized: {listing}", hint="take the fp16 or fp32 variant")
    if len(floats) > 1:
        raise BuildError(
            f"the checkpoint of {component} mixes element types: {listing}",
            hint="say which to export with --precision fp16 or --precision fp32",
        )


def precisions(files: Sequence[Path]) -> set[str]:
    """The floating-point types in the files, as ``--precision`` names them.

    Raises:
        MalformedError: a file is damaged.
    """
    return {PRECISION_OF[name] for name in _types(files) if name in PRECISION_OF}


def _types(files: Sequence[Path]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for path in files:
        with open_file(path) as file:
            counts.update(str(file.get_slice(key).get_dtype()) for key in file.keys())  # noqa: SIM118 - not a dict
    return counts


def count_numbers(files: Sequence[Path]) -> int:
    """How many numbers the files hold, from their headers.

    Raises:
        MalformedError: a file is damaged.
    """
    total = 0
    for path in files:
        with open_file(path) as file:
            total += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    return total
