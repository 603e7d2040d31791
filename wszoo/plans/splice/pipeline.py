"""Windows of a plan on their way out: hashed in one thread and written in another, while a third fills the next one."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import shutil
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO, Self

import numpy as np

from wszoo.errors import StorageError
from wszoo.plans.splice.program import WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wszoo.buffers import Bytes

    Write = Callable[[memoryview], object]
    _Filled = tuple[Bytes, int]

_WINDOWS = 6  # one being filled, one being hashed, one being written, and some for when one of these is slow


@contextmanager
def opened(to: Write | Path | BinaryIO, size: int) -> Iterator[Write]:
    """What writes windows to a function, a binary file, or the path of a file to create.

    Args:
        to: where to.
        size: bytes that will be written.

    Raises:
        StorageError: the file cannot be written.
    """
    if callable(to):
        yield to
        return
    try:
        if isinstance(to, Path):
            with to.open("wb", buffering=0) as file:
                _reserve(file.fileno(), size)
                yield lambda window: _write_all(file.write, window)
        else:
            yield lambda window: _write_all(to.write, window)
    except OSError as error:
        name = to if isinstance(to, Path) else getattr(to, "name", "a file")
        hint = f"{size:,} bytes are needed" if error.errno == errno.ENOSPC else ""
        raise StorageError(f"cannot write {name}: {error.strerror or error}", hint=hint) from error


def _reserve(descriptor: int, size: int) -> None:
    """Reserve a file's space: a full disk shows before the work, and ext4 then writes two to four times as fast."""
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise


@contextmanager
def scratch(folder: Path | None, size: int, *, spare: int) -> Iterator[mmap.mmap | None]:
    """Map a nameless file of ``size`` bytes, which is gone afterwards, also if this process is killed.

    Args:
        folder: where; None for nowhere.
        size: bytes of the file, more than none.
        spare: bytes that must stay free on the disk.

    Yields:
        The mapping, or None where there is no room for it. Who looks into it has let go of it when the context ends.
    """
    with ExitStack() as stack:
        try:
            mapped = stack.enter_context(_mapped(folder, size)) if folder and _is_free(folder, size + spare) else None
        except OSError:
            mapped = None
        yield mapped


@contextmanager
def _mapped(folder: Path, size: int) -> Iterator[mmap.mmap]:
    with TemporaryFile(dir=folder) as file:
        file.truncate(size)
        _reserve(file.fileno(), size)  # a page that finds no room on the disk later would kill the process
        mapped = mmap.mmap(file.fileno(), size)
        try:
            yield mapped
        finally:
            with suppress(BufferError):  # an exception on its way still holds arrays of it
                mapped.close()  # before the file: Windows removes none that is mapped


def _is_free(folder: Path, size: int) -> bool:
    return shutil.disk_usage(folder).free >= size


def _write_all(write: Callable[[memoryview], int | None], window: memoryview) -> None:
    while window:  # a raw file may take a part only
        window = window[write(window) or 0 :]


class Pipeline:
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
        # A window goes from the hasher to the writer, so a free one has been seen by both.
        self._to_hash: SimpleQueue[_Filled | None] = SimpleQueue()
        self._to_write: SimpleQueue[_Filled | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, args=(self._to_hash, self.hash.update, self._to_write.put)),
            threading.Thread(target=self._run, args=(self._to_write, write, self._recycle)),
        ]
        self._window = self._free.get()
        self._used = 0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._flush()  # raises what a thread failed with
        finally:
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

    def _recycle(self, item: _Filled | None) -> None:
        if item is not None:
            self._free.put(item[0])

    def _run(
        self,
        queue: SimpleQueue[_Filled | None],
        work: Write,
        done: Callable[[_Filled | None], None],
    ) -> None:
        while (item := queue.get()) is not None:
            if self._failure is None:
                try:
                    work(memoryview(item[0])[: item[1]])
                except BaseException as error:  # noqa: BLE001 - carried to the thread that called apply
                    self._failure = error
            done(item)
        done(None)
