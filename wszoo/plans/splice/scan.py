"""Find anchors in a plan: one multiplication and one table look-up for each position, more only for the few that pass.

The plan is taken region by region, and only where nothing has been explained yet: a copy that one region's anchors lead
to usually explains many regions behind it, which then are never looked at. So a plan of large tensors is read at the
speed of a comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wszoo.plans.splice.anchors import ANCHOR, Index, mixed, slots

if TYPE_CHECKING:
    from wszoo.buffers import Bytes
    from wszoo.plans.splice.columns import Ints

_GRAINS = (
    16,
    64,
)  # bytes of plan for each flag of a cover: fine enough for rows that begin anywhere, coarse from here:
_COARSE = 2 << 30
NEAR = 256 << 10  # bytes of plan searched at a time: enough to tell whole matrices and fused ones of a few parts
FAR = 4 << 20  # for what is left then; at least four rows of the widest matrices are in one
_CHUNK = 1 << 19  # bytes looked at in one go: keys and slots stay in the second-level cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """Where anchors were found: offset in the plan, view, offset in the view; in bytes, in no order."""

    target: Ints
    view: Ints
    source: Ints


class Cover:
    """Which grains (16 or 64 bytes) of a plan are wholly explained. It steers the search; tiling settles exact ranges.

    Args:
        size: bytes in the plan.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._grain = _GRAINS[size > _COARSE]
        self._flags = np.zeros(-(-size // self._grain), np.bool_)

    @property
    def left(self) -> int:
        """Bytes in grains that are not explained."""
        return (len(self._flags) - int(np.count_nonzero(self._flags))) * self._grain

    def holds(self, target: int) -> bool:
        """True where the grain at a byte offset is explained."""
        return bool(self._flags[target // self._grain])

    def first_gap(self, start: int, stop: int) -> int:
        """The first offset from ``start`` on that lies in two unexplained grains; ``stop`` if there is none before.

        A single one is where two copies meet inside of a grain, and not a gap.
        """
        first = start // self._grain
        flags = self._flags[first : -(-stop // self._grain) + 1]
        explained = flags[:-1] | flags[1:] if len(flags) > 1 else flags
        return stop if explained.all() else max(start, (first + int(explained.argmin())) * self._grain)

    def mark(self, start: int, pitch: int, rows: int, length: int) -> None:
        """Mark ``rows`` ranges of ``length`` bytes that begin ``pitch`` bytes apart."""
        if rows == 1:
            self._flags[-(-start // self._grain) : (start + length) // self._grain] = True
        elif length >= self._grain:
            for low in range(0, rows, 1 << 16):
                starts = start + np.arange(low, min(rows, low + (1 << 16))) * pitch
                first, last = -(-starts // self._grain), (starts + length) // self._grain
                for step in range(int((last - first).max())):
                    inside = first + step
                    self._flags[inside[inside < last]] = True

    def gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What is not explained between two offsets that are whole grains, in bytes, widened to whole grains.

        Single grains are left out: there two copies meet inside of one, as at every row of interleaved matrices.
        """
        first, last = start // self._grain, -(-stop // self._grain)
        flags = self._flags[first:last]
        if flags.all():
            return []
        around = np.zeros(len(flags) + 2, np.bool_)
        around[first == 0 : len(flags) + 1 + (last < len(self._flags))] = self._flags[max(0, first - 1) : last + 1]
        flags = flags | (around[:-2] & around[2:])
        edges = np.flatnonzero(np.diff(flags.view(np.int8), prepend=np.int8(1), append=np.int8(1)))
        ends = np.minimum(edges * self._grain + start, self._size).tolist()
        return list(zip(ends[::2], ends[1::2], strict=True))


def scan(plan: Bytes, gaps: list[tuple[int, int]], index: Index, *, step: int) -> Hits:
    """Look every ``step``-th byte of some gaps up in an index; ``step`` divides 8."""
    reach = [min(high + ANCHOR, len(plan)) for _, high in gaps]  # an anchor may lie across a gap's end
    if len(gaps) == 1:
        data = plan[gaps[0][0] : reach[0]]
    else:
        data = np.concatenate([plan[low:high] for (low, _), high in zip(gaps, reach, strict=True)])
    lows = np.array([low for low, _ in gaps], np.int64)
    ends = np.cumsum(np.array(reach, np.int64) - lows)
    parts = [
        _search(data[start : start + _CHUNK + ANCHOR - 8], start, index)
        for shift in range(0, 8, step)
        for start in range(shift, max(len(data) - ANCHOR + 1, 0), _CHUNK)
    ]
    if not parts:
        return Hits(target=ends[:0], view=ends[:0], source=ends[:0])
    at, view, source = (np.concatenate(column) for column in zip(*parts, strict=True))
    number = np.searchsorted(ends, at, "right")
    return Hits(target=at + (np.array(reach, np.int64) - ends)[number], view=view, source=source)


def _search(data: Bytes, start: int, index: Index) -> tuple[Ints, Ints, Ints]:
    """(offset of the anchor, counted from ``start`` on, its view, its offset there)."""
    keys = data[: len(data) // 8 * 8].view(np.uint64)
    passed = np.flatnonzero(index.flags[slots(keys[:-1], len(index.flags))])
    asked, entry = index.lookup(mixed(keys[passed], keys[passed + 1]))
    return passed[asked] * 8 + start, index.view[entry], index.source[entry]
