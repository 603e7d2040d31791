"""Lay verified copies into blocks that do not overlap.

Copies may overlap where rows are ambiguous or equal by chance, and the rows of several copies interleave where the
builder concatenated matrices by columns. Copies whose extents overlap form a *cluster*. In a cluster, the plan is seen
as a matrix of the dominant pitch, each copy as rectangles in it; between two rows where a rectangle begins or ends lies
a *band*, and a band is a block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from wszoo.plans.splice.match import SHORTEST, Copy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MAX_EXPLODED = 4096  # rows of a copy that does not fit its cluster's pitch, before it is dropped instead
_MAX_CELLS = 4_000_000  # bands times rectangles of a cluster; beyond, the smallest rectangles are dropped
_MAX_RECTANGLES = 20_000  # of a cluster: each is compared with all larger ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a block: ``length`` bytes at ``column`` of a row, from ``source`` in a view, ``stride`` a row."""

    column: int
    view: int
    source: int
    stride: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block as in :mod:`wszoo.plans.splice.program`; the first part's column is 0."""

    start: int
    rows: int
    pitch: int
    parts: tuple[Part, ...]

    @property
    def end(self) -> int:
        """The offset in the plan behind the last row's last part."""
        return self.start + (self.rows - 1) * self.pitch + self.parts[-1].column + self.parts[-1].length


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rectangle:
    """Rows ``top`` to ``bottom``, columns ``left`` to ``right`` of a cluster, and where the first byte comes from."""

    top: int
    bottom: int
    left: int
    right: int
    view: int
    source: int
    stride: int


def tile(copies: Iterable[Copy]) -> list[Block]:
    """Blocks of the given copies, in plan order, joined where one continues the other."""
    blocks: list[Block] = []
    for cluster in _clusters(_normal(copy) for copy in copies):
        for block in _single(cluster[0]) if len(cluster) == 1 else _settled(cluster):
            if blocks and (joined := _joined(blocks[-1], block)):
                blocks[-1] = joined
            else:
                blocks.append(block)
    return blocks


def _normal(copy: Copy) -> Copy:
    if copy.rows > 1 and copy.length == copy.pitch == copy.stride:
        return replace(copy, rows=1, length=copy.rows * copy.length, stride=0, pitch=0)
    return copy


def _clusters(copies: Iterable[Copy]) -> Iterator[list[Copy]]:
    cluster: list[Copy] = []
    reach = 0
    for copy in sorted(copies, key=lambda copy: (copy.target, -copy.nbytes)):
        if cluster and copy.target >= reach:
            yield cluster
            cluster = []
        cluster.append(copy)
        reach = max(reach, copy.end)
    if cluster:
        yield cluster


def _single(copy: Copy) -> Iterator[Block]:
    part = Part(column=0, view=copy.view, source=copy.source, stride=copy.stride, length=copy.length)
    yield Block(start=copy.target, rows=copy.rows, pitch=copy.pitch if copy.rows > 1 else copy.length, parts=(part,))


def _joined(first: Block, second: Block) -> Block | None:
    if first.rows != 1 or second.rows != 1 or len(first.parts) != 1 or len(second.parts) != 1:
        return None
    one, two = first.parts[0], second.parts[0]
    if first.end != second.start or one.view != two.view or one.source + one.length != two.source:
        return None
    length = one.length + two.length
    return replace(first, pitch=length, parts=(replace(one, length=length),))


def _settled(cluster: list[Copy]) -> Iterator[Block]:
    """Blocks of copies whose extents overlap."""
    weight: dict[int, int] = {}
    for copy in cluster:
        if copy.rows > 1:
            weight[copy.pitch] = weight.get(copy.pitch, 0) + copy.nbytes
    if not weight:
        yield from _in_line(cluster)
        return
    pitch = max(weight, key=lambda pitch: weight[pitch])
    origin = min(copy.target for copy in cluster if copy.rows > 1 and copy.pitch == pitch)
    rectangles = [piece for copy in cluster for piece in _rectangles(copy, origin, pitch)]
    yield from _bands(_bounded(rectangles), origin, pitch)


def _in_line(cluster: list[Copy]) -> Iterator[Block]:
    parts = [
        Part(column=copy.target, view=copy.view, source=copy.source, stride=0, length=copy.length) for copy in cluster
    ]
    for part in _disjoint(parts):
        yield Block(start=part.column, rows=1, pitch=part.length, parts=(replace(part, column=0),))


def _disjoint(parts: list[Part]) -> list[Part]:
    """Trim or drop parts, the shorter of two that overlap, until none overlap; sorted by column."""
    kept: list[Part] = []
    for part in sorted(parts, key=lambda part: (part.column, -part.length)):
        new: Part | None = part
        while kept and new and kept[-1].column + kept[-1].length > new.column:
            last = kept[-1]
            overlap = last.column + last.length - new.column
            if overlap >= new.length or (overlap > 0 and last.length >= new.length and new.source):
                new = _tail(new, overlap)
            else:
                kept.pop()
                if last.length - overlap >= SHORTEST:
                    kept.append(replace(last, length=last.length - overlap))
        if new:
            kept.append(new)
    return kept


