"""Matrices interleaved byte by byte: TensorRT-RTX stacks int8 Q, K and V as [column, row, 3].

No two neighbouring bytes of such a stack come from one tensor, so no anchor is found in it. Its *teeth* are: every
second, third or fourth byte of what is left of the plan, laid together. What a hit there leads to is verified to its
end, and becomes a copy whose rows are single bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wszoo.plans.splice.match import Copy
from wszoo.plans.splice.scan import NEAR, scan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wszoo.buffers import Bytes
    from wszoo.plans.splice.anchors import Index
    from wszoo.plans.splice.columns import Ints
    from wszoo.plans.splice.reader import Reader
    from wszoo.plans.splice.scan import Cover

TEETH = (3, 2, 4)  # of a comb: Q, K and V; two of them; a matrix more
_LEAST = 4096  # bytes; shorter tensors are not stacked, or not worth it
_TRIES = 4  # lines that are followed for a tooth
_SEVERAL = 4  # hits; fewer may be chance
_CHUNKS = (1 << 10, 1 << 18)  # bytes compared at first, and at most


class Comb:
    """Finds stacked matrices in what is left of a plan.

    Args:
        plan: the plan's bytes.
        reader: reads the views, all of elements of one byte.
        index: their anchors.
        cover: what is explained so far; grows.
    """

    def __init__(self, plan: Bytes, reader: Reader, index: Index, cover: Cover) -> None:
        self._plan = plan
        self._reader = reader
        self._index = index
        self._cover = cover

    def search(self, start: int, stop: int) -> Iterator[Copy]:
        """Copies that begin in a part of the plan."""
        for low, high in self._cover.gaps(start, stop):
            at = low
            while high - at >= _LEAST and (copies := self._stack(at, high)):
                yield from copies
                at = self._cover.first_gap(min(copy.end for copy in copies), high)

    def _stack(self, start: int, stop: int) -> list[Copy]:
        """Copies for all teeth of the first stack in sight, or none."""
        stacks = [
            copies
            for teeth in TEETH
            if all(copies := [self._tooth(start + tooth, stop, teeth) for tooth in range(teeth)])
        ]
        stack = [copy for copy in min(stacks, key=_start, default=[]) if copy]
        if stack:
            first, last = _start(stack), min(copy.end for copy in stack)
            self._cover.mark(first, 0, 1, max(0, last - first))
        return stack

    def _tooth(self, start: int, stop: int, teeth: int) -> Copy | None:
        """The first copy of some length that a tooth's hits lead to."""
        tooth = np.ascontiguousarray(self._plan[start : min(start + NEAR * teeth, stop) : teeth])
        hits = scan(tooth, [(0, len(tooth))], self._index, step=1)
        order = np.argsort(hits.target, kind="stable")
        view, source, target = hits.view[order], hits.source[order], hits.target[order]
        lines = _lines(view, target - source)
        columns = (view[lines], source[lines], target[lines] * teeth + start)
        found = [self._grown(*line, teeth=teeth) for line in zip(*(column.tolist() for column in columns), strict=True)]
        return min((copy for copy in found if copy.rows >= _LEAST), key=lambda copy: copy.target, default=None)

    def _grown(self, view: int, source: int, target: int, *, teeth: int) -> Copy:
        size = self._reader.layouts[view].nbytes
        ahead = self._ahead(view, source, target, teeth, min(size - source, -(-(len(self._plan) - target) // teeth)))
        behind = self._behind(view, source, target, teeth, min(source, target // teeth))
        return Copy(
            view=view,
            source=source - behind,
            stride=1,
            target=target - behind * teeth,
            pitch=teeth,
            rows=ahead + behind,
            length=1,
        )

    def _ahead(self, view: int, source: int, target: int, teeth: int, limit: int) -> int:
        """Bytes equal from a place on, at most ``limit``."""
        done, count = 0, _CHUNKS[0]
        while done < limit:
            count = min(count * 4, _CHUNKS[1], limit - done)
            ours = self._reader.read(view, source + done, source + done + count)
            differ = ours != self._plan[target + done * teeth :][: count * teeth : teeth]
            if differ.any():
                return done + int(differ.argmax())
            done += count
        return done

    def _behind(self, view: int, source: int, target: int, teeth: int, limit: int) -> int:
        """Bytes equal before a place, at most ``limit``."""
        done, count = 0, _CHUNKS[0]
        while done < limit:
            count = min(count * 4, _CHUNKS[1], limit - done)
            ours = self._reader.read(view, source - done - count, source - done)
            differ = ours != self._plan[target - (done + count) * teeth : target - done * teeth : teeth]
            if differ.any():
                return done + int(differ[::-1].argmax())
            done += count
        return done


def _start(stack: Sequence[Copy | None]) -> int:
    """Where the last of a stack's teeth begins."""
    return max(copy.target for copy in stack if copy)


def _lines(view: Ints, distance: Ints) -> Ints:
    """The first hit of each of the first few lines (a view, at one distance) that have several."""
    if not len(view):
        return view
    _, first, count = np.unique(np.stack((view, distance)), axis=1, return_index=True, return_counts=True)
    several: Ints = np.sort(first[count >= min(_SEVERAL, count.max())])[:_TRIES]
    return several
