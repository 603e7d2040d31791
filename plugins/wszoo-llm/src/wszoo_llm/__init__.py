"""Large language models for wszoo: the family ``llm``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.families.protocol import Family


@hookimpl
def wszoo_families() -> Sequence[Family]:
    """The family ``llm``."""
    from wszoo_llm.family import LlmFamily  # with NumPy and ONNX, which nobody who only pulls needs

    return [LlmFamily()]
