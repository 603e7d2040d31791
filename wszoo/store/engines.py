"""Assembled plans kept for the next load, and whether their bytes are still those that were verified.

Only spliced plans are kept here, and their tree digest (:mod:`wszoo.tree`), which was computed from the very bytes, is
their name: whoever publishes a plan can claim any other digest for it.

For ``engines/<hex>.plan`` there is ``verified/<hex>``: the file's size and modification time, in nanoseconds, when its
content was hashed. A plan that differs from its stamp, or has none, is hashed again before it is handed to anyone.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from wszoo.errors import MalformedError
from wszoo.store.files import is_regular, read_regular, write_atomic
from wszoo.tree import tree_of_file

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.digest import Digest
    from wszoo.progress import Progress
    from wszoo.store.layout import StoreLayout

_STAMP = 64  # bytes at most


def stamp(layout: StoreLayout, digest: Digest) -> None:
    """Note that a kept plan's content was hashed just now and is right."""
    write_atomic(_stamp(layout, digest), _state(layout.engine(digest)), layout.tmp)


def is_stamped(layout: StoreLayout, digest: Digest) -> bool:
    """True when a kept plan is there as it was when it was last hashed; nothing is hashed."""
    with suppress(OSError, MalformedError):
        path = layout.engine(digest)
        return is_regular(path) and read_regular(_stamp(layout, digest), _STAMP) == _state(path)
    return False


def is_verified(layout: StoreLayout, digest: Digest, progress: Progress) -> bool:
    """True when a kept plan is there and has the right bytes; hashes it if it changed since it was last hashed."""
    path = layout.engine(digest)
    try:
        if not is_regular(path):
            return False
        state = _state(path)
    except FileNotFoundError:
        return False
    with suppress(OSError, MalformedError):
        if read_regular(_stamp(layout, digest), _STAMP) == state:
            os.utime(_stamp(layout, digest))  # its time tells cache.py when the plan was last used
            return True
    with progress.stage(f"verify {path.name[:12]}"):
        if tree_of_file(path) != digest:
            return False
    with suppress(OSError):  # without the stamp, as in a store that cannot be written, the next load hashes again
        write_atomic(_stamp(layout, digest), state, layout.tmp)
    return True


def _state(path: Path) -> bytes:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}\n".encode()


def _stamp(layout: StoreLayout, digest: Digest) -> Path:
    return layout.verified / digest.hex
