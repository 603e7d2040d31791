"""Deleting what no ref reaches, beside running pulls and builds.

A blob goes only if no ref reaches it, it is older than the grace period, and it is older than the start of every work
that holds a lease. Work that finds a blob already here renews its time (``Blobs.hold``). A renewal that falls between
our look at the time and the deletion is seen because the blob is first put aside and looked at again. Who reads it in
between takes it back, and so does the next gc if this one is killed then.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.errors import NotFoundError, UsageError
from wszoo.schema import plan
from wszoo.store.built import is_gone
from wszoo.store.dangling import drop_dangling
from wszoo.store.documents import plan_facts
from wszoo.store.engine_only import needed
from wszoo.store.files import delete, replace, storage_errors
from wszoo.store.leases import file_system_time, oldest_start
from wszoo.store.partials import clean_partials
from wszoo.store.substitutes import clean_substitutes, replaced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wszoo.digest import Digest
    from wszoo.store.blobs import Blobs
    from wszoo.store.store import Store

GRACE = 3600.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class GcReport:
    """What gc did, or would do.

    Attributes:
        deleted: blobs.
        freed_bytes: their bytes, and those of assembled plans that no ref needs and of unfinished files.
        kept_recent: unreachable blobs that are too young, or that running work may need.
    """

    deleted: tuple[Digest, ...]
    freed_bytes: int
    kept_recent: int


def collect(store: Store, *, dry_run: bool = False, grace: float = GRACE) -> GcReport:
    """Delete what no ref reaches.

    Args:
        store: which.
        dry_run: only report; also on a store that cannot be written to.
        grace: age in seconds below which nothing is deleted.

    Raises:
        IntegrityError: a ref's documents are damaged, so what it needs is unknown: nothing is deleted.
        UsageError: another tool keeps things in this folder, see :meth:`wszoo.store.refs.Refs.check_ours`.
        StorageError: the file system refuses.
    """
    if math.isnan(grace):  # it compares false with every age, and would delete what running work needs
        raise UsageError("the grace period is not a number", hint="give seconds")
    store.refs.check_ours()
    with storage_errors("collect garbage in"):
        if not dry_run:
            store.layout.create()
            store.blobs.take_back()
        # The order matters: the time, then leases, then refs. Work that begins meanwhile is younger than the limit,
        # and so is what it writes or renews and what becomes reachable.
        now = file_system_time(store.layout, dry_run=dry_run)
        started = oldest_start(store.layout, dry_run=dry_run)
        limit = _limit(now, grace, started)
        gone = drop_dangling(store, lambda digest: _is_old(store.blobs, digest, limit), dry_run=dry_run)
        live, engines = _live(store, gone)
        tables = list(replaced(store.layout, store.blobs, live))
        live.update(digest for table in tables for digest in table.blobs())
        deleted, freed, recent = [], 0, 0
        for digest in sorted(store.blobs.all()):
            if digest in live:
                continue
            size = _age_out(store.blobs, digest, limit, dry_run=dry_run)
            recent += size is None
            if size is not None:
                deleted.append(digest)
                freed += size
        freed += _clean_engines(store, engines, limit, dry_run=dry_run)
        gone_blobs = frozenset(deleted)
        freed += _clean(
            store.layout.built, limit, dry_run=dry_run, keep=lambda path: not is_gone(store, path, gone_blobs)
        )
        for folder in (store.layout.accepted, store.layout.engine_only):
            freed += _clean(folder, limit, dry_run=dry_run, keep=lambda path: f"sha256:{path.stem}" in live)
        freed += _clean(store.layout.verifying, limit, dry_run=dry_run, keep=lambda _: False)
        freed += _clean(store.layout.tmp, limit, dry_run=dry_run, keep=store.blobs.is_aside)
        freed += clean_partials(store.layout, limit, dry_run=dry_run)
        freed += clean_substitutes(store.layout, {table.pack for table in tables}, limit, dry_run=dry_run)
    return GcReport(deleted=tuple(deleted), freed_bytes=freed, kept_recent=recent)


def _limit(now: float, grace: float, started: float | None) -> float:
    """What is younger than this stays (file system time, seconds)."""
    if started is None:
        return now - grace
    if started > now:  # the clock was set back while work went on: nothing's age can be told from its time
        return -math.inf
    return min(now - grace, started)


def _is_old(blobs: Blobs, digest: Digest, limit: float) -> bool:
    try:
        return blobs.path(digest).lstat().st_mtime < limit
    except FileNotFoundError:
        return True


def _live(store: Store, gone: set[str]) -> tuple[set[Digest], set[str]]:
    """Digests of the blobs that refs but those in ``gone`` reach, and hex names of the engines of their plans."""
    live: set[Digest] = set()
    engines: set[str] = set()
    for entry in store.refs.all():
        if entry.ref.tagged in gone:
            continue
        try:
            for descriptor in needed(store, entry):
                live.add(descriptor.digest)
                if descriptor.artifact_type == plan.ARTIFACT:
                    engines.add(plan_facts(store, descriptor).kept_as.hex)
        except NotFoundError:
            if store.refs.find(entry.ref) == entry:
                raise
            return _live(store, gone)  # the ref went meanwhile, and another gc has taken its documents
    return live, engines


def _age_out(blobs: Blobs, digest: Digest, limit: float, *, dry_run: bool) -> int | None:
    """Delete a blob unless it is younger than ``limit``; its size if it went (or would), else None."""
    try:
        status = blobs.path(digest).lstat()
        if status.st_mtime >= limit:
            return None
        if not dry_run:
            aside = blobs.put_aside(digest)
            if aside.lstat().st_mtime >= limit:
                replace(aside, blobs.path(digest))
                return None
            delete(aside)
    except FileNotFoundError:  # another gc was here, or someone took it back
        return None
    except PermissionError:  # mapped by a running program on Windows
        return None
    return status.st_size


def _clean_engines(store: Store, live: set[str], limit: float, *, dry_run: bool) -> int:
    """Drop assembled plans, and what backends keep beside them, of plans that no ref has."""
    folders = (store.layout.engines, store.layout.verified, store.layout.runtime)
    return sum(_clean(each, limit, dry_run=dry_run, keep=lambda path: path.name[:64] in live) for each in folders)


def _clean(folder: Path, limit: float, *, dry_run: bool, keep: Callable[[Path], bool]) -> int:
    freed = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        if keep(path):
            continue
        with suppress(OSError):
            if path.lstat().st_mtime >= limit:
                continue
            size = _size(path)
            if not dry_run:
                delete(path)
            freed += size
    return freed


def _size(path: Path) -> int:
    """Bytes of a file, or of a folder with all in it: native plans with their weights are gigabytes."""
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    return sum(each.lstat().st_size for each in (path, *inside))
