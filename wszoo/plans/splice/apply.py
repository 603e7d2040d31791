"""Assemble a plan: stream it in order through bounded windows, and check what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from wszoo.digest import Digest
from wszoo.plans.splice.pipeline import Pipeline, opened, scratch
from wszoo.plans.splice.program import STRIP, WINDOW
from wszoo.plans.splice.reader import SLAB, Reader
from wszoo.plans.splice.tile import Block, Part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wszoo.buffers import Bytes
    from wszoo.plans.splice.pipeline import Write
    from wszoo.plans.splice.program import Program
    from wszoo.weights.tensor import Tensor

    Matrix = np.ndarray[tuple[int, int], np.dtype[np.uint8]]


def apply(program: Program, tensors: Sequence[Tensor], to: Write | Path | BinaryIO) -> Digest:
    """Write the plan that a program describes, in order.

    Beside the file to create, a temporary one may take as many bytes as a block of interleaved matrices, if the tensors
    are compressed and the disk has room for both.

    Args:
        program: a valid program.
        tensors: the sequence that it was made from; each is read through ``load()`` when first needed.
        to: a function that takes each window in turn, in another thread, and is done with it when it returns; a binary
            file; or the path of a file to create.

    Returns:
        The sha256 of what was written. Compare it with the plan's: tensors of other bytes give other plans.

    Raises:
        IntegrityError: a tensor loads another number of bytes than its type and shape take.
        MalformedError: the program does not fit the tensors.
        LimitError: it reads from here and there so much that it would take far longer than any plan needs.
        StorageError: the file cannot be written.
    """
    reader = Reader(tensors, program.views, limit=program.work_limit)
    with opened(to, program.plan_size) as write, Pipeline(write) as pipeline:
        folder = to.absolute().parent if isinstance(to, Path) else None
        assembly = _Assembly(reader, program.literals, pipeline, folder=folder, spare=program.plan_size)
        at = 0
        for block in _blocks(program):
            assembly.literals(block.start - at)
            assembly.block(block)
            at = block.end
        assembly.literals(program.plan_size - at)
    return Digest.from_hash(pipeline.hash)


def restore(
    program: Program, tensors: Sequence[Tensor], path: Path, *, expected: Digest, what: str = "the assembled plan"
) -> None:
    """Write a plan to ``path``, which exists afterwards only if its bytes are the expected ones.

    Args:
        program: a valid program.
        tensors: the sequence that it was made from.
        path: the file to create; a temporary one that the caller renames. An existing file is replaced.
        expected: digest of the plan's bytes.
        what: names the plan in the error.

    Raises:
        IntegrityError: the assembled bytes differ, or as for :func:`apply`.
        StorageError: as for :func:`apply`.
    """
    try:
        expected.check(apply(program, tensors, path), what)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _blocks(program: Program) -> Iterator[Block]:
    blocks, pieces = program.blocks, program.pieces
    columns = (pieces.column, pieces.view, pieces.source, pieces.stride, pieces.length)
    parts = [
        Part(column=column, view=view, source=source, stride=stride, length=length)
        for column, view, source, stride, length in zip(*(values.tolist() for values in columns), strict=True)
    ]
    columns = (blocks.start, blocks.rows, blocks.pitch, blocks.first[:-1], blocks.first[1:])
    for start, rows, pitch, first, last in zip(*(values.tolist() for values in columns), strict=True):
        yield Block(start=start, rows=rows, pitch=pitch, parts=tuple(parts[first:last]))


class _Assembly:
    """Fills a pipeline's windows with literals and with blocks."""

    def __init__(self, reader: Reader, literals: Bytes, pipeline: Pipeline, *, folder: Path | None, spare: int) -> None:
        self._folder = folder
        self._spare = spare
        self._reader = reader
        self._literals = literals
        self._taken = 0
        self._pipeline = pipeline

    def literals(self, count: int) -> None:
        """The next ``count`` literal bytes."""
        for start in range(0, count, WINDOW):
            size = min(WINDOW, count - start)
            self._pipeline.room(size)[:] = self._take(size)

    def block(self, block: Block) -> None:
        """A block: whole rows together where they fit a window, else piece by piece; its last row has no tail."""
        tail = block.pitch - block.parts[-1].column - block.parts[-1].length
        whole = (block.rows if not tail else block.rows - 1) if block.pitch <= WINDOW else 0
        self._whole_rows(block, whole)
        for row in range(whole, block.rows):
            self._row(block, row)
            self.literals(tail if row < block.rows - 1 else 0)

    def _whole_rows(self, block: Block, rows: int) -> None:
        """The first rows: in windows, or where each window would load all tensors again, together or in strips."""
        if not rows or self._reader.keeps(part.view for part in block.parts):
            self._strips(block, rows, WINDOW)
            return
        size = rows * block.pitch
        with scratch(self._folder_for(block, size), size, spare=self._spare) as mapped:
            if mapped is None:
                self._strips(block, rows, STRIP)
            else:
                self._together(block, np.frombuffer(mapped, np.uint8))

    def _folder_for(self, block: Block, size: int) -> Path | None:
        """Where a block's rows are put together; nowhere if they are one strip, or if loading costs nothing."""
        if size <= STRIP or all(self._reader.is_mapped(block.parts[part].view) for part in (0, -1)):
            return None
        return self._folder

    def _strips(self, block: Block, rows: int, size: int) -> None:
        together = max(1, size // block.pitch)
        for first in range(0, rows, together):
            self._rows(block, first, min(together, rows - first))

    def _together(self, block: Block, room: Bytes) -> None:
        self._fill(block, 0, room.reshape(-1, block.pitch))
        self._copy(room)

    def _take(self, count: int) -> Bytes:
        self._taken += count
        return self._literals[self._taken - count : self._taken]

    def _row(self, block: Block, row: int) -> None:
        at = 0
        for part in block.parts:
            self.literals(part.column - at)
            source = part.source + row * part.stride
            for start in range(0, part.length, WINDOW):
                size = min(WINDOW, part.length - start)
                self._pipeline.room(size)[:] = self._reader.read(part.view, source + start, source + start + size)
            at = part.column + part.length

    def _rows(self, block: Block, first: int, count: int) -> None:
        size = count * block.pitch
        flat = self._pipeline.room(size) if size <= WINDOW else np.empty(size, np.uint8)
        self._fill(block, first, flat.reshape(count, block.pitch))
        if size > WINDOW:
            self._copy(flat)

    def _copy(self, data: Bytes) -> None:
        for start in range(0, len(data), WINDOW):
            part = data[start : start + WINDOW]
            self._pipeline.room(len(part))[:] = part

    def _fill(self, block: Block, first: int, out: Matrix) -> None:
        count = len(out)
        for part in block.parts:
            self._columns(part, first, out[:, part.column : part.column + part.length])
        gaps = _gaps(block)
        width = sum(stop - start for start, stop in gaps)
        data = self._take(count * width).reshape(count, width)
        at = 0
        for start, stop in gaps:
            out[:, start:stop] = data[:, at : at + stop - start]
            at += stop - start

    def _columns(self, part: Part, first: int, out: Matrix) -> None:
        # Few columns of long rows load far more than they copy, so not all rows at once.
        step = max(1, SLAB // max(1, part.stride))
        for low in range(0, len(out), step):
            count = min(step, len(out) - low)
            start = part.source + (first + low) * part.stride
            out[low : low + count] = self._reader.rows(part.view, start, part.stride, count, part.length)


def _gaps(block: Block) -> list[tuple[int, int]]:
    """Columns of a block's row that no part covers."""
    ends = [0, *(part.column + part.length for part in block.parts)]
    starts = [*(part.column for part in block.parts), block.pitch]
    return [(end, start) for end, start in zip(ends, starts, strict=True) if end < start]
