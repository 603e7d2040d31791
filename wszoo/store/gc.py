"""Deleting what no ref reaches, beside running pulls and builds.

A blob goes only if no ref reaches it, it is older than the grace period, and it is older than the start of every work
that holds a lease. Work that finds a blob already here renews its time (``Blobs.hold``). A renewal that falls between
our look at the time and the deletion is seen because the blob is first moved aside and looked at again.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.store.documents import reachable
from wszoo.store.files import replace, storage_errors, unique_name
from wszoo.store.leases import file_system_time, oldest_start

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.digest import Digest
    from wszoo.store.store import Store

GRACE = 3600.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What gc did, or would do.

    Attributes:
        deleted: blobs.
        freed_bytes: their bytes, and those of unfinished files.
        kept_recent: unreachable blobs that are too young, or that running work may need.
    """

    deleted: tuple[Digest, ...]
    freed_bytes: int
    kept_recent: int


def collect(store: Store, *, dry_run: bool = False, grace: float = GRACE) -> GcReport:
    """Delete what no ref reaches.

    Args:
        store: which.
        dry_run: only report.
        grace: age in seconds below which nothing is deleted.

    Raises:
        IntegrityError: a ref's documents are damaged, so what it needs is unknown: nothing is deleted.
        UsageError: another tool keeps things in this folder, see :meth:`wszoo.store.refs.Refs.check_ours`.
        StorageError: the file system refuses.
    """
    store.refs.check_ours()
    store.layout.create()
    with storage_errors("collect garbage in"):
        # The order matters: times first, then refs, so that what becomes reachable meanwhile is younger than the limit.
        started = oldest_start(store.layout)
        limit = min(file_system_time(store.layout) - grace, started if started is not None else float("inf"))
        live = _live(store)
        deleted, freed, recent = [], 0, 0
        for digest in sorted(store.blobs.all()):
            if digest in live:
                continue
            path = store.blobs.path(digest)
            size = _age_out(path, limit, store.layout.tmp, dry_run=dry_run)
            recent += size is None
            if size is not None:
                deleted.append(digest)
                freed += size
        freed += _clean_tmp(store.layout.tmp, limit, dry_run=dry_run)
    return GcReport(deleted=tuple(deleted), freed_bytes=freed, kept_recent=recent)


def _live(store: Store) -> set[Digest]:
    live: set[Digest] = set()
    for entry in store.refs.all():
        live.update(descriptor.digest for descriptor in reachable(store, entry.descriptor, entry.held))
    return live


def _age_out(path: Path, limit: float, scratch: Path, *, dry_run: bool) -> int | None:
    """Delete a blob unless it is younger than ``limit``; its size if it went (or would), else None."""
    try:
        status = path.stat()
        if status.st_mtime >= limit:
            return None
        if not dry_run:
            aside = scratch / unique_name()
            replace(path, aside)
            if aside.stat().st_mtime >= limit:
                replace(aside, path)
                return None
            aside.unlink()
    except FileNotFoundError:  # another gc was here
        return None
    except PermissionError:  # mapped by a running program on Windows
        return None
    return status.st_size


def _clean_tmp(folder: Path, limit: float, *, dry_run: bool) -> int:
    freed = 0
    for path in folder.iterdir():
        with suppress(OSError):
            status = path.stat()
            if status.st_mtime >= limit:
                continue
            if not dry_run:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            freed += status.st_size
    return freed
