"""Native plans that were given their weights here, kept for the next load.

``FOLDER/<key>.plan`` with ``FOLDER/<key>.stamp``: the file's sha256, and its size and modification time when it had
that sha256. TensorRT does not promise the same bytes for the same plan and weights, so the digest is this machine's
own; a file that differs from its stamp is hashed again before anyone gets it, as in :mod:`wszoo.store.engines`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.errors import MalformedError
from wszoo.store.files import check_room, place, storage_errors, sync_file, unique_name, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.progress import Progress

_MAX_STAMP = 1024  # bytes


def find_refitted(folder: Path, key: str, progress: Progress) -> Path | None:
    """The kept plan, if there is one and its bytes are still those that were written.

    Args:
        folder: of the plan.
        key: what else it depends on: runtime, its version, GPU, driver, weights.
        progress: gets told about hashing.
    """
    path, stamp = folder / f"{key}.plan", folder / f"{key}.stamp"
    try:
        digest, *state = _read_stamp(stamp)
        found = _state(path)
    except (OSError, MalformedError, ValueError):
        return None
    if " ".join(state) == found:
        with suppress(OSError):
            os.utime(stamp)  # its time tells cache.py when the plan was last used
        return path
    with progress.stage(f"verify {path.name[:12]}"):
        if Digest.of_file(path) != Digest(digest):
            return None
    with suppress(OSError):
        write_atomic(stamp, f"{digest} {found}\n".encode(), folder)
    return path


def keep_refitted(folder: Path, key: str, plan: memoryview) -> Path:
    """Keep a plan with its weights.

    Raises:
        StorageError: the disk is full or refuses; nothing is kept then.
    """
    path = folder / f"{key}.plan"
    with storage_errors("keep the refitted plan in"):
        folder.mkdir(parents=True, exist_ok=True)
        check_room(folder, plan.nbytes, "keep the refitted plan")
        temporary = folder / f"{unique_name()}.tmp"
        try:
            temporary.write_bytes(plan)
            sync_file(temporary)
            (folder / f"{key}.stamp").unlink(missing_ok=True)
            place(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        write_atomic(folder / f"{key}.stamp", f"{Digest.of(plan)} {_state(path)}\n".encode(), folder)
    return path


def _read_stamp(stamp: Path) -> list[str]:
    if stamp.stat().st_size > _MAX_STAMP:
        raise MalformedError(f"{stamp} is no stamp")
    words = stamp.read_text(encoding="utf-8").split()
    Digest(words[0] if words else "")
    return words


def _state(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
