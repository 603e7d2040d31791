"""What an app does with its lock file: pull at the first start, load at every start, all through one object."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from wszoo.api import Zoo, surroundings
from wszoo.errors import MissingExtraError, NotFoundError, RemoteError, UsageError, WszooError
from wszoo.lock.bundle import BundleReport, bundle
from wszoo.lock.document import read_lock
from wszoo.lock.making import differences, lock_model, lock_of
from wszoo.lock.pulling import keep_locked, pull_locked, select_locked
from wszoo.model import Model
from wszoo.names import Ref
from wszoo.places import open_remote
from wszoo.schema.oci import held_in
from wszoo.settings import remotes
from wszoo.transfer import RemoteDocuments
from wszoo.trust.vouching import vouch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wszoo.progress import Progress
    from wszoo.pull import PullReport
    from wszoo.remotes.protocol import Remote
    from wszoo.schema.lock import Lock, LockedModel


class LockedModels:
    """The models of a lock file: ``models.pull()``, then ``models["sdxl"]["unet"].load()``.

    Args:
        lock: what it says.
        zoo: the store to use.
        source: where to look first: a folder as :func:`bundle_lock` writes it, or a remote; then come the remotes that
            the lock names. None for those alone.
    """

    def __init__(self, lock: Lock, zoo: Zoo, source: str | None = None) -> None:
        self.lock = lock
        self._zoo = zoo
        self._source = source

    def __iter__(self) -> Iterator[str]:
        return (model.ref.tagged for model in self.lock.models)

    def __len__(self) -> int:
        return len(self.lock.models)

    def pull(self, *, gpu: str = "auto", progress: Progress | None = None, offline: bool = False) -> list[Model]:
        """Have everything here that a GPU needs. What is here is not fetched, and then nobody is connected to.

        Args:
            gpu: as for :meth:`wszoo.Zoo.pull`.
            progress: gets told about bytes; the zoo's own when None.
            offline: fail instead of connecting.

        Raises:
            NotFoundError: something is missing, and no remote has it, or ``offline`` was given.
            IncompatibleError: none of the locked plans fits.
            IntegrityError: bytes are not what the lock says, or the lock contradicts itself.
            RemoteError: the remotes failed again and again.
            StorageError: the disk is full or refuses.
        """
        watching = progress or self._zoo.progress
        return [self._pull(model, gpu, watching, offline=offline) for model in self.lock.models]

    def plan_pull(self, *, gpu: str = "auto") -> list[PullReport]:
        """What :meth:`pull` would fetch; changes nothing."""
        around, store = surroundings(gpu), self._zoo.store
        return [pull_locked(store, each, self.remotes(each), around, dry_run=True) for each in self.lock.models]

    def __getitem__(self, name: str) -> Model:
        """A model that was pulled, for this machine. Connects to nobody.

        Args:
            name: ``name:tag``, or the name alone where the lock has one tag of it.

        Raises:
            NotFoundError: the lock has no such model, or it was not pulled.
            IncompatibleError: none of the locked plans fits.
        """
        found = [model for model in self.lock.models if name in {model.name, model.ref.tagged}]
        if len(found) != 1:
            raise NotFoundError(f"the lock has {len(found)} models {name!r}", hint=f"it has: {', '.join(self)}")
        return self._pull(found[0], "auto", self._zoo.progress, offline=True)

    def _pull(self, model: LockedModel, gpu: str, progress: Progress, *, offline: bool) -> Model:
        around, store = surroundings(gpu), self._zoo.store
        selection = select_locked(store, model, around)
        if selection is None and offline:
            raise NotFoundError(
                f"{model.ref.tagged} is not in {store.layout.root} as the lock wants it", hint="pull it while online"
            )
        if selection is None:
            selection = pull_locked(store, model, self.remotes(model), around, progress=progress).selection
        elif not offline:
            keep_locked(store, model, selection)
        return Model(store, selection, progress)

    def remotes(self, model: LockedModel) -> list[Remote]:
        """Where a model may be had, in the order in which it is asked for."""
        return _opened([*([self._source] if self._source else []), *model.remotes], must=self._source)


def open_lock(
    path: str | Path,
    *,
    store: str | Path | None = None,
    source: str | None = None,
    progress: Progress | None = None,
) -> LockedModels:
    """Open a lock file, as an app does that ships one.

    >>> models = wszoo.open_lock("wszoo.lock")
    >>> models.pull()
    >>> scores = models["digits-cnn"]["model"].load()(images=images)["scores"]

    Args:
        path: of the lock file.
        store: the local store's folder; None for the user's.
        source: a bundle's folder, or a remote, to look at before those that the lock names.
        progress: gets told about work that takes long.

    Raises:
        NotFoundError: there is no such file.
        IntegrityError: it is malformed.
        IncompatibleError: it is of a later version.
    """
    return LockedModels(read_lock(Path(path)), Zoo(store, progress=progress), source)


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
    vouch(zoo.store, remote, documents, ref, index, allow_unsigned=request.allow_unsigned)
    told = request.remotes or tuple(_urls(request.source))
    return lock_model(documents, ref, index, surroundings, request.gpus, held=held_in(index), remotes=told)


def _urls(source: str) -> Iterator[str]:
    """How others may find a remote: without passwords; a folder of this machine is none of their business."""
    named = remotes().get(source)
    for url in (named.url, *named.mirrors) if named else (source,):
        parts = urlsplit(url)
        if "://" in url and parts.scheme != "file":
            yield urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _opened(places: Sequence[str], *, must: str | None) -> list[Remote]:
    """Those that can be opened; the one that the user named must be, and of several at least one."""
    opened: list[Remote] = []
    failure: WszooError | None = None
    for place in dict.fromkeys(places):
        try:
            opened.append(open_remote(place))
        except (MissingExtraError, NotFoundError, RemoteError, UsageError) as error:
            if place == must:
                raise
            failure = failure or error
    if failure is not None and not opened:
        raise failure
    return opened
