"""Any range of the plan that a program describes, without the rest of it: for readers that seek."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import as_strided

from wszoo.plans.splice.reader import SLAB, Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.buffers import Bytes
    from wszoo.plans.splice.columns import Ints
    from wszoo.plans.splice.program import Program
    from wszoo.weights.tensor import Tensor


class Windows:
    """Computes byte ranges of a plan; memory is a few windows and what :class:`Reader` keeps.

    Nothing is hashed here: whoever uses the bytes has made sure that the whole is right.

    Args:
        program: a valid program.
        tensors: the sequence that it was made from.
    """

    def __init__(self, program: Program, tensors: Sequence[Tensor]) -> None:
        self._program = program
        self._reader = Reader(tensors, program.views)
        self._costly: dict[int, bool] = {}
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

    def is_costly(self, offset: int) -> bool:
        """True in a block with more tensors than stay loaded, so that each :meth:`read` loads all of them again."""
        number = int(np.searchsorted(self._ends, offset, side="right"))
        if number == len(self._ends) or offset < self._program.blocks.start[number]:
            return False
        if number not in self._costly:
            first, last = (int(place) for place in self._program.blocks.first[number : number + 2])
            self._costly[number] = not self._reader.keeps(self._program.pieces.view[first:last].tolist())
        return self._costly[number]

    def read(self, start: int, stop: int) -> Bytes:
        """Bytes ``[start, stop)`` of the plan, in an array of their own.

        Raises:
            IntegrityError: a tensor loads another number of bytes than its type and shape take.
        """
        out = np.empty(stop - start, np.uint8)
        first = int(np.searchsorted(self._ends, start, side="right"))
        at = start
        for number in range(first, len(self._ends)):
            begin, end = int(self._program.blocks.start[number]), int(self._ends[number])
            if begin >= stop:
                break
            self._between(number, at, min(max(begin, at), stop), out[at - start :])
            low, high = max(begin, at), min(end, stop)
            self._block(number, low - begin, high - begin, out[low - start : high - start])
            at = high
        self._between(int(np.searchsorted(self._ends, at, side="right")), at, stop, out[at - start :])
        return out

    def _between(self, block: int, start: int, stop: int, out: Bytes) -> None:
        """Literals in front of a block, or behind the last one."""
        if start >= stop:
            return
        offset = int(self._between_literals[block]) + start - int(self._between_starts[block])
        out[: stop - start] = self._program.literals[offset : offset + stop - start]

    def _block(self, number: int, start: int, stop: int, out: Bytes) -> None:
        """Bytes ``[start, stop)`` of a block: a part of a row, whole rows together, a part of a row."""
        pitch = int(self._program.blocks.pitch[number]) or stop
        rows = int(self._program.blocks.rows[number])
        at = start
        while at < stop:
            row, column = divmod(at, pitch)
            whole = min(stop // pitch, rows - 1) - row
            if column == 0 and whole > 0:
                done = whole * pitch
                self._rows(number, row, out[at - start : at - start + done].reshape(whole, pitch))
            else:
                done = min(stop - at, pitch - column) if row < rows - 1 else stop - at
                self._row(number, row, column, out[at - start : at - start + done])
            at += done

    def _rows(self, number: int, row: int, out: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> None:
        pieces = self._program.pieces
        for column, length, piece in self._segments(number):
            part = out[:, column : column + length]
            if piece < 0:
                part[:] = self._gaps(number, row, len(out), -1 - piece, length)
                continue
            view, stride = int(pieces.view[piece]), int(pieces.stride[piece])
            step = max(1, SLAB // max(1, stride))  # few columns of long rows load far more than they copy
            for low in range(0, len(out), step):
                count = min(step, len(out) - low)
                source = int(pieces.source[piece]) + (row + low) * stride
                data = self._reader.read(view, source, source + (count - 1) * stride + length)
                part[low : low + count] = as_strided(data, (count, length), (stride, 1))

    def _row(self, number: int, row: int, start: int, out: Bytes) -> None:
        """``len(out)`` bytes of one row from column ``start`` on."""
        pieces = self._program.pieces
        for column, length, piece in self._segments(number):
            low, high = max(column, start), min(column + length, start + len(out))
            if low >= high:
                continue
            if piece < 0:
                data = self._gaps(number, row, 1, -1 - piece, length)[0, low - column : high - column]
            else:
                source = int(pieces.source[piece]) + row * int(pieces.stride[piece])
                data = self._reader.read(int(pieces.view[piece]), source + low - column, source + high - column)
            out[low - start : high - start] = data

    def _segments(self, number: int) -> list[tuple[int, int, int]]:
        """Column, length, and number of each piece of a row; of gaps, -1 - (literals of the row in front of them)."""
        blocks, pieces = self._program.blocks, self._program.pieces
        found, at, literals = [], 0, 0
        for piece in range(int(blocks.first[number]), int(blocks.first[number + 1])):
            column, length = int(pieces.column[piece]), int(pieces.length[piece])
            if column > at:
                found.append((at, column - at, -1 - literals))
                literals += column - at
            found.append((column, length, piece))
            at = column + length
        if at < int(blocks.pitch[number]):
            found.append((at, int(blocks.pitch[number]) - at, -1 - literals))
        return found

    def _gaps(
        self, number: int, row: int, count: int, literals: int, length: int
    ) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        """The literals of one gap in ``count`` rows."""
        width = int(self._gap_bytes[number])
        start = int(self._literals_before[number]) + row * width + literals
        data = self._program.literals[start : start + (count - 1) * width + length]
        return as_strided(data, (count, length), (width, 1))
