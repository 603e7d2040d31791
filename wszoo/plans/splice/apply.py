"""Assemble a plan: its chunks are put together, hashed and written by all cores, each chunk by itself."""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from wszoo.parallel import cores, ordered_map
from wszoo.plans.splice.output import opened
from wszoo.plans.splice.program import STRIP
from wszoo.plans.splice.window import MOST_WORKERS, Windows
from wszoo.tree import CHUNK, leaf, tree_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from wszoo.buffers import Bytes
    from wszoo.digest import Digest
    from wszoo.plans.splice.output import Output, Write
    from wszoo.plans.splice.program import Program
    from wszoo.weights.tensor import Tensor


def apply(
    program: Program,
    tensors: Sequence[Tensor],
    to: Write | Path | BinaryIO,
    *,
    advance: Callable[[int], object] = lambda _count: None,
) -> Digest:
    """Write the plan that a program describes.

    Args:
        program: a valid program.
        tensors: the sequence that it was made from; each is read through ``load()`` when needed, in any thread.
        to: a function that takes each chunk in turn and is done with it when it returns; a binary file; or the path of
            a file to create, which is quickest, because it is written in any order.
        advance: gets told the number of bytes done, from the thread that called.

    Returns:
        The tree digest (:mod:`wszoo.tree`) of what was written. Compare it with the plan's: tensors of other bytes give
        other plans.

    Raises:
        IntegrityError: a tensor loads another number of bytes than its type and shape take.
        MalformedError: the program does not fit the tensors.
        LimitError: it reads from here and there so much that it would take far longer than any plan needs.
        StorageError: the file cannot be written.
    """
    windows = Windows(program, tensors, limit=program.work_limit)
    costly = list(windows.costly)
    with opened(to, program.plan_size, mapped=bool(costly)) as output:
        assembly = _Assembly(windows, output, advance)
        for first, last, is_costly in _stretches(costly, program.plan_size, output):
            assembly.stretch(first, last, together=is_costly)
    return tree_digest(assembly.leaves)


def restore(
    program: Program,
    tensors: Sequence[Tensor],
    path: Path,
    *,
    expected: Digest,
    what: str = "the assembled plan",
    advance: Callable[[int], object] = lambda _count: None,
) -> None:
    """Write a plan to ``path``, which exists afterwards only if its bytes are the expected ones.

    Args:
        program: a valid program.
        tensors: the sequence that it was made from.
        path: the file to create; a temporary one that the caller renames. An existing file is replaced.
        expected: tree digest of the plan's bytes.
        what: names the plan in the error.
        advance: as for :func:`apply`.

    Raises:
        IntegrityError: the assembled bytes differ, or as for :func:`apply`.
        StorageError: as for :func:`apply`.
    """
    try:
        expected.check(apply(program, tensors, path, advance=advance), what)
    except BaseException:
        with suppress(OSError):  # what went wrong before is to be told; gc deletes what is left
            path.unlink(missing_ok=True)
        raise


def _stretches(costly: Iterable[tuple[int, int]], size: int, output: Output) -> Iterator[tuple[int, int, bool]]:
    """Runs of chunks, and whether what is best put together lies in them: all of it in a file, in strips elsewhere."""
    at = 0
    for start, stop in costly:
        first, last = max(start // CHUNK, at), -(-stop // CHUNK)
        if at < first:
            yield at, first, False
        step = STRIP // CHUNK if output.mapped is None else max(1, last - first)
        for low in range(first, last, step):
            yield low, min(low + step, last), True
        at = max(at, last)
    if at < -(-size // CHUNK):
        yield at, -(-size // CHUNK), False


class _Assembly:
    """Chunks on their way to an output.

    Attributes:
        leaves: of the chunks that are done.
    """

    def __init__(self, windows: Windows, output: Output, advance: Callable[[int], object]) -> None:
        self.leaves: list[bytes] = []
        self._windows = windows
        self._output = output
        self._advance = advance
        self._free: deque[Bytes] = deque()  # used again: new memory costs as much as half of what is done in it

    def stretch(self, first: int, last: int, *, together: bool) -> None:
        """Chunks ``first`` to ``last``, which is not one of them."""
        with ExitStack() as stack:
            if together:
                stop = min(last * CHUNK, self._windows.size)
                stack.enter_context(self._windows.together(first * CHUNK, stop, self._room))
            workers = min(cores(), MOST_WORKERS)
            chunks = stack.enter_context(closing(ordered_map(self._made, range(first, last), workers=workers)))
            for number, (found, size, window) in enumerate(chunks, first):
                if self._output.in_order:
                    self._output.write(number * CHUNK, memoryview(window)[:size])
                    self._free.append(window)
                self.leaves.append(found)
                self._advance(size)

    def _made(self, number: int) -> tuple[bytes, int, Bytes]:
        """A chunk's leaf and size, and the window that it is in."""
        start = number * CHUNK
        size = min(CHUNK, self._windows.size - start)
        window = self._window()
        self._windows.fill(start, window[:size])
        data = memoryview(window)[:size]
        found = leaf(data)
        if not self._output.in_order:
            self._output.write(start, data)
            self._free.append(window)
        return found, size, window

    def _window(self) -> Bytes:
        try:
            return self._free.pop()
        except IndexError:
            return np.empty(min(CHUNK, self._windows.size), np.uint8)

    def _room(self, start: int, stop: int) -> Bytes:
        """Where bytes of the plan are put together: in the file itself, if it is mapped."""
        mapped = self._output.mapped
        return np.empty(stop - start, np.uint8) if mapped is None else mapped[start:stop]
