"""Whether the operations of an earlier plan restore a new one: the cheap way when only weights have changed.

Builders lay a network's weights out by its graph, not by their values, so a model's next version may need the very
copies that the one before needed: it does where every weight was found. Trying them costs one pass over the plan, which
ends at the first byte that differs.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np

from wszoo.errors import IntegrityError
from wszoo.plans.splice import Program, apply

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wszoo.buffers import Bytes
    from wszoo.digest import Digest
    from wszoo.weights.tensor import Tensor


class _Different(Exception):  # noqa: N818 - never leaves this module
    """The restored bytes are not the plan's."""


def restored_tree(body: bytes, tensors: Sequence[Tensor], plan: Path) -> Digest | None:
    """The tree digest of a new plan if an earlier plan's operations restore it, byte for byte; else None.

    Args:
        body: the uncompressed program of the earlier plan.
        tensors: the new version's, in the order of the tensor table.
        plan: the file that the builder wrote for them.

    Raises:
        StorageError: a tensor cannot be read.
    """
    with plan.open("rb") as file:
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    try:
        program = Program.from_bytes(body, tensors, plan_size=len(mapped))
        return apply(program, tensors, _Comparer(mapped))
    except (_Different, IntegrityError):  # it is of another size, or refers to tensors that are not there
        return None


class _Comparer:
    """Takes the restored bytes window by window, and raises at the first window that is not the plan's."""

    def __init__(self, plan: Bytes) -> None:
        self._plan = plan
        self._at = 0

    def __call__(self, window: memoryview) -> None:
        end = self._at + len(window)
        if not np.array_equal(self._plan[self._at : end], np.frombuffer(window, np.uint8)):
            raise _Different
        self._at = end
