"""What an app does with its lock file: pull at the first start, load at every start, all through one object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wszoo.api import Zoo
from wszoo.errors import MissingExtraError, NotFoundError, RemoteError, UsageError, WszooError
from wszoo.lock.document import read_lock
from wszoo.lock.pulling import keep_locked, pull_locked, select_locked
from wszoo.model import Model
from wszoo.places import open_remote
from wszoo.surroundings import surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wszoo.distribution.pull import PullReport
    from wszoo.progress import Progress
    from wszoo.remotes.protocol import Remote
    from wszoo.schema.lock import Lock, LockedModel


class LockedModels:
    """The models of a lock file: ``models.pull()``, then ``models["sdxl"]["unet"].load()``.

    Args:
        lock: what it says.
        zoo: the store to use.
        source: where to look first: a bundle, see :mod:`wszoo.lock.bundle`, or a remote; then come the remotes that
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
