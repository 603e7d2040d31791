"""Raw bytes in memory or mapped: their type, memory that goes back to the system at once, and memory used again."""

import mmap
import os
import threading
import weakref
from collections import deque
from contextlib import suppress

import numpy as np

Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
"""A flat array of bytes; often read-only and memory-mapped."""

_LARGE = 1 << 20  # bytes; asking the system for less takes longer than clearing them


class _Pages(mmap.mmap):
    """Memory of no file."""


def empty(size: int) -> Bytes:
    """Room for ``size`` bytes, which the system has back when nobody holds the array any more.

    The C library keeps what is freed, up to 64 MiB for each thread that ever asked: putting SDXL's unet together with
    16 threads took 970 to 1,090 MiB, and 670 with pages of its own for each tensor.
    """
    return np.frombuffer(_pages(size), np.uint8) if _is_large(size) else np.empty(size, np.uint8)


class Pool:
    """Room for arrays that come and go: what nobody holds any more is given out again, with what was in it.

    The system clears pages before it gives them out, which was 8 % of the processor time of a stream of tensors.

    Args:
        keep: bytes that may wait for their next use at most; they go back to the system with the pool.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._free: deque[_Pages] = deque()  # appended to by whoever lets go, at any moment: without a lock
        self._taking = threading.Lock()

    def empty(self, size: int) -> Bytes:
        """As the function of this name. The array and its parts must be held for as long as they are used."""
        if not _is_large(size):
            return np.empty(size, np.uint8)
        pages = self._fitting(size) or _pages(size)
        array = np.frombuffer(pages, np.uint8, size)
        # Parts of the array hold it, not its pages: when it goes, they have gone.
        weakref.finalize(array, self._free.append, pages).atexit = False
        return array

    def _fitting(self, size: int) -> _Pages | None:
        """Free pages for so many bytes, and not for twice as many; what is free beyond the limit goes."""
        found, kept = None, 0
        with self._taking:
            for _ in range(len(self._free)):
                pages = self._free.popleft()
                if found is None and size <= len(pages) <= 2 * size:
                    found = pages
                elif kept + len(pages) <= self._keep:
                    kept += len(pages)
                    self._free.append(pages)
        return found


def _is_large(size: int) -> bool:
    return size >= _LARGE and os.name != "nt"  # Windows' C library keeps no large blocks


def _pages(size: int) -> _Pages:
    try:
        pages = _Pages(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no room for {size:,} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)  # as NumPy does: 512 times fewer pages to ask for
    return pages


def memory_of(raw: Bytes) -> int:
    """Bytes of memory that holding an array takes: none for a part of a mapped file."""
    return 0 if is_mapped(raw) else raw.nbytes


def is_mapped(raw: Bytes) -> bool:
    """True of a part of a mapped file, which takes no memory that the system cannot have back."""
    owner: object = raw
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return isinstance(owner, mmap.mmap) and not isinstance(owner, _Pages)
