"""Lock files for a zoo: made from refs, compared with what the tags point to now, upgraded, and bundled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from wszoo.errors import RemoteError, UsageError
from wszoo.lock.app import LockedModels
from wszoo.lock.bundle import BundleReport, bundle
from wszoo.lock.making import differences, lock_model, lock_of
from wszoo.names import Ref
from wszoo.places import open_remote
from wszoo.schema.oci import held_in
from wszoo.settings import remotes
from wszoo.surroundings import surroundings
from wszoo.transfer import RemoteDocuments
from wszoo.trust.vouching import vouch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wszoo.api import Zoo
    from wszoo.schema.lock import Lock, LockedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class LockRequest:
    """What to lock for.

    Attributes:
        gpus: as ``--gpu`` takes them, without ``auto``.
        source: a remote to lock from; None locks what is in the store.
        remotes: where apps will find the models; none means the source, unless it is a folder.
        allow_unsigned: lock also what nobody vouches for.
    """

    gpus: tuple[str, ...]
    source: str | None = None
    remotes: tuple[str, ...] = ()
    allow_unsigned: bool = False


def make_lock(zoo: Zoo, refs: Sequence[str], request: LockRequest) -> Lock:
    """Pin what refs point to now.

    Args:
        zoo: knows what was trusted before; has the models where there is no source.
        refs: which models.
        request: what to lock for.

    Raises:
        UsageError: no GPUs, or one of them is ``auto``.
        TrustError: nothing vouches for what the remote has.
        NotFoundError: no such ref.
        IncompatibleError: no plan fits one of the GPUs.
    """
    if not request.gpus or "auto" in request.gpus:
        raise UsageError("a lock is for GPUs that are named", hint="such as --gpu sm75,sm89,sm120, or --gpu none")
    return lock_of([_locked(zoo, Ref.parse(ref), request) for ref in refs], request.gpus)


def upgraded(zoo: Zoo, lock: Lock, *, source: str | None = None, allow_unsigned: bool = False) -> Lock:
    """The lock file that pins what the tags point to now, for the same GPUs.

    Args:
        zoo: as for :func:`make_lock`, and its errors.
        lock: the old one.
        source: a remote to look at; None asks those that the lock names, and the store where it names none.
        allow_unsigned: lock also what nobody vouches for.
    """
    models = []
    for model in lock.models:
        request = LockRequest(gpus=lock.gpus, remotes=model.remotes, allow_unsigned=allow_unsigned)
        models.append(_upgraded(zoo, model, request, [source] if source else list(model.remotes)))
    return lock_of(models, lock.gpus)


def stale(before: Lock, now: Lock) -> list[str]:
    """What a lock file says and is no longer so, in words; empty when it is up to date."""
    pairs = zip(before.models, now.models, strict=True)
    return [each for pair in pairs for each in differences(*pair)]


def bundle_lock(
    zoo: Zoo, lock: Lock, folder: str | Path, *, source: str | None = None, weights: bool = True
) -> BundleReport:
    """Write what a lock names into a folder; see :func:`wszoo.lock.bundle.bundle`."""
    models = LockedModels(lock, zoo, source)
    return bundle(zoo.store, lock, Path(folder), models.remotes, weights=weights, progress=zoo.progress)


def _upgraded(zoo: Zoo, model: LockedModel, request: LockRequest, places: Sequence[str]) -> LockedModel:
    """One model as it is at the first place that answers."""
    failure: RemoteError | None = None
    for place in places:
        try:
            return _locked(zoo, model.ref.unpinned, replace(request, source=place))
        except RemoteError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return _locked(zoo, model.ref.unpinned, request)


def _locked(zoo: Zoo, ref: Ref, request: LockRequest) -> LockedModel:
    if request.source is None:
        entry = zoo.store.refs.get(ref)
        held, told = entry.held, request.remotes
        return lock_model(zoo.store, ref, entry.descriptor, surroundings, request.gpus, held=held, remotes=told)
    remote = open_remote(request.source)
    index, documents = remote.resolve(ref), RemoteDocuments(remote)
    vouched = vouch(zoo.store, remote, documents, ref, index, allow_unsigned=request.allow_unsigned)
    told = request.remotes or tuple(_urls(request.source))
    model = lock_model(documents, ref, index, surroundings, request.gpus, held=held_in(index), remotes=told)
    if vouched.decision.release is not None:
        zoo.store.layout.create()
        vouched.note_release(zoo.store)
    return model


def _urls(source: str) -> Iterator[str]:
    """How others may find a remote: without passwords; a folder of this machine is none of their business."""
    named = remotes().get(source)
    for url in (named.url, *named.mirrors) if named else (source,):
        parts = urlsplit(url)
        if "://" in url and parts.scheme != "file":
            yield urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
