"""Re-hashing everything and naming what is damaged or missing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from wszoo.digest import Digest
from wszoo.errors import MalformedError, NotFoundError, WszooError
from wszoo.progress import Silent
from wszoo.store.documents import reachable
from wszoo.store.files import replace, storage_errors, unique_name
from wszoo.store.substitutes import read_substitute

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wszoo.progress import Progress
    from wszoo.schema.oci import Descriptor
    from wszoo.store.store import Store

WORKERS = 4  # hashing releases the GIL; more than this only fight over the disk


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong.

    Attributes:
        what: ``damaged`` or ``missing``.
        path: the file that is, or should be, there.
        refs: the refs that need it.
        detail: in words.
    """

    what: Literal["damaged", "missing"]
    path: str
    refs: tuple[str, ...]
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What verify found.

    Attributes:
        checked: files hashed.
        checked_bytes: their bytes.
        problems: sorted by path; empty when all is well.
    """

    checked: int
    checked_bytes: int
    problems: tuple[Problem, ...]


def verify(store: Store, progress: Progress | None = None, *, quarantine: bool = False) -> VerifyReport:
    """Hash every blob and assembled plan, and follow every ref.

    Damage is reported, never raised, so that one damaged file does not hide another.

    Args:
        store: which.
        progress: where to report.
        quarantine: put damaged files aside, so that pulling or building again replaces them.

    Raises:
        StorageError: a damaged file cannot be put aside.
    """
    users, problems = _users(store)
    files, sizes = _sized(_files(store))
    damaged: list[Path] = []
    with (progress or Silent()).stage("verify", sum(sizes)) as advance, ThreadPoolExecutor(WORKERS) as pool:
        for (path, digest), size, found in zip(files, sizes, pool.map(_hash, files), strict=True):
            advance(size)
            if found != digest:
                refs = tuple(users.get(digest, ()))
                problems.append(Problem(what="damaged", path=str(path), refs=refs, detail=f"hashes to {found}"))
                damaged.append(path)
    _follow_substitutes(store, users, problems)
    for digest in users.keys() - {digest for _, digest in files}:
        path, refs = store.blobs.path(digest), tuple(users[digest])
        problems.append(Problem(what="missing", path=str(path), refs=refs, detail="not in the store"))
    if quarantine:
        _put_aside(store, damaged)
    ordered = sorted(problems, key=lambda problem: (problem.path, problem.what))
    return VerifyReport(checked=len(files), checked_bytes=sum(sizes), problems=tuple(ordered))


def _put_aside(store: Store, damaged: list[Path]) -> None:
    store.layout.create()
    with storage_errors("put a damaged file aside in"):
        for path in damaged:
            replace(path, store.layout.quarantine / f"{path.name}-{unique_name()}")


def _files(store: Store) -> Iterator[tuple[Path, Digest]]:
    """Every file whose name is the digest of its content."""
    for digest in sorted(store.blobs.all()):
        yield store.blobs.path(digest), digest
    for path in sorted(store.layout.engines.glob("*.plan")):
        with suppress(MalformedError):
            yield path, Digest(f"sha256:{path.stem}")


def _sized(files: Iterator[tuple[Path, Digest]]) -> tuple[list[tuple[Path, Digest]], list[int]]:
    found, sizes = [], []
    for path, digest in files:
        with suppress(FileNotFoundError):  # gc may run meanwhile
            sizes.append(path.stat().st_size)
            found.append((path, digest))
    return found, sizes


def _hash(item: tuple[Path, Digest]) -> Digest | str:
    try:
        return Digest.of_file(item[0])
    except OSError as error:
        return f"an error: {error.strerror}"


def _users(store: Store) -> tuple[dict[Digest, list[str]], list[Problem]]:
    """Which refs need which blob; documents that cannot be followed are problems."""
    users: dict[Digest, list[str]] = {}
    entries, damage = store.refs.survey()
    refs = str(store.layout.refs)
    problems = [Problem(what="damaged", path=refs, refs=(), detail=error.message) for error in damage]
    for entry in entries:
        name = entry.ref.tagged
        for digest in _followed(reachable(store, entry.descriptor, entry.held), name, problems):
            names = users.setdefault(digest, [])
            if name not in names[-1:]:  # several of its plans may share a layer
                names.append(name)
    return users, problems


def _follow_substitutes(store: Store, users: dict[Digest, list[str]], problems: list[Problem]) -> None:
    """A pack is not missing where something stands in for it; that is needed then."""
    for digest in [digest for digest in users if store.blobs.size(digest) is None]:
        try:
            table = read_substitute(store.layout, digest)
        except MalformedError as error:
            path = str(store.layout.tensors / f"{digest.hex}.json")
            refs = tuple(users.pop(digest))
            problems.append(Problem(what="damaged", path=path, refs=refs, detail=error.message))
            continue
        if table is not None:
            refs = tuple(users.pop(digest))
            for blob in table.blobs():
                users.setdefault(blob, []).extend(refs)


def _followed(walk: Iterator[Descriptor], ref: str, problems: list[Problem]) -> Iterator[Digest]:
    try:
        for descriptor in walk:
            yield descriptor.digest
    except NotFoundError:
        return  # it was yielded before it was read, so it is found missing
    except WszooError as error:
        problems.append(Problem(what="damaged", path=ref, refs=(ref,), detail=error.message))
