"""From hits to copies: fold hits into runs of equal steps, then extend and verify each run byte by byte."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import as_strided

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.buffers import Bytes
    from wszoo.plans.splice.columns import Ints
    from wszoo.plans.splice.scan import Cover, Hits
    from wszoo.plans.splice.views import Reader

SHORTEST = 24  # a shorter copy costs about as much as its bytes
MIN_ROWS = 4  # fewer equal steps may be chance; they are taken as separate copies
MAX_RUNS = 50_000  # a pass looks at the largest so many; scattered scraps beyond are not worth their copies
_CHANCE = 16  # bytes beyond a row's end that may be equal by chance
_CHUNK = 4 << 20
_MAX_PITCH = 4 << 20
_SAMPLE = 32
_MAX_BREAKS = 256  # copies that one run may fall into before it is given up as chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """``rows`` runs of ``length`` bytes from a view (every ``stride``) to the plan (every ``pitch``); all verified."""

    view: int
    source: int
    stride: int
    target: int
    pitch: int
    rows: int
    length: int

    @property
    def end(self) -> int:
        """The offset in the plan behind the last row."""
        return self.target + (self.rows - 1) * self.pitch + self.length

    @property
    def nbytes(self) -> int:
        """Bytes copied."""
        return self.rows * self.length


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Columns over runs, the largest first: a view's offset and its step, the plan's offset and its step, steps + 1."""

    view: Ints
    source: Ints
    stride: Ints
    target: Ints
    pitch: Ints
    rows: Ints


