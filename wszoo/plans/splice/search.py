"""What has been found of a plan so far, and one pass after the other to find more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from wszoo.plans.splice import anchors
from wszoo.plans.splice.comb import Comb
from wszoo.plans.splice.match import Copy, Matcher
from wszoo.plans.splice.reader import Reader
from wszoo.plans.splice.recipes import common
from wszoo.plans.splice.scan import FAR, NEAR, Cover, scan
from wszoo.plans.splice.tile import tile
from wszoo.plans.splice.views import BYTE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wszoo.buffers import Bytes
    from wszoo.plans.splice.views import View
    from wszoo.weights.tensor import Tensor

PASSES = 6
_FINE_BUDGET = 192 << 20  # positions that a fine pass may look at: a second or two
_ENOUGH = 64  # bytes left below which no further pass is worth its time
_FIT = 16  # a tensor is only looked for again where that part of it would fit what is left
_FOUND = 0.9  # share of a tensor's bytes that makes it found


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """Views that can be looked for; the first of them is number ``first`` of the search's."""

    first: int
    reader: Reader
    index: anchors.Index | None
    matcher: Matcher


class Search:
    """What has been found so far.

    Args:
        plan: the plan's bytes.
        tensors: what views refer to.
        progress: called with bytes done and the plan's size, as if all of ``PASSES`` passes were one.

    Attributes:
        views: all that were looked for.
        copies: what was found; ``view`` is a position in ``views``.
    """

    def __init__(self, plan: Bytes, tensors: Sequence[Tensor], progress: Callable[[int, int], None]) -> None:
        self.plan = plan
        self.views: list[View] = []
        self.copies: list[Copy] = []
        self._tensors = tensors
        self._progress = progress
        self._passes = 0
        self._cover = Cover(len(plan))

    def index(self, views: list[View]) -> Indexed:
        """Make views ready to be looked for."""
        reader = Reader(self._tensors, views)
        pairs = zip(views, reader.layouts, strict=True)
        rows = [anchors.row_length(layout, self._tensors[view.tensor].shape) for view, layout in pairs]
        index = anchors.build(reader, rows) if self._cover.left >= _ENOUGH else None
        matcher = Matcher(self.plan, reader, rows, self._cover)
        found = Indexed(first=len(self.views), reader=reader, index=index, matcher=matcher)
        self.views += views
        return found

    def look(self, views: Indexed, *, region: int, step: int = 0) -> None:
        """A pass: look for views in what is left.

        Args:
            views: what to look for.
            region: bytes of plan taken at a time, ``NEAR`` or ``FAR``.
            step: look at every so many bytes: 8, 4, 2 or 1; by default as finely as there is time for.
        """
        left = self._cover.left
        step = step or next((fine for fine in (1, 2) if left // fine <= _FINE_BUDGET), 4)
        if views.index is not None and left >= _ENOUGH:
            for start in range(0, len(self.plan), region):
                stop = min(start + region, len(self.plan))
                if gaps := self._cover.gaps(start, stop):
                    hits = scan(self.plan, gaps, views.index, step=step)
                    self._add(views, views.matcher.match(hits, near=region == NEAR))
                self._report(stop)
        self._end()

    def comb(self) -> None:
        """A pass: look for matrices interleaved byte by byte, among the tensors of such elements not found yet."""
        wanted = {i for i in self.missing() if self._tensors[i].dtype.bits == BYTE}
        views = self.index([view for view in common(self._tensors) if view.tensor in wanted]) if wanted else None
        if views and views.index is not None:
            comb = Comb(self.plan, views.reader, views.index, self._cover)
            for start in range(0, len(self.plan), FAR):
                stop = min(start + FAR, len(self.plan))
                self._add(views, comb.search(start, stop))
                self._report(stop)
        self._end()

    def missing(self) -> list[int]:
        """Tensors that have not been found and would fit what is left."""
        left = self._cover.left
        found = np.zeros(len(self._tensors), np.int64)
        for block in tile(self.copies):
            for part in block.parts:
                found[self.views[part.view].tensor] += block.rows * part.length
        return [
            i
            for i, tensor in enumerate(self._tensors)
            if found[i] < _FOUND * tensor.nbytes and tensor.nbytes // _FIT <= left and left >= _ENOUGH
        ]

    def _add(self, views: Indexed, copies: Iterable[Copy]) -> None:
        self.copies += (replace(copy, view=copy.view + views.first) for copy in copies)

    def _report(self, stop: int) -> None:
        self._progress((self._passes * len(self.plan) + stop) // PASSES, len(self.plan))

    def _end(self) -> None:
        self._passes += 1
        self._report(0)
