"""How much memory there is, and how many tasks it has room for."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

UNKNOWN = 4 << 30  # bytes assumed to be free where nobody tells


def available() -> int:
    """Bytes that a process could still take without the system having to swap or kill."""
    free = _of_system()
    limit = _of_group()
    return free if limit is None else min(free, limit)


def _of_system() -> int:
    if sys.platform == "win32":
        return _of_windows()
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    with suppress(OSError, ValueError, AttributeError):  # macOS: all of it, of which half may be in use
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return UNKNOWN


def _of_group() -> int | None:
    """What a container's limit leaves; file pages do not count, since the system drops them first."""
    root = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError, KeyError):
        limit = int((root / "memory.max").read_text(encoding="ascii"))  # "max" is no number
        fields = dict(line.split() for line in (root / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, limit - int(fields["anon"]))
    return None


class _MemoryStatus(ctypes.Structure):
    """``MEMORYSTATUSEX``."""

    _fields_ = (
        ("length", ctypes.c_ulong),
        ("load", ctypes.c_ulong),
        *((name, ctypes.c_ulonglong) for name in ("total", "free", "page_total", "page_free")),
        *((name, ctypes.c_ulonglong) for name in ("virtual_total", "virtual_free", "extended")),
    )


def _of_windows() -> int:
    status = _MemoryStatus()
    status.length = ctypes.sizeof(status)
    kernel = getattr(ctypes, "windll", None)
    if kernel is None or not kernel.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return UNKNOWN
    return int(status.free)
