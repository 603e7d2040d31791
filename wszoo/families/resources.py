"""How much memory this machine can still give: known before an export starts, not when the system kills it."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from wszoo.errors import IncompatibleError

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def require_memory(wanted: int, purpose: str) -> None:
    """Raise unless so much memory is available; where that cannot be known, nothing is refused.

    Args:
        wanted: bytes.
        purpose: what for, as in ``export unet``.

    Raises:
        IncompatibleError: there is less.
    """
    available = available_memory()
    if available is not None and wanted > available:
        raise IncompatibleError(
            f"{wanted / 1e9:.1f} GB of memory are needed to {purpose}, and {available / 1e9:.1f} GB are available",
            hint="close other programs, or build on a larger machine",
        )


def available_memory() -> int | None:
    """Bytes that can be had without swapping, in this container where it has a limit; None when nothing tells."""
    if sys.platform == "win32":
        return _windows()
    if not _MEMINFO.is_file():
        return None
    lines = _MEMINFO.read_text().splitlines()
    free = next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)
    room = _cgroup_room()
    return min(free, room) if free is not None and room is not None else free


def _cgroup_room() -> int | None:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    if not limit.isdigit():
        return None
    return int(limit) - used + int(stat.get("inactive_file", 0))  # pages of files, which are given back first


class _Status(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_ulong),
        ("load", ctypes.c_ulong),
        *((name, ctypes.c_ulonglong) for name in ("total", "available", "c", "d", "e", "f", "g")),
    )


def _windows() -> int | None:
    status = _Status(length=ctypes.sizeof(_Status))
    windll = getattr(ctypes, "windll", None)
    if windll is None or not windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.available)
