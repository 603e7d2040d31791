"""Native plans that were given their weights here, kept for the next load.

``FOLDER/<key>.plan`` with ``FOLDER/<key>.stamp``: the file's sha256, and its size and modification time when it had
that sha256. The key begins with the weights' digest. TensorRT does not promise the same bytes for the same plan and
weights, so the sha256 is this machine's own; a file that differs from its stamp is hashed again before anyone gets it,
as in :mod:`wszoo.store.engines`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.errors import MalformedError
from wszoo.progress import Silent
from wszoo.store.files import check_room, is_regular, place, storage_errors, sync_file, unique_name, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wszoo.progress import Progress

_MAX_STAMP = 1024  # bytes
_HALF = 32  # digits of a digest: half of them keep paths short for Windows


def refit_key(weights: Digest, where: str) -> str:
    """The name of a kept plan.

    Args:
        weights: digest of the component's weights: a plan may take those of several versions.
        where: what else it depends on.
    """
    return f"{weights.hex[:_HALF]}-{Digest.of(where.encode()).hex[:_HALF]}"


def has_refitted(folder: Path, weights: Digest) -> bool:
    """True when a plan with these weights is kept, and its bytes are still those that were written."""
    names = [path.stem for path in folder.glob(f"{weights.hex[:_HALF]}-*.plan")]
    return any(_is_whole(folder, name) for name in names)


def refitted_plans(folder: Path) -> Iterator[tuple[Path, Digest]]:
    """The kept plans below a folder of such folders, each with the digest that it had when it was written."""
    for stamp in folder.glob("*/*.stamp"):
        with suppress(OSError, MalformedError, ValueError):
            if is_regular(path := stamp.with_suffix(".plan")):
                yield path, Digest(_read_stamp(stamp)[0])


def find_refitted(folder: Path, key: str, progress: Progress) -> Path | None:
    """The kept plan, if there is one and its bytes are still those that were written.

    Args:
        folder: of the plan.
        key: from :func:`refit_key`.
        progress: gets told about hashing.
    """
    if not _is_whole(folder, key, progress):
        return None
    with suppress(OSError):
        os.utime(folder / f"{key}.stamp")  # its time tells cache.py when the plan was last used
    return folder / f"{key}.plan"


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


def _is_whole(folder: Path, key: str, progress: Progress | None = None) -> bool:
    """Whether a kept plan has the bytes that were written; hashes it if it changed since it was last hashed."""
    path, stamp = folder / f"{key}.plan", folder / f"{key}.stamp"
    try:
        digest, *state = _read_stamp(stamp)
        found = _state(path)
    except (OSError, MalformedError, ValueError):
        return False
    if " ".join(state) == found:
        return True
    with (progress or Silent()).stage(f"verify {path.name[:12]}"):
        if Digest.of_file(path) != Digest(digest):
            return False
    with suppress(OSError):
        write_atomic(stamp, f"{digest} {found}\n".encode(), folder)
    return True


def _read_stamp(stamp: Path) -> list[str]:
    if stamp.stat().st_size > _MAX_STAMP:
        raise MalformedError(f"{stamp} is no stamp")
    words = stamp.read_text(encoding="utf-8").split()
    Digest(words[0] if words else "")
    return words


def _state(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"
