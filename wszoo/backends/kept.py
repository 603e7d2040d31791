"""Files that only save time: a lost, damaged or unwritable one is no error."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from wszoo.store.files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_MOST = 1 << 30  # bytes read: more is damage, not a cache


def read_kept(path: Path) -> bytes:
    """What was kept; empty when nothing was, or when it cannot be read."""
    try:
        return path.read_bytes() if path.stat().st_size <= _MOST else b""
    except OSError as error:
        _LOG.debug("nothing kept: %s", error)
        return b""


def write_kept(path: Path, data: bytes) -> None:
    """Keep ``data``; the folder is made when needed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data, path.parent)
    except OSError as error:
        _LOG.debug("not kept: %s", error)
