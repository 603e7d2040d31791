"""From hits to copies: fold hits into runs of equal steps, then extend and verify each run byte by byte."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import as_strided

from wszoo.plans.splice.anchors import ANCHOR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.buffers import Bytes
    from wszoo.plans.splice.columns import Ints, Mask
    from wszoo.plans.splice.reader import Reader
    from wszoo.plans.splice.scan import Cover, Hits

SHORTEST = 24  # a shorter copy costs about as much as its bytes
_WORTH = 4096  # bytes; fewer of less than so many values take fewer bytes as literals:
_VALUES = 12
_MIN_ROWS = 4  # fewer equal steps may be chance; they are taken as separate copies
_PARTS = 4  # columns that rows are expected to be cut into at most
_MAX_RUNS = 2048  # the largest of a region; more would be scraps of under 2 KB, and hours for a plan made of them
_MAX_BREAKS = 256  # copies that one run may fall into before it is given up as chance
_MAX_PITCH = 4 << 20
_CHANCE = 16  # bytes beyond a row's end that may be equal by chance
_CHUNK = 4 << 20  # bytes compared at a time
_KNOWN = 16  # copies of one view that are remembered
_SAMPLE = 32  # rows that tell how wide a run is
_SAMPLE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """``rows`` runs of ``length`` bytes from a view (every ``stride`` bytes) to the plan (every ``pitch`` bytes)."""

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

    def from_row(self, row: int, rows: int) -> Copy:
        """``rows`` rows of the same lines, from ``row`` on, which may be negative."""
        return replace(self, source=self.source + row * self.stride, target=self.target + row * self.pitch, rows=rows)

    def holds(self, other: Copy) -> bool:
        """True where this copy already takes the other's first bytes from the same place."""
        row, column = divmod(other.target - self.target, self.pitch or self.length)
        same = other.source - self.source == row * self.stride + column
        return same and 0 <= row < self.rows and column < self.length

    def widened(self, before: int, after: int) -> Copy:
        """Rows that begin ``before`` bytes earlier and end ``after`` bytes behind the present start."""
        return replace(self, source=self.source - before, target=self.target - before, length=before + after)


def fold(hits: Hits, row_lengths: Ints) -> list[Copy]:
    """Fold hits into runs, as copies whose length (that of the first strip) is a first guess, the best founded first.

    Hits at one distance between plan and view make a strip; strips at equal steps make a run.

    Args:
        hits: where anchors were found.
        row_lengths: bytes in each view's natural row.
    """
    if not len(hits.view):
        return []
    order = np.lexsort((hits.target, hits.view))
    view, source, target = hits.view[order], hits.source[order], hits.target[order]
    opens = _changes(view, target - source)
    ends = np.append(np.flatnonzero(opens)[1:], len(view))
    weight = np.diff(ends, prepend=0)
    span = target[ends - 1] - target[opens] + ANCHOR
    view, source, target = view[opens], source[opens], target[opens]
    stride, pitch, times = _steps(source, target, row_lengths[view])
    same = view[1:] == view[:-1]
    starts = np.flatnonzero(_changes(view[1:], stride, pitch) | ~same)
    counts = np.diff(np.append(starts, len(same)))
    good = same[starts] & (stride[starts] >= 0) & (counts >= _MIN_ROWS - 1)
    starts, counts = starts[good], counts[good]
    before = np.concatenate(([0], np.cumsum(times)))
    runs = (view[starts], source[starts], stride[starts], target[starts], pitch[starts], span[starts])
    run_rows = before[starts + counts] - before[starts] + 1
    alone = np.flatnonzero(~_within(starts, counts + 1, len(view)))
    zeros = np.zeros(len(alone), np.int64)
    strips = (view[alone], source[alone], zeros, target[alone], zeros, span[alone])
    columns = [np.concatenate(pair) for pair in zip(runs, strips, strict=True)]
    rows = np.concatenate((run_rows, zeros + 1))
    best = np.argsort(-np.concatenate((counts * weight[starts], weight[alone])), kind="stable")[:_MAX_RUNS]
    table = zip(*(column[best].tolist() for column in (*columns, rows)), strict=True)
    return [
        Copy(view=view, source=source, stride=stride, target=target, pitch=pitch, rows=rows, length=span)
        for view, source, stride, target, pitch, span, rows in table
    ]