def fold(hits: Hits, row_lengths: Ints) -> Runs:
    """Fold hits into runs: first hits at one distance between plan and view, then such strips at equal steps."""
    order = np.lexsort((hits.target, hits.view))
    view, source, target = hits.view[order], hits.source[order], hits.target[order]
    opens = _changes(view, target - source)
    weight = np.diff(np.append(np.flatnonzero(opens), len(view)))
    view, source, target = view[opens], source[opens], target[opens]
    same, stride, pitch = view[1:] == view[:-1], np.diff(source), np.diff(target)
    # Where rows between two hits had no hit of their own, the step is a multiple of the row's.
    row = row_lengths[view[1:]] if len(view) else view
    times = np.where(stride % row == 0, stride // row, 1)
    times = np.where((times > 1) & (pitch % np.maximum(times, 1) == 0), times, 1)
    stride, pitch = stride // times, pitch // times
    links = _changes(view[1:], stride, pitch) | ~same
    starts = np.flatnonzero(links)
    counts = np.diff(np.append(starts, len(links)))
    good = same[starts] & (stride[starts] >= 0) & (counts >= MIN_ROWS - 1)
    starts, counts = starts[good], counts[good]
    in_run = np.zeros(len(view) + 1, np.int64)
    np.add.at(in_run, starts, 1)
    np.add.at(in_run, starts + counts + 1, -1)
    alone = np.flatnonzero(np.cumsum(in_run[:-1]) == 0)
    steps = (
        np.add.reduceat(np.append(times, 0), np.stack((starts, starts + counts), 1).reshape(-1))[::2]
        if len(starts)
        else starts
    )
    first = np.concatenate((starts, alone))
    none = np.zeros(len(alone), np.int64)
    size = np.concatenate((counts * weight[starts], weight[alone]))
    best = np.argsort(-size, kind="stable")[:MAX_RUNS]
    return Runs(
        view=view[first][best],
        source=source[first][best],
        target=target[first][best],
        stride=np.concatenate((stride[starts], none))[best],
        pitch=np.concatenate((pitch[starts], none))[best],
        rows=np.concatenate((steps, none))[best] + 1,
    )


def _changes(*columns: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    changed = np.ones(len(columns[0]), np.bool_)
    changed[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return changed


class Matcher:
    """Extends runs to the copies that they belong to, and marks what these explain.

    Args:
        plan: the plan's bytes.
        reader: reads the views.
        row_lengths: bytes in each view's natural row.
        cover: what is explained so far; grows.
    """

    def __init__(self, plan: Bytes, reader: Reader, row_lengths: Sequence[int], cover: Cover) -> None:
        self._plan = plan
        self._reader = reader
        self._rows = row_lengths
        self._cover = cover

    def match(self, runs: Runs) -> list[Copy]:
        """All copies that runs grow into."""
        found: list[Copy] = []
        columns = (runs.view, runs.source, runs.stride, runs.target, runs.pitch, runs.rows)
        for view, source, stride, target, pitch, rows in zip(*(column.tolist() for column in columns), strict=True):
            if self._cover.holds(target) and self._cover.holds(target + (rows - 1) * pitch):
                continue
            if rows >= MIN_ROWS and pitch <= _MAX_PITCH:
                copies = self._strided(view, source, stride, target, pitch, rows)
            else:
                copies = [
                    self._contiguous(view, source + row * stride, target + row * pitch)
                    for row in range(min(rows, MIN_ROWS) if pitch else 1)
                ]
            for copy in copies:
                if copy.length >= SHORTEST:
                    self._cover.mark(copy.target, copy.pitch, copy.rows, copy.length)
                    found.append(copy)
        return found

    def _contiguous(self, view: int, source: int, target: int) -> Copy:
        size = self._reader.layouts[view].nbytes
        ahead = self._forward(view, source, target, min(size - source, len(self._plan) - target))
        behind = self._backward(view, source, target, min(source, target)) if ahead else 0
        row = self._rows[view]
        past, before = (source + ahead) % row, (behind - source) % row
        if past < _CHANCE and source + ahead < size and past < ahead:
            ahead -= past
        if before < _CHANCE and behind < source and before < behind:
            behind -= before
        return Copy(
            view=view, source=source - behind, stride=0, target=target - behind, pitch=0, rows=1, length=ahead + behind
        )

    def _forward(self, view: int, source: int, target: int, limit: int) -> int:
        done, step = 0, 4096
        while done < limit:
            size = min(step, limit - done)
            ours = self._reader.read(view, source + done, source + done + size)
            differ = ours != self._plan[target + done : target + done + size]
            if differ.any():
                return done + int(differ.argmax())
            done, step = done + size, min(step * 4, _CHUNK)
            if done < limit and self._cover.holds(target + done):
                break
        return done

    def _backward(self, view: int, source: int, target: int, limit: int) -> int:
        done, step = 0, 256
        while done < limit:
            size = min(step, limit - done)
            ours = self._reader.read(view, source - done - size, source - done)
            differ = ours != self._plan[target - done - size : target - done]
            if differ.any():
                return done + int(differ[::-1].argmax())
            done, step = done + size, min(step * 4, _CHUNK)
            if done < limit and self._cover.holds(target - done - 1):
                break
        return done

    def _strided(self, view: int, source: int, stride: int, target: int, pitch: int, rows: int) -> list[Copy]:
        before, after = self._columns(view, source, stride, target, pitch, rows)
        length = before + after
        if length < SHORTEST:
            return []
        source, target = source - before, target - before
        size = self._reader.layouts[view].nbytes
        above = min(source // stride if stride else target, target // pitch)
        below = (len(self._plan) - target - length) // pitch
        below = min(below, (size - source - length) // stride) if stride else below
        up = self._rows_equal(view, source, stride, target, pitch, length, -1, -1, above)
        source, target, rows, below = source - up * stride, target - up * pitch, rows + up, below + up
        copies: list[Copy] = []
        at = 0
        while at < min(rows, below + 1) and len(copies) < _MAX_BREAKS:
            good = self._rows_equal(view, source, stride, target, pitch, length, at, 1, below + 1 - at)
            if good:
                copies.append(
                    Copy(
                        view=view,
                        source=source + at * stride,
                        stride=stride,
                        target=target + at * pitch,
                        pitch=pitch,
                        rows=good,
                        length=length,
                    )
                )
            at += good + 1
        return copies

    def _columns(self, view: int, source: int, stride: int, target: int, pitch: int, rows: int) -> tuple[int, int]:
        """How far rows are equal before and after the anchor's start, on a sample of them."""
        size, end = self._reader.layouts[view].nbytes, len(self._plan)
        before = after = pitch
        known = False
        some = np.unique(
            np.linspace(0, rows - 1, min(rows, max(4, min(_SAMPLE, (16 << 20) // pitch)))).astype(np.int64)
        )
        for row in some.tolist():
            ours, there = source + row * stride, target + row * pitch
            if ours >= size or there >= end:
                continue
            ahead = self._near(view, ours, there, min(after, size - ours, end - there))
            if ahead < _CHANCE:
                continue
            low = min(before, ours, there)
            mine = self._reader.read(view, ours - low, ours)
            differ = (mine != self._plan[there - low : there])[::-1]
            before = int(differ.argmax()) if differ.any() else low
            after, known = ahead, True
        return (min(before, pitch - after), after) if known else (0, 0)

    def _near(self, view: int, source: int, target: int, limit: int) -> int:
        differ = self._reader.read(view, source, source + limit) != self._plan[target : target + limit]
        return int(differ.argmax()) if differ.any() else limit

    def _rows_equal(
        self,
        view: int,
        source: int,
        stride: int,
        target: int,
        pitch: int,
        length: int,
        first: int,
        way: int,
        limit: int,
    ) -> int:
        """How many rows from ``first`` on, downwards (``way`` 1) or upwards (-1), are equal; at most ``limit``."""
        done, step = 0, 16
        most = max(1, _CHUNK // max(length, stride, pitch))
        while done < limit:
            count = min(step, most, limit - done)
            top = first + done if way > 0 else first - done - count + 1
            start, there = source + top * stride, target + top * pitch
            ours = self._reader.read(view, start, start + (count - 1) * stride + length)
            plan = self._plan[there : there + (count - 1) * pitch + length]
            shape = (count, length)
            equal = (as_strided(ours, shape, (stride, 1)) == as_strided(plan, shape, (pitch, 1))).all(axis=1)
            if not equal.all():
                return done + int((~equal[::way]).argmax())
            done, step = done + count, step * 4
        return done
