"""What ``--gpu`` asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from wszoo.errors import UsageError
from wszoo.gpu.machine import Gpu
from wszoo.gpu.skus import find_sku
from wszoo.names import compute_capability

_DOTTED = re.compile(r"^([0-9]{1,2})\.([0-9])$")  # as nvidia-smi prints it
_TARGET = re.compile(r"[a-z]+-(sm[0-9]{2,3})\b.*")


class How(StrEnum):
    """Where the GPU comes from."""

    AUTO = "auto"
    NONE = "none"
    GIVEN = "given"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRequest:
    """A parsed ``--gpu``.

    Attributes:
        how: ``auto``, the GPU of this machine; ``none``, no GPU even if there is one; ``given``, that GPU, perhaps of
            another machine.
        gpu: the one given, else None.
    """

    how: How = How.AUTO
    gpu: Gpu | None = None


def parse_gpu(text: str) -> GpuRequest:
    """Parse ``auto``, ``none``, ``sm89``, ``8.9`` or a product's name.

    Raises:
        UsageError: neither of these, or the name fits no product or several.
    """
    word = _DOTTED.sub(r"sm\1\2", text.strip().lower())
    if word in {How.AUTO, How.NONE}:
        return GpuRequest(how=How(word))
    if not word:
        raise UsageError("no GPU is named", hint="use 'auto', 'none', 'sm89', or a product as in 'RTX 4090'")
    if target := _TARGET.fullmatch(word):
        raise UsageError(f"{text!r} is a target, not a GPU", hint=f"give the GPU alone: --gpu {target[1]}")
    try:
        gpu = Gpu(name=word, compute_capability=compute_capability(word))
    except UsageError:
        gpu = find_sku(text)
    return GpuRequest(how=How.GIVEN, gpu=gpu)
