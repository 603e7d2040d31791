"""Re-hashing everything and naming what is damaged or missing."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from wszoo.digest import Digest
from wszoo.errors import MalformedError, NotFoundError, WszooError
from wszoo.parallel import cores, ordered_map
from wszoo.progress import Silent
from wszoo.store.engine_only import needed
from wszoo.store.files import open_regular, replace, storage_errors, unique_name
from wszoo.store.refitted import refitted_plans
from wszoo.store.substitutes import read_substitute
from wszoo.store.verified import Journal, State, state_of
from wszoo.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wszoo.progress import Progress
    from wszoo.schema.oci import Descriptor
    from wszoo.store.store import Store

_PIECE = 1 << 20  # bytes hashed without the GIL at a time: with 64 KiB, two threads lose a tenth to handing it over


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
        checked: files hashed now.
        checked_bytes: their bytes.
        resumed: files that an interrupted run had hashed, and that have not changed since.
        problems: sorted by path; empty when all is well.
    """

    checked: int
    checked_bytes: int
    problems: tuple[Problem, ...]
    resumed: int = 0


@dataclass(frozen=True, slots=True)
class _File:
    folder: Path
    suffix: str
    digest: Digest
    state: State
    stem: str = ""
    is_engine: bool = False

    @property
    def path(self) -> Path:
        """Made when it is needed: kept, it would take most of the memory for 280,000 files."""
        return self.folder / f"{self.stem or self.digest.hex}{self.suffix}"


def verify(
    store: Store, progress: Progress | None = None, *, quarantine: bool = False, fresh: bool = False
) -> VerifyReport:
    """Hash every blob and assembled plan on all cores, and follow every ref.

    Damage is reported, never raised, so that one damaged file does not hide another. A run that was interrupted goes on
    where it stopped, see :mod:`wszoo.store.verified`.

    Args:
        store: which.
        progress: where to report.
        quarantine: put damaged files aside, so that pulling or building again replaces them.
        fresh: hash also what an interrupted run has hashed.

    Raises:
        StorageError: a damaged file cannot be put aside.
    """
    users, problems = _users(store)
    files = _files(store)
    with Journal(store.layout) as journal:
        before = frozenset() if fresh else journal.before
        wanted = [file for file in files if (file.digest.hex, file.state) not in before]
        damaged = list(_hash_all(wanted, journal, progress or Silent()))
    for file, detail in damaged:
        refs = tuple(users.get(file.digest, ()))
        problems.append(Problem(what="damaged", path=str(file.path), refs=refs, detail=detail))
    _follow_substitutes(store, users, problems)
    problems += _missing(store, users, {file.digest for file in files})
    if quarantine:
        put_aside(store, (file.path for file, _ in damaged))
    return VerifyReport(
        checked=len(wanted),
        checked_bytes=sum(file.state.size for file in wanted),
        resumed=len(files) - len(wanted),
        problems=tuple(sorted(problems, key=lambda problem: (problem.path, problem.what))),
    )


def put_aside(store: Store, paths: Iterable[Path]) -> None:
    """Move damaged files into the store's quarantine; nothing is deleted.

    Raises:
        StorageError: one cannot be moved.
    """
    store.layout.create()
    with storage_errors("put a damaged file aside in"):
        for path in paths:
            with suppress(FileNotFoundError):  # a gc has deleted it meanwhile
                replace(path, store.layout.quarantine / f"{path.name}-{unique_name()}")


def _files(store: Store) -> list[_File]:
    """Every file whose digest is known, the largest first, so that no core waits for the last one."""
    found = []
    for digest, folder, suffix in _named(store):
        with suppress(FileNotFoundError):  # gc may run meanwhile
            state = state_of(folder / f"{digest.hex}{suffix}")
            found.append(_File(folder, suffix, digest, state, is_engine=folder == store.layout.engines))
    for path, digest in refitted_plans(store.layout.runtime):
        with suppress(FileNotFoundError):
            found.append(_File(path.parent, path.suffix, digest, state_of(path), path.stem))
    return sorted(found, key=lambda file: (-file.state.size, file.digest))


def _named(store: Store) -> Iterator[tuple[Digest, Path, str]]:
    for digest in store.blobs.all():
        yield digest, store.layout.blobs, ""
    for path in store.layout.engines.glob("*.plan"):
        with suppress(MalformedError):
            yield Digest(f"sha256:{path.stem}"), store.layout.engines, ".plan"


def _hash_all(files: list[_File], journal: Journal, progress: Progress) -> Iterator[tuple[_File, str]]:
    """What is wrong with files; the journal notes those that are right."""
    with progress.stage("verify", sum(file.state.size for file in files)) as advance:
        for file, found in zip(files, ordered_map(_hash, files, workers=cores()), strict=True):
            advance(file.state.size)
            if found == file.digest:
                journal.note(file.digest.hex, file.state)
            elif found is not None:
                yield file, f"hashes to {found}" if isinstance(found, Digest) else found


def _hash(file: _File) -> Digest | str | None:
    """A file's digest, why there is none, or None when it has gone."""
    running, view = Tree() if file.is_engine else hashlib.sha256(), memoryview(bytearray(_PIECE))
    try:
        with open_regular(file.path) as opened:
            # Past the buffer of the file, which would copy everything once more.
            while count := opened.raw.readinto(view):
                running.update(view[:count])
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except MalformedError as error:
        return error.message
    return Digest.from_hash(running)


def _missing(store: Store, users: dict[Digest, list[str]], here: set[Digest]) -> Iterator[Problem]:
    missing = [digest for digest in users.keys() - here if store.blobs.size(digest) is None]  # a pull may run meanwhile
    still = {entry.ref.tagged for entry in store.refs.survey()[0]} if missing else set()  # and so may rm and gc
    for digest in missing:
        refs = tuple(name for name in users[digest] if name in still)
        if refs:
            yield Problem(what="missing", path=str(store.blobs.path(digest)), refs=refs, detail="not in the store")


def _users(store: Store) -> tuple[dict[Digest, list[str]], list[Problem]]:
    """Which refs need which blob; documents that cannot be followed are problems."""
    users: dict[Digest, list[str]] = {}
    entries, damage = store.refs.survey()
    refs = str(store.layout.refs)
    problems = [Problem(what="damaged", path=refs, refs=(), detail=error.message) for error in damage]
    for entry in entries:
        name = entry.ref.tagged
        for digest in _followed(needed(store, entry), name, problems):
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
