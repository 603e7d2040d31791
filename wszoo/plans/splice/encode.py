"""Encode a plan: find what of it comes out of tensors, in passes from the likely and cheap to the rare and thorough.

1. The usual views of all tensors, looked for at every eighth byte of the plan.
2. The same at every byte of what is left.
3. All other views of the tensors that were not found, in what is left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from wszoo.plans.splice import anchors
from wszoo.plans.splice.match import Copy, Matcher, fold
from wszoo.plans.splice.program import MAX_COUNT, Blocks, Pieces, Program
from wszoo.plans.splice.reader import Reader
from wszoo.plans.splice.recipes import common, rare
from wszoo.plans.splice.scan import REGION, Cover, scan
from wszoo.plans.splice.tile import Block, tile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wszoo.buffers import Bytes
    from wszoo.plans.splice.columns import Ints
    from wszoo.plans.splice.views import View
    from wszoo.weights.tensor import Tensor

_FINE_BUDGET = 192 << 20  # positions that a fine pass may look at: a second or two
_ENOUGH = 64  # bytes left below which no further pass is worth its time
_FIT = 16  # a tensor is only looked for again where that part of it would fit what is left
_PASSES = 4
_FOUND = 0.9  # share of a tensor's bytes that makes it found


def encode(
    plan: Bytes,
    tensors: Sequence[Tensor],
    *,
    scales: Sequence[tuple[str, bytes]] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Program:
    """Rewrite a plan as literals and copies out of tensors.

    Args:
        plan: the plan's bytes, usually mapped from a file; read in windows.
        tensors: the weights; each ``load()`` is called several times.
        scales: scalars of the graph that a builder may fold into weights, as :class:`~wszoo.plans.splice.Scale`.
        progress: called with bytes done and the plan's size, as if all passes were one.

    Returns:
        A program that :func:`wszoo.plans.splice.apply` turns back into exactly ``plan``; where nothing is found, all
        of the plan is literals.

    Raises:
        IntegrityError: a tensor loads another number of bytes than its type and shape take.
    """
    search = _Search(np.asarray(plan), tensors, progress or (lambda _done, _total: None))
    search.look(common(tensors))
    search.look(rare(tensors, search.missing(), scales))
    return _program(search.plan, tensors, search.views, _tiled(search.copies))


class _Search:
    """What has been found so far: copies (whose views are numbered by ``views``) and what they cover."""

    def __init__(self, plan: Bytes, tensors: Sequence[Tensor], progress: Callable[[int, int], None]) -> None:
        self.plan = plan
        self.views: list[View] = []
        self.copies: list[Copy] = []
        self._tensors = tensors
        self._progress = progress
        self._passes = 0
        self._cover = Cover(len(plan))

    def look(self, views: list[View]) -> None:
        """Look for views: at every eighth byte, then more finely in what is left."""
        reader = Reader(self._tensors, views)
        rows = [
            anchors.row_length(layout, self._tensors[view.tensor].shape)
            for view, layout in zip(views, reader.layouts, strict=True)
        ]
        index = anchors.build(reader, rows) if self._cover.left >= _ENOUGH else None
        matcher = Matcher(self.plan, reader, rows, self._cover)
        self._pass(index, matcher, np.array(rows, np.int64), 8)
        fine = next((step for step in (1, 2) if self._cover.left // step <= _FINE_BUDGET), 4)
        self._pass(index, matcher, np.array(rows, np.int64), fine)
        self.views += views

    def _pass(self, index: anchors.Index | None, matcher: Matcher, rows: Ints, step: int) -> None:
        size = len(self.plan)
        if index is not None and self._cover.left >= _ENOUGH:
            for start in range(0, size, REGION):
                stop = min(start + REGION, size)
                if gaps := self._cover.gaps(start, stop):
                    hits = scan(self.plan, gaps, index, step=step)
                    found = matcher.match(fold(hits, rows))
                    self.copies += (replace(copy, view=copy.view + len(self.views)) for copy in found)
                self._progress((self._passes * size + stop) // _PASSES, size)
        self._passes += 1
        self._progress(self._passes * size // _PASSES, size)

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


def _tiled(copies: list[Copy]) -> list[Block]:
    """Blocks of the copies, or of the larger ones where all would be more pieces than a program may have."""
    blocks = tile(copies)
    while sum(len(block.parts) for block in blocks) > MAX_COUNT:
        copies = sorted(copies, key=lambda copy: -copy.nbytes)[: len(copies) // 2]
        blocks = tile(copies)
    return blocks


def _program(plan: Bytes, tensors: Sequence[Tensor], views: Sequence[View], blocks: list[Block]) -> Program:
    parts = [part for block in blocks for part in block.parts]
    used = {view: i for i, view in enumerate(dict.fromkeys(part.view for part in parts))}
    kept = tuple(views[view] for view in used)
    return Program(
        views=kept,
        sizes=_ints(layout.nbytes for layout in Reader(tensors, kept).layouts),
        blocks=Blocks(
            start=_ints(block.start for block in blocks),
            rows=_ints(block.rows for block in blocks),
            pitch=_ints(block.pitch for block in blocks),
            first=np.cumsum(_ints([0, *(len(block.parts) for block in blocks)])),
        ),
        pieces=Pieces(
            column=_ints(part.column for part in parts),
            view=_ints(used[part.view] for part in parts),
            source=_ints(part.source for part in parts),
            stride=_ints(part.stride for part in parts),
            length=_ints(part.length for part in parts),
        ),
        literals=_literals(plan, blocks),
        plan_size=len(plan),
    )


def _literals(plan: Bytes, blocks: list[Block]) -> Bytes:
    """The bytes between blocks and between their parts, in plan order."""
    found: list[Bytes] = []
    at = 0
    for block in blocks:
        found.append(plan[at : block.start])
        at = block.end
        if block.rows == 1 and len(block.parts) == 1:
            continue
        keep = np.ones(block.pitch, np.bool_)
        for part in block.parts:
            keep[part.column : part.column + part.length] = False
        if keep.any():
            whole = plan[block.start : block.start + (block.rows - 1) * block.pitch].reshape(-1, block.pitch)
            last = plan[block.start + (block.rows - 1) * block.pitch : at]
            found += [whole[:, keep].reshape(-1), last[keep[: len(last)]]]
    found.append(plan[at:])
    return np.concatenate(found)


def _ints(values: object) -> Ints:
    return np.fromiter(values, np.int64)  # type: ignore[call-overload,no-any-return]
