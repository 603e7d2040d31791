"""How long work reports that it goes on, without knowing who watches."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


class Progress(Protocol):
    """Someone who watches."""

    def stage(
        self, label: str, total: int | None = None, unit: str = "B"
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Open a stage; call what it yields with each amount of work done.

        Args:
            label: what happens now (``"splice unet"``).
            total: the whole amount, or None when it is not known.
            unit: ``B`` for bytes, else the plural of what is counted.
        """
        ...


class Silent:
    """Nobody watches."""

    def stage(
        self,
        label: str,  # noqa: ARG002 - part of the protocol
        total: int | None = None,  # noqa: ARG002
        unit: str = "B",  # noqa: ARG002
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Ignore all of it."""
        return nullcontext(lambda _: None)
