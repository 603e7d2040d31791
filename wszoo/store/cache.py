"""Assembled plans as a cache: what is kept, and letting go of what was not used for longest.

Every load renews the time of a plan's stamp, in ``wszoo/verified`` or in ``wszoo/runtime``: that is when it was last
used. One that was used in the last ``RECENT`` seconds stays: who has just been told its path is about to open it. So
does one that is kept instead of weights (``engine_only.py``). Where a program has a plan mapped, Windows does not let
it go, and it is passed over; elsewhere the program keeps what it has.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from wszoo.digest import Digest
from wszoo.errors import MalformedError, WszooError
from wszoo.schema import plan
from wszoo.store.documents import plan_descriptors, plan_facts, read_index
from wszoo.store.engine_only import sole_engines
from wszoo.store.files import delete, is_regular, storage_errors
from wszoo.store.leases import file_system_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wszoo.store.layout import StoreLayout
    from wszoo.store.store import Store

RECENT = 60.0  # seconds


class CachedEngine(msgspec.Struct, frozen=True, kw_only=True):
    """An assembled plan that is kept.

    Attributes:
        kept_as: its name in the store: the tree digest of a spliced plan's bytes, a native one's digest.
        size: its bytes, with what a backend keeps to load it faster.
        used: when it was last used (file system time, seconds since 1970).
        plans: ``name:tag component target`` of the plans that assemble to it; empty when no model has one.
    """

    kept_as: Digest
    size: int
    used: float
    plans: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheReport:
    """What letting go did.

    Attributes:
        deleted: what the plans that went were kept as.
        freed_bytes: their bytes.
        kept_bytes: of the plans that are kept.
        kept_in_use: how many were passed over because they are in use, or kept instead of weights.
    """

    deleted: tuple[Digest, ...]
    freed_bytes: int
    kept_bytes: int
    kept_in_use: int


def cached_engines(store: Store) -> list[CachedEngine]:
    """The assembled plans that are kept, the last used first.

    Raises:
        StorageError: the file system refuses.
    """
    users = _users(store)
    with storage_errors("list the assembled plans in"):
        found = _kept(store.layout)
    return [msgspec.structs.replace(each, plans=tuple(users.get(each.kept_as, ()))) for each in found]


def shrink_cache(store: Store, limit: int, *, keep: Digest | None = None) -> CacheReport:
    """Delete the plans that were not used for longest until the others take ``limit`` bytes or less.

    Args:
        store: which.
        limit: bytes.
        keep: one that stays, because it is about to be loaded.

    Raises:
        StorageError: the file system refuses.
    """
    layout = store.layout
    layout.create()
    deleted, freed, in_use = [], 0, 0
    with storage_errors("delete assembled plans in"):
        recent = file_system_time(layout) - RECENT
        kept, sole = _kept(layout), sole_engines(store)
        total = sum(each.size for each in kept)
        for each in reversed(kept):
            if total - freed <= limit:
                break
            stays = each.kept_as == keep or each.kept_as in sole or each.used > recent
            if stays or not _drop(layout, each.kept_as):
                in_use += 1
                continue
            deleted.append(each.kept_as)
            freed += each.size
    return CacheReport(deleted=tuple(deleted), freed_bytes=freed, kept_bytes=total - freed, kept_in_use=in_use)


def _kept(layout: StoreLayout) -> list[CachedEngine]:
    names = {path.stem for path in layout.engines.glob("*.plan")} | {path.name for path in layout.runtime.glob("*")}
    found = []
    for name in names:
        with suppress(MalformedError):
            digest = Digest(f"sha256:{name}")
            size, used = _size_and_use(_files(layout, digest))
            if size:
                found.append(CachedEngine(kept_as=digest, size=size, used=used, plans=()))
    return sorted(found, key=lambda each: (-each.used, each.kept_as))


def _files(layout: StoreLayout, digest: Digest) -> Iterator[Path]:
    """Plan, stamp, and what a backend keeps, native plans with their weights among it."""
    yield from (layout.engine(digest), layout.verified / digest.hex)
    yield from (layout.runtime / digest.hex).rglob("*")


def _size_and_use(paths: Iterable[Path]) -> tuple[int, float]:
    size, used = 0, 0.0
    for path in paths:
        with suppress(FileNotFoundError):
            if is_regular(path):
                status = path.lstat()
                size, used = size + status.st_size, max(used, status.st_mtime)
    return size, used


def _drop(layout: StoreLayout, digest: Digest) -> bool:
    """The plan itself first: if a program has it mapped on Windows, all of it stays."""
    try:
        layout.engine(digest).unlink(missing_ok=True)
        for path in (layout.verified / digest.hex, layout.runtime / digest.hex):
            with suppress(FileNotFoundError):
                delete(path)
    except PermissionError:
        return False
    return True


def _users(store: Store) -> dict[Digest, list[str]]:
    users: dict[Digest, list[str]] = {}
    for entry in store.refs.survey()[0]:
        with suppress(WszooError):  # a damaged model is for verify to tell about
            for each in plan_descriptors(read_index(store, entry.descriptor)):
                if each.artifact_type == plan.ARTIFACT and (entry.held is None or each.digest in entry.held):
                    facts = plan_facts(store, each)
                    name = f"{entry.ref.tagged} {facts.component} {facts.target.name}"
                    users.setdefault(facts.kept_as, []).append(name)
    return users
