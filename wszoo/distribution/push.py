"""Pushing: send what a remote lacks, manifests after what they name, and the tag last."""

from __future__ import annotations

import dataclasses
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from wszoo.errors import IntegrityError, NotFoundError, RemoteError, UsageError
from wszoo.parallel import ordered_map
from wszoo.progress import Progress, Silent
from wszoo.remotes.protocol import SharingRemote
from wszoo.schema.decode import MAX_MANIFEST, decode
from wszoo.schema.oci import INDEX, MANIFEST, Descriptor, Index
from wszoo.store.documents import reachable, read_index
from wszoo.store.wholeness import advice, lack_of
from wszoo.transfer import RemoteDocuments
from wszoo.trust.signatures import push_signatures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wszoo.digest import Digest
    from wszoo.names import Ref
    from wszoo.remotes.protocol import WritableRemote
    from wszoo.store.refs import Entry
    from wszoo.store.store import Store

T = TypeVar("T")

WORKERS = 4  # as for pulls: enough to hide a round trip, few enough for any server
ATTEMPTS = 4
LONGEST_WAIT = 60.0  # seconds; a remote that wants more is told about to the user instead


@dataclass(frozen=True, slots=True, kw_only=True)
class PushReport:
    """What a push did, or would do.

    Attributes:
        ref: as it is on the remote, pinned.
        before: the digest that the tag had there; None when there was no such tag.
        sent: the blobs and manifests that the remote did not have, the index not among them.
        present: how many it had.
        signatures: how many signatures were sent.
    """

    ref: Ref
    before: Digest | None
    sent: tuple[Descriptor, ...]
    present: int
    signatures: int = 0

    @property
    def sent_bytes(self) -> int:
        """Their bytes."""
        return sum(descriptor.size for descriptor in self.sent)

    @property
    def moved(self) -> bool:
        """True when the tag points to something else now."""
        return self.before != self.ref.digest


