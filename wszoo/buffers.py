"""Raw bytes in memory or mapped: their type, and memory that goes back to the system at once."""

import mmap
import os
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
    if size < _LARGE or os.name == "nt":  # Windows' C library keeps no large blocks
        return np.empty(size, np.uint8)
    try:
        pages = _Pages(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"no room for {size:,} bytes") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            pages.madvise(mmap.MADV_HUGEPAGE)  # as NumPy does: 512 times fewer pages to ask for
    return np.frombuffer(pages, np.uint8)


def memory_of(raw: Bytes) -> int:
    """Bytes of memory that holding an array takes: none for a part of a mapped file."""
    return 0 if is_mapped(raw) else raw.nbytes


def is_mapped(raw: Bytes) -> bool:
    """True of a part of a mapped file, which takes no memory that the system cannot have back."""
    owner: object = raw
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    return isinstance(owner, mmap.mmap) and not isinstance(owner, _Pages)
