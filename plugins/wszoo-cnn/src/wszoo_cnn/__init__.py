"""Vision classifiers for wszoo: the family ``cnn``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.families.protocol import Family


@hookimpl
def wszoo_families() -> Sequence[Family]:
    """The family ``cnn``."""
    from wszoo_cnn.family import CnnFamily  # with NumPy, which nobody who only pulls needs

    return [CnnFamily()]