def _steps(source: Ints, target: Ints, row: Ints) -> tuple[Ints, Ints, Ints]:
    """Steps in the view and the plan from strip to strip, and how many rows each spans.

    Where rows between two strips had no hit of their own, the step is a multiple of the row's.
    """
    stride, pitch, row = np.diff(source), np.diff(target), row[1:]
    times = np.where((stride > row) & (stride % row == 0), stride // row, 1)
    times = np.where((pitch % times == 0) & (pitch // times >= row // _PARTS), times, 1)
    return stride // times, pitch // times, times


def _changes(*columns: Ints) -> Mask:
    """Where any of the columns differs from the row above; the first row always does."""
    changed = np.ones(len(columns[0]), np.bool_)
    changed[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return changed


def _within(starts: Ints, counts: Ints, size: int) -> Mask:
    """Which of ``size`` places lie in one of the given ranges."""
    depth = np.zeros(size + 1, np.int64)
    np.add.at(depth, starts, 1)
    np.add.at(depth, starts + counts, -1)
    inside: Mask = np.cumsum(depth[:-1]) > 0
    return inside


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
        self._rows = np.array(row_lengths, np.int64)
        self._cover = cover
        self._known: dict[int, deque[Copy]] = {}

    def match(self, hits: Hits, *, near: bool) -> list[Copy]:
        """The copies that hits lead to, every byte of them compared.

        Args:
            hits: where anchors were found in one region.
            near: the region is small: a single row may be one of many whose others are too far away to be seen here, so
                only runs, and strips of two rows or more, are followed.
        """
        found: list[Copy] = []
        for run in fold(hits, self._rows):
            if (near and run.rows == 1 and run.length < 2 * self._rows[run.view]) or self._is_known(run):
                continue
            if run.rows >= _MIN_ROWS and run.pitch <= _MAX_PITCH:
                copies = self._strided(run)
            else:
                copies = [self._contiguous(run.from_row(row, 1)) for row in range(min(run.rows, _MIN_ROWS))]
            for copy in copies:
                if self._is_worth(copy):
                    self._cover.mark(copy.target, copy.pitch, copy.rows, copy.length)
                    self._known.setdefault(copy.view, deque(maxlen=_KNOWN)).append(copy)
                    found.append(copy)
        return found

    def _is_known(self, run: Copy) -> bool:
        """True where a copy found before holds the run's first line.

        Grains at the ends of its rows stay open where a neighbour is not found yet, and lead here again in each region
        that the rows cross: 160 times for SDXL's cross-attention, whose 140 matrices would be compared each time.
        """
        return any(copy.holds(run) for copy in self._known.get(run.view, ()))

    def _is_worth(self, copy: Copy) -> bool:
        """True unless the copy takes more bytes than it saves: too short, or short and of few values, as in a mask."""
        first_row = self._plan[copy.target : copy.target + copy.length]
        return copy.length >= SHORTEST and (copy.nbytes >= _WORTH or len(np.unique(first_row)) >= _VALUES)

    def _contiguous(self, seed: Copy) -> Copy:
        skipped = self._cover.first_gap(seed.target, seed.target + seed.length) - seed.target
        if skipped >= seed.length:
            return replace(seed, length=0)
        seed = seed.widened(-skipped, seed.length)
        size, row = self._reader.layouts[seed.view].nbytes, int(self._rows[seed.view])
        ahead = self._ahead(seed, min(size - seed.source, len(self._plan) - seed.target))
        behind = self._behind(seed, min(seed.source, seed.target)) if ahead else 0
        # Equal by chance beyond a row's end, these bytes would hide the start of what really follows.
        past, early = (seed.source + ahead) % row, (behind - seed.source) % row
        if past < min(_CHANCE, ahead) and seed.source + ahead < size:
            ahead -= past
        if early < min(_CHANCE, behind) and behind < seed.source:
            behind -= early
        return replace(seed.widened(behind, ahead), stride=0, pitch=0)

    def _ahead(self, seed: Copy, limit: int) -> int:
        """Bytes equal from the seed on, at most ``limit``; stops early where the plan is explained already."""
        done, step = 0, 4096
        while done < limit and not (done and self._cover.holds(seed.target + done)):
            size = min(step, limit - done)
            equal = self._equal(seed, done, size)
            if equal < size:
                return done + equal
            done, step = done + size, min(step * 4, _CHUNK)
        return done

    def _behind(self, seed: Copy, limit: int) -> int:
        """Bytes equal before the seed, as for :meth:`_ahead`."""
        done, step = 0, 256
        while done < limit and not (done and self._cover.holds(seed.target - done - 1)):
            size = min(step, limit - done)
            equal = self._equal_before(seed, done, size)
            if equal < size:
                return done + equal
            done, step = done + size, min(step * 4, _CHUNK)
        return done

    def _equal(self, seed: Copy, start: int, size: int) -> int:
        ours = self._reader.read(seed.view, seed.source + start, seed.source + start + size)
        differ = ours != self._plan[seed.target + start : seed.target + start + size]
        return int(differ.argmax()) if differ.any() else size

    def _equal_before(self, seed: Copy, start: int, size: int) -> int:
        stop = seed.source - start
        differ = self._reader.read(seed.view, stop - size, stop) != self._plan[seed.target - start - size :][:size]
        return int(differ[::-1].argmax()) if differ.any() else size

    def _strided(self, run: Copy) -> list[Copy]:
        middle = run.target + run.length // 2  # the grain at a row's start may belong to two copies
        if self._cover.holds(middle) and self._cover.holds(middle + (run.rows - 1) * run.pitch):
            return []
        run = run.widened(*self._width(run))
        if run.length < SHORTEST:
            return []
        size, end = self._reader.layouts[run.view].nbytes, len(self._plan)
        above, below = run.target // run.pitch, (end - run.target - run.length) // run.pitch
        if run.stride:
            above, below = (
                min(above, run.source // run.stride),
                min(below, (size - run.source - run.length) // run.stride),
            )
        up = self._rows_above(run, above)
        run, below = run.from_row(-up, run.rows + up), below + up
        copies: list[Copy] = []
        at = 0
        while at < min(run.rows, below + 1) and len(copies) < _MAX_BREAKS:
            good = self._rows_below(run, at, below + 1 - at)
            if good:
                copies.append(run.from_row(at, good))
            at += good + 1
        return copies

    def _width(self, run: Copy) -> tuple[int, int]:
        """Bytes before and after the start of a run's rows that are equal in all of a sample of them."""
        size, end = self._reader.layouts[run.view].nbytes, len(self._plan)
        before = after = run.pitch
        known = False
        count = min(run.rows, max(_MIN_ROWS, min(_SAMPLE, _SAMPLE_BYTES // run.pitch)))
        for row in np.unique(np.linspace(0, run.rows - 1, count).astype(np.int64)).tolist():
            line = run.from_row(row, 1)
            if line.source >= size or line.target >= end:
                continue
            ahead = self._equal(line, 0, min(after, size - line.source, end - line.target))
            if ahead >= _CHANCE:
                before = self._equal_before(line, 0, min(before, line.source, line.target))
                after, known = ahead, True
        return (min(before, run.pitch - after), after) if known else (0, 0)

    def _rows_below(self, run: Copy, first: int, limit: int) -> int:
        """Rows equal from ``first`` on, at most ``limit``."""
        done = 0
        for count in self._growing(run, limit):
            equal = self._compare(run.from_row(first + done, count))
            if not equal.all():
                return done + int((~equal).argmax())
            done += count
        return done

    def _rows_above(self, run: Copy, limit: int) -> int:
        """Rows equal before the first, at most ``limit``."""
        done = 0
        for count in self._growing(run, limit):
            equal = self._compare(run.from_row(-done - count, count))
            if not equal.all():
                return done + int((~equal[::-1]).argmax())
            done += count
        return done

    @staticmethod
    def _growing(run: Copy, limit: int) -> Sequence[int]:
        """Counts of rows to compare at a time, few first, that add up to ``limit``."""
        most = max(1, _CHUNK // max(run.length, run.stride))
        counts, step = [], 16
        while limit > 0 and step < most:
            counts.append(min(step, limit))
            limit, step = limit - counts[-1], step * 4
        return [*counts, *[most] * (limit // most), *[limit % most] * (limit % most > 0)]

    def _compare(self, rows: Copy) -> Mask:
        """Which rows are equal."""
        ours = self._reader.rows(rows.view, rows.source, rows.stride, rows.rows, rows.length)
        plan = as_strided(self._plan[rows.target : rows.end], ours.shape, (rows.pitch, 1))
        equal: Mask = (ours == plan).all(axis=1)
        return equal