def push(
    store: Store,
    remote: WritableRemote,
    ref: Ref,
    *,
    target: Ref | None = None,
    replace: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> PushReport:
    """Copy a model with all of its plans to a remote, and point a tag there at it.

    A tag that is there already is moved only if nothing gets lost by it: the index that it has lists nothing which the
    new one does not. Bytes are sent as they were built; the index keeps its digest.

    Args:
        store: where from.
        remote: where to.
        ref: what; a pin is checked.
        target: the name to give it there; None for the same.
        replace: move the tag also if plans get lost.
        dry_run: only report.
        progress: where to report.

    Raises:
        NotFoundError: no such ref, or not all of its plans are in the store.
        IntegrityError: a blob in the store is damaged; nothing that names it was sent.
        UsageError: the tag has something else there, and ``replace`` was not given.
        RemoteError: the remote cannot be reached or refuses, or someone else moved the tag meanwhile.
    """
    name = (target or ref).unpinned
    with store.lease():
        entry = store.refs.get(ref)
        content = _content(store, entry)
        before = _current(remote, name)
        if before is not None and not replace:
            _check_nothing_lost(store, remote, entry, before, name)
        lacking = _persist(lambda: remote.missing(name, content))
        index = Descriptor(media_type=INDEX, digest=entry.descriptor.digest, size=entry.descriptor.size)
        report = PushReport(
            ref=name.pinned(index.digest),
            before=before.digest if before else None,
            sent=tuple(lacking),
            present=len(content) - len(lacking),
        )
        if dry_run:
            return report
        # Before the tag: who sees it has the signature too.
        documents = RemoteDocuments(remote)
        signed = _persist(lambda: push_signatures(store, remote, entry.ref, name, index.digest, documents=documents))
        report = dataclasses.replace(report, signatures=signed)
        if not (lacking or report.moved):
            return report
        if isinstance(remote, SharingRemote):
            remote.suggest(_other_homes(store, name, lacking))
        _send(store, remote, name, lacking, progress or Silent())
        _point(remote, name, index, store.blobs.read(index.digest, limit=MAX_MANIFEST), report.before)
    return report


def send(
    store: Store, remote: WritableRemote, ref: Ref, descriptors: Sequence[Descriptor], progress: Progress
) -> list[Descriptor]:
    """Put blobs and manifests that a remote lacks there, and no tag: for whoever knows their digests.

    Args:
        store: where from.
        remote: where to.
        ref: what they belong to, for remotes that keep blobs by model.
        descriptors: in any order.
        progress: where to report.

    Returns:
        Those that were sent.

    Raises:
        IntegrityError: a blob in the store is damaged.
        RemoteError: the remote cannot be reached, or refuses.
    """
    lacking = _persist(lambda: remote.missing(ref, list(descriptors)))
    if lacking:
        _send(store, remote, ref, lacking, progress)
    return lacking


def _content(store: Store, entry: Entry) -> list[Descriptor]:
    """Everything that the index reaches, without the index: blobs first, then manifests."""
    lack = lack_of(store, entry)
    if lack.gone:
        raise IntegrityError(
            f"blob {lack.gone[0].digest} of {entry.ref.tagged} is missing or damaged in {store.layout.root}",
            hint="run 'wszoo verify', then build or pull it again",
        )
    if lack:
        raise NotFoundError(
            f"{entry.ref.tagged} is not here as a whole, so it cannot be pushed: {lack}",
            hint=f"fetch the rest first: {advice(entry)}",
        )
    found = {each.digest: each for each in reachable(store, entry.descriptor, None)}
    del found[entry.descriptor.digest]
    return sorted(found.values(), key=lambda each: each.media_type == MANIFEST)


def _current(remote: WritableRemote, ref: Ref) -> Descriptor | None:
    try:
        return _persist(lambda: remote.resolve(ref))
    except NotFoundError:
        return None


def _check_nothing_lost(store: Store, remote: WritableRemote, entry: Entry, before: Descriptor, ref: Ref) -> None:
    if before.digest == entry.descriptor.digest:
        return
    ours = {each.digest for each in read_index(store, entry.descriptor).manifests}
    documents = RemoteDocuments(remote)
    data = _persist(lambda: documents.read(before, limit=MAX_MANIFEST))
    theirs = {each.digest for each in decode(data, Index, what=f"index {before.digest}").manifests}
    if not theirs <= ours:
        raise UsageError(
            f"{remote.url} has {ref.tagged} as {before.digest}, with {len(theirs - ours)} manifests that are not in "
            f"{entry.descriptor.digest}",
            hint="push under another tag, pull and build on top of it, or give --replace to let it go",
        )


def _other_homes(store: Store, ref: Ref, wanted: Sequence[Descriptor]) -> dict[Digest, list[Ref]]:
    """Models of other names that have some of the blobs too, and may have been pushed to the same place.

    Of their plans only those are read that are wanted themselves: ten thousand models may have dozens each.
    """
    homes: dict[Digest, dict[str, Ref]] = {each.digest: {} for each in wanted}
    for entry in store.refs.survey()[0]:
        if entry.ref.name != ref.name and not entry.ref.is_referrers:
            with suppress(IntegrityError, NotFoundError):  # a damaged neighbour only costs the shortcut
                for each in reachable(store, entry.descriptor, homes):
                    homes.get(each.digest, {}).setdefault(entry.ref.name, entry.ref)
    return {digest: list(refs.values()) for digest, refs in homes.items() if refs}


def _send(
    store: Store, remote: WritableRemote, ref: Ref, descriptors: Sequence[Descriptor], progress: Progress
) -> None:
    manifests = [each for each in descriptors if each.media_type == MANIFEST]
    blobs = [each for each in descriptors if each.media_type != MANIFEST]
    with progress.stage(f"push {ref.tagged}", sum(each.size for each in descriptors)) as advance:

        def send(each: Descriptor) -> None:
            store.blobs.check(each.digest)  # a damaged blob must not spread; reading it twice costs 0.5 s a GB
            _persist(lambda: remote.put(ref, each, store.blobs.path(each.digest)))
            advance(each.size)

        for wave in (blobs, manifests):
            for _ in ordered_map(send, wave, workers=WORKERS):
                pass


def _point(remote: WritableRemote, ref: Ref, index: Descriptor, data: bytes, expected: Digest | None) -> None:
    if _persist(lambda: remote.tag(ref, index, data, expected)):
        return
    now = _current(remote, ref)
    if now is None or now.digest != index.digest:  # else an earlier attempt arrived whose answer was lost
        raise RemoteError(
            f"someone else moved {ref.tagged} at {remote.url} while this push went on",
            hint="all blobs are there; push again to compare with what is there now",
        )


def _persist(call: Callable[[], T]) -> T:
    """Try again what a network may have spoiled, with growing pauses."""
    for attempt in range(1, ATTEMPTS):
        try:
            return call()
        except RemoteError as error:
            wait = error.retry_after if error.retry_after is not None else random.uniform(0.5, 1) * 2 ** (attempt - 1)  # noqa: S311
            if error.permanent or wait > LONGEST_WAIT:
                raise
            time.sleep(wait)
    return call()
