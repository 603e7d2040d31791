"""Mending a store: what is damaged goes into quarantine, and is fetched again from wherever it can be had.

Whether a blob is good is decided by hashing it, never by its size or time. Sources need not be trusted: a digest says
what comes from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wszoo.errors import IntegrityError, NotFoundError, RemoteError
from wszoo.progress import Silent
from wszoo.store.engine_only import needed
from wszoo.store.substitutes import all_substitutes, table_path
from wszoo.store.verify import Problem, VerifyReport, put_aside, verify
from wszoo.transfer import fetch, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wszoo.digest import Digest
    from wszoo.progress import Progress
    from wszoo.remotes.protocol import Remote
    from wszoo.schema.oci import Descriptor
    from wszoo.store.refs import Entry
    from wszoo.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What was mended.

    Attributes:
        found: what verify said before.
        quarantined: damaged files that were put aside.
        fetched: digests of the blobs that were fetched.
        fetched_bytes: their bytes.
        left: what is still wrong; ``detail`` says why.
    """

    found: VerifyReport
    quarantined: int
    fetched: tuple[Digest, ...]
    fetched_bytes: int
    left: tuple[Problem, ...]


def repair(
    store: Store, sources: Callable[[Entry], Sequence[Remote]], progress: Progress | None = None, *, fresh: bool = False
) -> RepairReport:
    """Verify, put aside what is damaged, and fetch what models need of it.

    Args:
        store: which.
        sources: the remotes to ask for the blobs of a ref, the likeliest first.
        progress: where to report.
        fresh: hash also what an interrupted verify has hashed.

    Raises:
        StorageError: the disk is full or refuses; run it again then.
    """
    watching = progress or Silent()
    found = verify(store, watching, fresh=fresh)
    movable = {store.layout.blobs, store.layout.engines, store.layout.tensors}
    damaged = [Path(each.path) for each in found.problems if each.what == "damaged"]
    movable.update(store.layout.runtime.glob("*"))  # native plans with their weights
    damaged = [path for path in damaged if path.parent in movable]
    with store.lease():
        put_aside(store, damaged)
        put_aside(store, _broken_tables(store))
        mending = _Mending(store, watching)
        for entry in store.refs.survey()[0]:
            mending.mend(entry, sources)
    stay = [each for each in found.problems if each.what == "damaged" and Path(each.path).parent not in movable]
    return RepairReport(
        found=found,
        quarantined=len(damaged),
        fetched=tuple(mending.fetched),
        fetched_bytes=sum(mending.fetched.values()),
        left=(*mending.left(), *(each for each in stay if each.path not in mending.whole)),
    )


def _broken_tables(store: Store) -> Iterator[Path]:
    """Tables for packs (see substitutes.py) that name a blob which is not here: the pack itself is fetched instead."""
    for table in all_substitutes(store.layout):
        if any(store.blobs.size(blob) is None for blob in table.blobs()):
            yield table_path(store.layout, table.pack)


@dataclass(slots=True)
class _Mending:
    """Goes from ref to ref.

    Attributes:
        fetched: digest -> bytes.
        failed: what could not be had: descriptor, why, and the refs that need it.
        whole: names of the refs that are complete.
    """

    store: Store
    progress: Progress
    fetched: dict[Digest, int] = field(default_factory=dict)
    failed: dict[Digest, tuple[str, list[str]]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)

    def mend(self, entry: Entry, sources: Callable[[Entry], Sequence[Remote]]) -> None:
        """Fetch what a ref lacks; a document that comes may name more, so again until nothing is lacking."""
        name = entry.ref.tagged
        while lacking := self._lacking(entry):
            wanted = [each for each in lacking if each.digest not in self.failed]
            for each in lacking:
                if each.digest in self.failed:
                    self.failed[each.digest][1].append(name)
            if not wanted:
                return
            self._fetch(wanted, sources(entry), name)
            if all(each.digest in self.failed for each in wanted):
                return
        self.whole.add(name)

    def left(self) -> Iterator[Problem]:
        """What could not be had."""
        for digest, (why, refs) in sorted(self.failed.items()):
            path = str(self.store.blobs.path(digest))
            yield Problem(what="missing", path=path, refs=tuple(dict.fromkeys(refs)), detail=why)

    def _lacking(self, entry: Entry) -> list[Descriptor]:
        found: list[Descriptor] = []
        try:
            for descriptor in needed(self.store, entry):
                found += missing(self.store, [descriptor])
        except NotFoundError:
            pass  # a document, which was yielded before it was read
        except IntegrityError as error:  # it has the right digest, so no source has a better one
            self.failed.setdefault(entry.descriptor.digest, (error.message, [entry.ref.tagged]))
            found.append(entry.descriptor)
        return list({each.digest: each for each in found}.values())

    def _fetch(self, wanted: Sequence[Descriptor], remotes: Sequence[Remote], name: str) -> None:
        why = "no remote is configured and none was named"
        if remotes:
            try:
                self._from(remotes, wanted, name)
            except (NotFoundError, IntegrityError, RemoteError) as error:
                why = error.message
        left = missing(self.store, wanted)
        for each in left if len(wanted) > 1 and remotes else ():
            self._fetch([each], remotes, name)  # one that cannot be had must not keep the others away
        for each in left if len(wanted) == 1 or not remotes else ():
            self.failed[each.digest] = (why, [name])
        gone = {each.digest for each in left}
        self.fetched.update({each.digest: each.size for each in wanted if each.digest not in gone})

    def _from(self, remotes: Sequence[Remote], wanted: Sequence[Descriptor], name: str) -> None:
        first, *mirrors = remotes
        fetch(first, self.store, wanted, self.progress, f"mend {name}", mirrors=mirrors)
