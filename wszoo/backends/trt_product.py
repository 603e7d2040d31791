"""What tells TensorRT and TensorRT-RTX apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """The facts about a product that building and trying a plan takes.

    Attributes:
        title: for messages.
        tag: what its plans begin with.
        extra: the extra of wszoo that brings it.
        configure: sets what only this product has on an ``IBuilderConfig``.
    """

    title: str
    tag: bytes
    extra: str
    configure: Callable[[Any], None]
