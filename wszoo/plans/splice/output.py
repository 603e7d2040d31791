"""Where an assembled plan goes: a file, written in any order by many threads, or something that takes it in order."""

from __future__ import annotations

import errno
import mmap
import os
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np

from wszoo.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wszoo.buffers import Bytes

    Write = Callable[[memoryview], object]


class Output(Protocol):
    """Takes a plan's bytes.

    Attributes:
        in_order: bytes must come in order, and from one thread; else in any order, and from any number of them.
        mapped: the whole of it as an array to write to, if there is one.
    """

    in_order: bool
    mapped: Bytes | None

    def write(self, start: int, data: memoryview) -> None:
        """Take the bytes from ``start`` on."""
        ...


class _Stream:
    in_order = True
    mapped: Bytes | None = None

    def __init__(self, write: Callable[[memoryview], int | None]) -> None:
        self._write = write

    def write(self, _start: int, data: memoryview) -> None:
        while data:  # a raw file may take a part only
            data = data[self._write(data) or 0 :]


class _Function:
    in_order = True
    mapped: Bytes | None = None

    def __init__(self, function: Write) -> None:
        self._function = function

    def write(self, _start: int, data: memoryview) -> None:
        self._function(data)


class _File:
    in_order = False

    def __init__(self, descriptor: int, mapped: Bytes | None) -> None:
        self.mapped = mapped
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def write(self, start: int, data: memoryview) -> None:
        while data:
            count = self._write_at(start, data)
            start, data = start + count, data[count:]

    def _write_at(self, start: int, data: memoryview) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._descriptor, data, start)
        with self._lock:  # Windows
            os.lseek(self._descriptor, start, os.SEEK_SET)
            return os.write(self._descriptor, data)


@contextmanager
def opened(to: Write | Path | BinaryIO, size: int, *, mapped: bool) -> Iterator[Output]:
    """What takes a plan: for a function, a binary file, or the path of a file to create.

    Args:
        to: where to.
        size: bytes that will be written.
        mapped: a file's bytes are wanted as an array too, if that is safe.

    Raises:
        StorageError: the file cannot be written.
    """
    if callable(to):
        yield _Function(to)
        return
    try:
        with ExitStack() as stack:
            yield stack.enter_context(_file(to, size, mapped=mapped)) if isinstance(to, Path) else _Stream(to.write)
    except OSError as error:
        name = to if isinstance(to, Path) else getattr(to, "name", "a file")
        hint = f"{size:,} bytes are needed" if error.errno == errno.ENOSPC else ""
        raise StorageError(f"cannot write {name}: {error.strerror or error}", hint=hint) from error


@contextmanager
def _file(path: Path, size: int, *, mapped: bool) -> Iterator[_File]:
    with path.open("w+b", buffering=0) as file, ExitStack() as stack:
        # A page that is written through memory and finds no room on the disk kills the process.
        is_safe = _reserve(file.fileno(), size)
        memory = stack.enter_context(_mapping(file.fileno(), size)) if mapped and is_safe and size else None
        yield _File(file.fileno(), None if memory is None else np.frombuffer(memory, np.uint8))


@contextmanager
def _mapping(descriptor: int, size: int) -> Iterator[mmap.mmap]:
    memory = mmap.mmap(descriptor, size)
    try:
        yield memory
    finally:
        with suppress(BufferError):  # arrays of it are still about, which let go of it when they are collected
            memory.close()  # before the file is renamed: Windows renames none that is mapped


def _reserve(descriptor: int, size: int) -> bool:
    """Reserve a file's space: a full disk shows before the work, and ext4 then writes two to four times as fast.

    Returns:
        True if the disk is known to have the room from now on.
    """
    if not size or not hasattr(os, "posix_fallocate"):
        os.ftruncate(descriptor, size)
        return os.name == "nt"  # NTFS gives a file its room when its size is set
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        os.ftruncate(descriptor, size)
        return False
    return True
