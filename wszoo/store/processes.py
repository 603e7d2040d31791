"""Whether another process runs, where one can tell."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def process_space() -> str:
    """Equal for two processes only if one can look the other's number up; empty where that is not known."""
    if os.name == "nt":  # os.kill(pid, 0) sends Ctrl-C there
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return socket.gethostname()


def runs(owner: str, space: str) -> bool | None:
    """Whether the process exists with whose number an owner's name begins; None where that cannot be known.

    Args:
        owner: from :func:`wszoo.store.files.unique_name`.
        space: what :func:`process_space` gave there.
    """
    if not space or space != process_space():
        return None
    try:
        os.kill(int(owner.partition("-")[0]), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True
