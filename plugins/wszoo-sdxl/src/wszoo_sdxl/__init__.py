"""Stable Diffusion XL for wszoo: the family ``sdxl``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.families.protocol import Family


@hookimpl
def wszoo_families() -> Sequence[Family]:
    """The family ``sdxl``."""
    from wszoo_sdxl.family import SdxlFamily  # with NumPy and ONNX, which nobody who only pulls needs

    return [SdxlFamily()]
