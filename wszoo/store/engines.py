"""Assembled plans kept for the next load, and whether their bytes are still those that were verified.

For ``engines/<hex>.plan`` there is ``verified/<hex>``: the file's size and modification time, in nanoseconds, when its
content was hashed. A plan that differs from its stamp, or has none, is hashed again before it is handed to anyone.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.store.files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.progress import Progress
    from wszoo.store.layout import StoreLayout


def stamp(layout: StoreLayout, digest: Digest) -> None:
    """Note that a kept plan's content was hashed just now and is right."""
    write_atomic(_stamp(layout, digest), _state(layout.engine(digest)), layout.tmp)


def is_verified(layout: StoreLayout, digest: Digest, progress: Progress) -> bool:
    """True when a kept plan is there and has the right bytes; hashes it if it changed since it was last hashed."""
    path = layout.engine(digest)
    try:
        state = _state(path)
    except FileNotFoundError:
        return False
    with suppress(OSError):
        if _stamp(layout, digest).read_bytes() == state:
            return True
    with progress.stage(f"verify {path.name[:12]}"):
        if Digest.of_file(path) != digest:
            return False
    with suppress(OSError):  # without the stamp, as in a store that cannot be written, the next load hashes again
        write_atomic(_stamp(layout, digest), state, layout.tmp)
    return True


def _state(path: Path) -> bytes:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}\n".encode()


def _stamp(layout: StoreLayout, digest: Digest) -> Path:
    return layout.verified / digest.hex