def _tail(part: Part, cut: int) -> Part | None:
    if part.length - cut < SHORTEST:
        return None
    return replace(part, column=part.column + cut, source=part.source + cut, length=part.length - cut)


def _rectangles(copy: Copy, origin: int, pitch: int) -> Iterator[_Rectangle]:
    row, column = divmod(copy.target - origin, pitch)
    if copy.pitch == pitch and copy.rows > 1:
        inside = min(copy.length, pitch - column)
        left = _Rectangle(
            top=row,
            bottom=row + copy.rows,
            left=column,
            right=column + inside,
            view=copy.view,
            source=copy.source,
            stride=copy.stride,
        )
        yield left
        if inside < copy.length:
            yield replace(
                left,
                top=left.top + 1,
                bottom=left.bottom + 1,
                left=0,
                right=copy.length - inside,
                source=copy.source + inside,
            )
    elif copy.rows <= _MAX_EXPLODED:
        for number in range(copy.rows):
            yield from _wrapped(copy.from_row(number, 1), origin, pitch)


def _wrapped(copy: Copy, origin: int, pitch: int) -> Iterator[_Rectangle]:
    """A contiguous copy as a part of a row, whole rows, and a part of a row."""
    row, column = divmod(copy.target - origin, pitch)
    source, length = copy.source, copy.length
    while length > 0:
        rows = max(1, length // pitch) if column == 0 else 1
        width = min(length, pitch - column)
        yield _Rectangle(
            top=row, bottom=row + rows, left=column, right=column + width, view=copy.view, source=source, stride=pitch
        )
        source, length, row, column = source + rows * width, length - rows * width, row + rows, 0


def _bounded(rectangles: list[_Rectangle]) -> list[_Rectangle]:
    """Without what larger rectangles hold already: a scrap in the middle of a matrix would cut it into three bands."""
    largest = sorted(rectangles, key=lambda r: (r.top - r.bottom) * (r.right - r.left))[:_MAX_RECTANGLES]
    edges = np.array([(r.top, r.bottom, r.left, r.right) for r in largest], np.int64)
    kept: list[_Rectangle] = []
    rows: set[int] = set()
    for number, rectangle in enumerate(largest):
        r = _trimmed(rectangle, edges[:number])
        if r and len(kept) * len(rows | {r.top, r.bottom}) <= _MAX_CELLS:
            kept.append(r)
            rows |= {r.top, r.bottom}
    return kept


def _trimmed(r: _Rectangle, larger: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> _Rectangle | None:
    """What of a rectangle's columns is left beside larger ones that span all of its rows."""
    across = larger[(larger[:, 0] <= r.top) & (larger[:, 1] >= r.bottom)]
    over = across[(across[:, 2] < r.right) & (across[:, 3] > r.left)]
    left, right = r.left, r.right
    for low, high in zip(over[:, 2].tolist(), over[:, 3].tolist(), strict=True):
        if low <= left:
            left = max(left, high)
        elif high >= right:
            right = min(right, low)
    if right - left < min(SHORTEST, r.right - r.left):  # rows of one element are whole, and tall
        return None
    return replace(r, left=left, right=right, source=r.source + left - r.left)


def _bands(rectangles: list[_Rectangle], origin: int, pitch: int) -> Iterator[Block]:
    tops = np.array([r.top for r in rectangles])
    bottoms = np.array([r.bottom for r in rectangles])
    rows = np.unique(np.concatenate((tops, bottoms))).tolist()
    for top, bottom in pairwise(rows):
        inside = np.flatnonzero((tops <= top) & (bottoms >= bottom)).tolist()
        parts = [
            Part(
                column=r.left,
                view=r.view,
                source=r.source + (top - r.top) * r.stride,
                stride=r.stride,
                length=r.right - r.left,
            )
            for r in (rectangles[i] for i in inside)
        ]
        yield from _band(_disjoint(parts), origin + top * pitch, bottom - top, pitch)


def _band(parts: list[Part], start: int, rows: int, pitch: int) -> Iterator[Block]:
    if not parts:
        return
    if rows == 1 or (len(parts) == 1 and parts[0].length == parts[0].stride == pitch):
        for part in parts:
            length = part.length * rows
            yield Block(
                start=start + part.column, rows=1, pitch=length, parts=(replace(part, column=0, length=length),)
            )
        return
    left = parts[0].column
    moved = tuple(replace(part, column=part.column - left) for part in parts)
    yield Block(start=start + left, rows=rows, pitch=pitch, parts=moved)
