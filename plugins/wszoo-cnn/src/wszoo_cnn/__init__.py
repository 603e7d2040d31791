"""Vision classifiers for wszoo: the family ``cnn``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.hookspecs import hookimpl
from wszoo_cnn.family import CnnFamily

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.families.protocol import Family


@hookimpl
def wszoo_families() -> Sequence[Family]:
    """The family ``cnn``."""
    return [CnnFamily()]
