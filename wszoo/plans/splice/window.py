"""Any range of the plan that a program describes, without the rest of it: the one way in which programs are read."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from contextlib import closing, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import as_strided

from wszoo.parallel import cores, ordered_map
from wszoo.plans.splice.reader import SLAB, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wszoo.buffers import Bytes
    from wszoo.plans.splice.columns import Ints
    from wszoo.plans.splice.program import Program
    from wszoo.weights.tensor import Tensor

    Matrix = np.ndarray[tuple[int, int], np.dtype[np.uint8]]
    Segment = tuple[int, int, int]

_NARROW = SLAB // 8  # bytes of a row: of transposed matrices, whole rows are computed for parts of such
_REMEMBERED = 64  # blocks whose segments are kept: some are a hundred thousand pieces wide
_SLABS_EACH = 4  # of a tensor, that a thread takes to put a wide block together
MOST_WORKERS = 16  # beyond, the file system is what takes time; each holds a chunk of the plan, or a tensor
_BEHIND = 1 << 62  # above any number of a segment


class Windows:
    """Computes byte ranges of a plan, for any number of threads; memory is what :class:`Reader` keeps.

    Nothing is hashed here: whoever uses the bytes makes sure that the whole is right.

    Args:
        program: a valid program.
        tensors: the sequence that it was made from.
        limit: the most bytes that may be loaded or computed, see :class:`Reader`.
    """

    def __init__(self, program: Program, tensors: Sequence[Tensor], *, limit: int | None = None) -> None:
        self._program = program
        self._reader = Reader(tensors, program.views, limit=limit)
        self._ready: dict[int, tuple[int, Bytes]] = {}  # where in the block, and its bytes
        self._segments = lru_cache(_REMEMBERED)(self._find_segments)
        self._is_costly = lru_cache(_REMEMBERED)(self._find_costly)
        self._is_turned = lru_cache(_REMEMBERED)(self._find_turned)
        blocks, pieces = program.blocks, program.pieces
        per_row = np.add.reduceat(pieces.length, blocks.first[:-1]) if len(blocks.rows) else np.zeros(0, np.int64)
        last = blocks.first[1:] - 1
        extent = (blocks.rows - 1) * blocks.pitch + pieces.column[last] + pieces.length[last]
        self._ends: Ints = blocks.start + extent
        copied = np.concatenate(([0], np.cumsum(per_row * blocks.rows)))
        self._literals_before: Ints = blocks.start - copied[:-1]  # literals in front of each block
        self._between_starts: Ints = np.concatenate(([0], self._ends))  # of what no block covers, block by block
        self._between_literals: Ints = np.concatenate(([0], self._ends - copied[1:]))
        self._gap_bytes: Ints = blocks.pitch - per_row

    @property
    def size(self) -> int:
        """Bytes in the plan."""
        return self._program.plan_size

    @property
    def costly(self) -> Iterator[tuple[int, int]]:
        """Ranges of the plan that are best put together at once, see :meth:`together`; in order."""
        blocks = self._program.blocks
        several = (blocks.rows > 1) & (np.diff(blocks.first) > 1)
        for number in np.flatnonzero(several).tolist():
            if self._is_costly(number):
                yield int(blocks.start[number]), int(self._ends[number])

    def is_costly(self, offset: int) -> bool:
        """True in a range that is best put together at once."""
        number = int(np.searchsorted(self._ends, offset, side="right"))
        is_inside = number < len(self._ends) and offset >= self._program.blocks.start[number]
        return is_inside and self._is_costly(number)

    def _find_costly(self, number: int) -> bool:
        """True of a block with more tensors than stay loaded, so that each window of it loads all of them again."""
        first, last = (int(place) for place in self._program.blocks.first[number : number + 2])
        views = self._program.pieces.view[first:last].tolist()
        # Loading mapped tensors costs nothing; a component's tensors are seldom mapped in part.
        return not self._reader.keeps(views) and not all(self._reader.is_mapped(views[each]) for each in (0, -1))

    @contextmanager
    def together(self, start: int, stop: int, room: Callable[[int, int], Bytes]) -> Iterator[None]:
        """Put the costly blocks in bytes ``[start, stop)`` of the plan together, tensor by tensor, each loaded once.

        Until the context ends, they are copied from there.

        Args:
            start: of the range.
            stop: its end.
            room: gives an array for bytes ``[start, stop)`` of the plan.
        """
        blocks = self._program.blocks
        first = int(np.searchsorted(self._ends, start, side="right"))
        last = int(np.searchsorted(blocks.start, stop))
        try:
            for number in filter(self._is_costly, range(first, last)):
                begin, pitch = int(blocks.start[number]), int(blocks.pitch[number])
                low = max(start - begin, 0) // pitch * pitch
                high = min(-(-(stop - begin) // pitch) * pitch, self._extent(number))
                out = room(begin + low, begin + high)
                self._put_together(number, low // pitch, out)
                self._ready[number] = low, out
            yield
        finally:
            self._ready.clear()

    def _put_together(self, number: int, row: int, out: Bytes) -> None:
        """Rows of a block from ``row`` on, tensor by tensor, large ones by several threads."""

        def put(share: tuple[Segment, int, Matrix]) -> None:
            segment, low, part = share
            self._columns(number, segment, row + low, part)

        workers = min(cores(), MOST_WORKERS)
        with closing(ordered_map(put, self._shares(number, out), workers=workers)) as all_:
            deque(all_, maxlen=0)

    def _shares(self, number: int, out: Bytes) -> Iterator[tuple[Segment, int, Matrix]]:
        """Segments of a block, the rows of each in shares: its first row in ``out``, and where to put it."""
        for segment in self._segments(number):
            stride = int(self._program.pieces.stride[segment[2]]) if segment[2] >= 0 else segment[1]
            matrix = self._matrix(number, segment, out)
            step = max(1, SLAB // max(1, stride)) * _SLABS_EACH
            for low in range(0, len(matrix), step):
                yield segment, low, matrix[low : low + step]

    def _matrix(self, number: int, segment: Segment, out: Bytes) -> Matrix:
        """Where a segment goes in whole rows of a block; the last one may lack its tail."""
        pitch, (column, length, _) = int(self._program.blocks.pitch[number]), segment
        rows = (len(out) - column - length) // pitch + 1
        return as_strided(out[column:], (rows, length), (pitch, 1))

    def read(self, start: int, stop: int) -> Bytes:
        """Bytes ``[start, stop)`` of the plan, in an array of their own. Errors as for :meth:`fill`."""
        out = np.empty(stop - start, np.uint8)
        self.fill(start, out)
        return out

    def fill(self, start: int, out: Bytes) -> None:
        """Put the bytes of the plan from ``start`` on into ``out``.

        Raises:
            IntegrityError: a tensor loads another number of bytes than its type and shape take.
            LimitError: more was loaded and computed than the limit.
        """
        stop = start + len(out)
        at, number = start, int(np.searchsorted(self._ends, start, side="right"))
        while number < len(self._ends) and (begin := int(self._program.blocks.start[number])) < stop:
            low, high = max(begin, at), min(int(self._ends[number]), stop)
            self._between(number, at, out[at - start : low - start])
            self._block(number, low - begin, out[low - start : high - start])
            at, number = high, number + 1
        self._between(int(np.searchsorted(self._ends, at, side="right")), at, out[at - start :])

    def _between(self, block: int, start: int, out: Bytes) -> None:
        """Literals in front of a block, or behind the last one."""
        if len(out):
            offset = int(self._between_literals[block]) + start - int(self._between_starts[block])
            out[:] = self._program.literals[offset : offset + len(out)]

    def _block(self, number: int, start: int, out: Bytes) -> None:
        """Bytes of a block from ``start`` on: a part of a row, whole rows together, a part of a row."""
        if number in self._ready:
            low, data = self._ready[number]
            out[:] = data[start - low : start - low + len(out)]
            return
        stop, at = start + len(out), start
        pitch, rows = int(self._program.blocks.pitch[number]), int(self._program.blocks.rows[number])
        if rows > 1 and pitch <= _NARROW and self._is_turned(number):
            self._turned(number, start, out)
            return
        while at < stop:
            row, column = divmod(at, pitch)
            whole = min(stop // pitch, rows - 1) - row
            if column == 0 and whole > 0:
                done = whole * pitch
                matrix = out[at - start : at - start + done].reshape(whole, pitch)
                for segment in self._segments(number):
                    self._columns(number, segment, row, matrix[:, segment[0] : segment[0] + segment[1]])
            else:
                done = min(stop - at, pitch - column) if row < rows - 1 else stop - at
                self._row(number, row, column, out[at - start : at - start + done])
            at += done

    def _turned(self, number: int, start: int, out: Bytes) -> None:
        """As :meth:`_block`, by whole rows: of a transposed matrix, a part of a row costs as much as many rows."""
        pitch = int(self._program.blocks.pitch[number])
        row, stop = start // pitch, -(-(start + len(out)) // pitch) * pitch
        whole = np.empty(min(stop, self._extent(number)) - row * pitch, np.uint8)
        for segment in self._segments(number):
            self._columns(number, segment, row, self._matrix(number, segment, whole))
        out[:] = whole[start - row * pitch :][: len(out)]

    def _extent(self, number: int) -> int:
        return int(self._ends[number] - self._program.blocks.start[number])

    def _find_turned(self, number: int) -> bool:
        first, last = (int(place) for place in self._program.blocks.first[number : number + 2])
        views = self._program.pieces.view[first:last].tolist()
        return not all(self._reader.layouts[view].is_in_place for view in views)

    def _columns(self, number: int, segment: Segment, row: int, out: Matrix) -> None:
        """The part of rows from ``row`` on that a segment covers."""
        _, length, piece = segment
        if piece < 0:
            out[:] = self._gaps(number, row, len(out), -1 - piece, length)
            return
        pieces = self._program.pieces
        view, stride = int(pieces.view[piece]), int(pieces.stride[piece])
        step = max(1, SLAB // max(1, stride))  # few columns of long rows load far more than they copy
        for low in range(0, len(out), step):
            count = min(step, len(out) - low)
            source = int(pieces.source[piece]) + (row + low) * stride
            out[low : low + count] = self._reader.rows(view, source, stride, count, length)

    def _row(self, number: int, row: int, start: int, out: Bytes) -> None:
        """``len(out)`` bytes of one row from column ``start`` on."""
        pieces, segments = self._program.pieces, self._segments(number)
        for column, length, piece in segments[bisect_right(segments, (start, _BEHIND, 0)) - 1 :]:
            low, high = max(column, start), min(column + length, start + len(out))
            if low >= high:
                return
            part = out[low - start : high - start]
            if piece < 0:
                part[:] = self._gaps(number, row, 1, -1 - piece, length)[0, low - column : high - column]
            else:
                source = int(pieces.source[piece]) + row * int(pieces.stride[piece])
                self._reader.copy(int(pieces.view[piece]), source + low - column, part)

    def _find_segments(self, number: int) -> list[Segment]:
        """Column, length, and number of each piece of a row; of gaps, -1 - (literals of the row in front of them)."""
        blocks, pieces = self._program.blocks, self._program.pieces
        found, at, literals = [], 0, 0
        which = range(int(blocks.first[number]), int(blocks.first[number + 1]))
        columns, lengths = (values[which.start : which.stop].tolist() for values in (pieces.column, pieces.length))
        for piece, column, length in zip(which, columns, lengths, strict=True):
            if column > at:
                found.append((at, column - at, -1 - literals))
                literals += column - at
            found.append((column, length, piece))
            at = column + length
        if at < int(blocks.pitch[number]):
            found.append((at, int(blocks.pitch[number]) - at, -1 - literals))
        return found

    def _gaps(self, number: int, row: int, count: int, literals: int, length: int) -> Matrix:
        """The literals of one gap in ``count`` rows."""
        width = int(self._gap_bytes[number])
        start = int(self._literals_before[number]) + row * width + literals
        data = self._program.literals[start : start + (count - 1) * width + length]
        return as_strided(data, (count, length), (width, 1))
