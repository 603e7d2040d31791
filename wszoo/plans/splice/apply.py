"""Assemble a plan: stream it in order through bounded windows, hashing and writing while the next window fills."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.lib.stride_tricks import as_strided

from wszoo.digest import Digest
from wszoo.errors import StorageError
from wszoo.plans.splice.reader import SLAB, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wszoo.buffers import Bytes
    from wszoo.plans.splice.program import Program
    from wszoo.weights.tensor import Tensor

    Write = Callable[[memoryview], object]

WINDOW = 4 << 20  # bytes of plan assembled at a time; small enough to be hashed and written out of the cache
_WINDOWS = 4  # one being filled, one being hashed, one being written, one to spare


def apply(program: Program, tensors: Sequence[Tensor], to: Write | Path | BinaryIO) -> Digest:
    """Write the plan that a program describes, in order.

    Args:
        program: a valid program.
        tensors: the sequence that it was made from; each is read through ``load()`` when first needed.
        to: a function that takes each window in turn (and is done with it when it returns), a binary file, or the path
            of a file to create.

    Returns:
        The sha256 of what was written. Compare it with the plan's: tensors of other bytes give other plans.

    Raises:
        IntegrityError: a tensor loads another number of bytes than its type and shape take.
        MalformedError: the program does not fit the tensors.
        StorageError: the file cannot be written.
    """
    reader = Reader(tensors, program.views)
    with _writer(to) as write, _Pipeline(write) as pipeline:
        _assemble(program, reader, pipeline)
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


@contextmanager
def _writer(to: Write | Path | BinaryIO) -> Iterator[Write]:
    if callable(to):
        yield to
        return
    try:
        if isinstance(to, Path):
            with to.open("wb", buffering=0) as file:
                yield lambda window: _write_all(file.fileno(), window)
        else:
            yield to.write
    except OSError as error:
        name = to if isinstance(to, Path) else getattr(to, "name", "a file")
        raise StorageError(f"cannot write {name}: {error.strerror or error}") from error


def _write_all(descriptor: int, window: memoryview) -> None:
    while window:
        window = window[os.write(descriptor, window) :]


class _Pipeline:
    """Windows on their way: each is hashed in one thread and written in another, then used again.

    Attributes:
        hash: sha256 of all windows, complete when the context has ended without an exception.
    """

    def __init__(self, write: Write) -> None:
        self.hash = hashlib.sha256()
        self._free: SimpleQueue[Bytes] = SimpleQueue()
        for _ in range(_WINDOWS):
            self._free.put(np.empty(WINDOW, np.uint8))
        self._failure: BaseException | None = None
        # A window goes from the writer to the hasher, so that whoever is free again has seen both.
        self._to_hash: SimpleQueue[tuple[Bytes, int] | None] = SimpleQueue()
        self._to_write: SimpleQueue[tuple[Bytes, int] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, args=(self._to_hash, self.hash.update, self._to_write.put)),
            threading.Thread(target=self._run, args=(self._to_write, write, self._recycle)),
        ]
        self._window = self._free.get()
        self._used = 0

    def __enter__(self) -> _Pipeline:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        self._to_hash.put(None)
        for thread in self._threads:
            thread.join()
        if kind is None and self._failure is not None:
            raise self._failure

    def room(self, size: int) -> Bytes:
        """The next ``size`` bytes of the plan, to be filled; at most ``WINDOW``."""
        if self._used + size > WINDOW:
            self._flush()
        self._used += size
        return self._window[self._used - size : self._used]

    def _flush(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._to_hash.put((self._window, self._used))
        self._window, self._used = self._free.get(), 0

    def _recycle(self, item: tuple[Bytes, int] | None) -> None:
        if item is not None:
            self._free.put(item[0])

    def _run(
        self,
        queue: SimpleQueue[tuple[Bytes, int] | None],
        work: Write,
        done: Callable[[tuple[Bytes, int] | None], None],
    ) -> None:
        while (item := queue.get()) is not None:
            if self._failure is None:
                try:
                    work(memoryview(item[0])[: item[1]])
                except BaseException as error:  # noqa: BLE001 - carried to the thread that called apply
                    self._failure = error
            done(item)
        done(None)


def _assemble(program: Program, reader: Reader, pipeline: _Pipeline) -> None:
    literals = _Literals(program.literals)
    blocks, pieces = program.blocks, program.pieces
    at = 0
    columns = (pieces.column, pieces.view, pieces.source, pieces.stride, pieces.length)
    table = list(zip(*(column.tolist() for column in columns), strict=True))
    first = blocks.first.tolist()
    for number, (start, rows, pitch) in enumerate(
        zip(blocks.start.tolist(), blocks.rows.tolist(), blocks.pitch.tolist(), strict=True)
    ):
        row = [_Piece(*columns) for columns in table[first[number] : first[number + 1]]]
        literals.copy(start - at, pipeline)
        _block(row, rows, pitch, reader, literals, pipeline)
        at = start + (rows - 1) * pitch + row[-1].column + row[-1].length
    literals.copy(program.plan_size - at, pipeline)


class _Piece:
    __slots__ = ("column", "length", "source", "stride", "view")

    def __init__(self, column: int, view: int, source: int, stride: int, length: int) -> None:
        self.column, self.view, self.source, self.stride, self.length = column, view, source, stride, length


class _Literals:
    def __init__(self, data: Bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> Bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def copy(self, count: int, pipeline: _Pipeline) -> None:
        for start in range(0, count, WINDOW):
            size = min(WINDOW, count - start)
            pipeline.room(size)[:] = self.take(size)


def _block(row: list[_Piece], rows: int, pitch: int, reader: Reader, literals: _Literals, pipeline: _Pipeline) -> None:
    """A block: whole rows together where they fit a window, else piece by piece; its last row has no tail."""
    together = min(rows - 1, WINDOW // pitch)
    done = 0
    if together:
        gaps = _gaps(row, pitch)
        while done < rows - 1:
            count = min(together, rows - 1 - done)
            _rows(row, gaps, done, pipeline.room(count * pitch).reshape(count, pitch), reader, literals)
            done += count
    for number in range(done, rows):
        _row(row, number, reader, literals, pipeline)
        if number < rows - 1:
            literals.copy(pitch - row[-1].column - row[-1].length, pipeline)


def _gaps(row: list[_Piece], pitch: int) -> list[tuple[int, int]]:
    ends = [0, *(piece.column + piece.length for piece in row)]
    starts = [*(piece.column for piece in row), pitch]
    return [(end, start) for end, start in zip(ends, starts, strict=True) if end < start]


def _rows(
    row: list[_Piece],
    gaps: list[tuple[int, int]],
    first: int,
    out: np.ndarray[tuple[int, int], np.dtype[np.uint8]],
    reader: Reader,
    literals: _Literals,
) -> None:
    for piece in row:
        # Few columns of long rows would load far more than they copy, so not all rows at once.
        step = max(1, SLAB // max(1, piece.stride))
        for low in range(0, len(out), step):
            high = min(low + step, len(out))
            start = piece.source + (first + low) * piece.stride
            data = reader.read(piece.view, start, start + (high - low - 1) * piece.stride + piece.length)
            shape, strides = (high - low, piece.length), (piece.stride, 1)
            out[low:high, piece.column : piece.column + piece.length] = as_strided(data, shape, strides)
    if gaps:
        width = sum(stop - start for start, stop in gaps)
        data = literals.take(len(out) * width).reshape(len(out), width)
        at = 0
        for start, stop in gaps:
            out[:, start:stop] = data[:, at : at + stop - start]
            at += stop - start


def _row(row: list[_Piece], number: int, reader: Reader, literals: _Literals, pipeline: _Pipeline) -> None:
    at = 0
    for piece in row:
        literals.copy(piece.column - at, pipeline)
        source = piece.source + number * piece.stride
        for start in range(0, piece.length, WINDOW):
            size = min(WINDOW, piece.length - start)
            pipeline.room(size)[:] = reader.read(piece.view, source + start, source + start + size)
        at = piece.column + piece.length
