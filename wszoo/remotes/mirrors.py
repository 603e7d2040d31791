"""Several remotes with the same blobs as one: who fails goes to the end of the queue."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from wszoo.errors import NotFoundError, RemoteError
from wszoo.remotes.protocol import ReferringRemote, expect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wszoo.digest import Digest
    from wszoo.names import Ref
    from wszoo.remotes.protocol import Remote
    from wszoo.schema.oci import Descriptor

T = TypeVar("T")


class MirroredRemote:
    """Asks the first remote, and when it fails the next ones.

    A blob that breaks off half-way is an error of that read; the next read begins with another remote. Nothing vouches
    for a mirror, and nothing needs to: blobs are compared with their digests, whoever sent them. What a tag points to
    is asked of the first remote that answers, so pin it.

    Args:
        remotes: the one that counts first, then its mirrors.
    """

    trusted = False  # a name in the settings vouches for nothing; see docs/adr/0007

    def __init__(self, remotes: Sequence[Remote]) -> None:
        self.url = remotes[0].url
        self._primary = remotes[0]
        self._queue = list(remotes)
        self._lock = threading.Lock()

    def resolve(self, ref: Ref) -> Descriptor:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        return self._first(lambda remote: remote.resolve(ref))

    def referrers(self, ref: Ref, index: Digest) -> list[Descriptor] | None:
        """See :class:`wszoo.remotes.protocol.ReferringRemote`."""
        return self._first(lambda remote: remote.referrers(ref, index) if isinstance(remote, ReferringRemote) else None)

    def expect(self, ref: Ref) -> None:
        """See :class:`wszoo.remotes.protocol.ModelwiseRemote`."""
        for remote in self.order():
            expect(remote, ref)

    def refs(self) -> list[Ref]:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        return self._first(lambda remote: remote.refs())

    def open(self, descriptor: Descriptor, offset: int = 0, length: int | None = None) -> Iterator[bytes | memoryview]:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        return _Failover(self, descriptor, offset, length)

    def order(self) -> list[Remote]:
        """The remotes as they would be asked now."""
        with self._lock:
            return list(self._queue)

    def demote(self, remote: Remote) -> None:
        """Ask this one last from now on."""
        with self._lock:
            self._queue.remove(remote)
            self._queue.append(remote)

    def _first(self, ask: Callable[[Remote], T]) -> T:
        failures: list[NotFoundError | RemoteError] = []
        for remote in self.order():
            try:
                return ask(remote)
            except NotFoundError as error:
                if remote is self._primary:  # it answered: what it does not have does not exist
                    raise
                failures.append(error)
            except RemoteError as error:
                self.demote(remote)
                failures.append(error)
        raise _worst(failures)


class _Failover:
    """Iterates over a blob from the first remote that begins to send it."""

    def __init__(self, remote: MirroredRemote, descriptor: Descriptor, offset: int, length: int | None) -> None:
        self._remote = remote
        self._ask = (descriptor, offset, length)
        self._source: Remote | None = None
        self._pieces: Iterator[bytes | memoryview] | None = None
        self._closed = False

    def __iter__(self) -> Iterator[bytes | memoryview]:
        return self

    def __next__(self) -> bytes | memoryview:
        if self._closed:
            raise StopIteration
        if self._pieces is None:
            return self._begin()
        try:
            return next(self._pieces)
        except RemoteError:
            if self._source is not None and not self._closed:
                self._remote.demote(self._source)
            raise

    def close(self) -> None:
        """End the connection, from any thread."""
        self._closed = True
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()

    def _begin(self) -> bytes | memoryview:
        failures: list[NotFoundError | RemoteError] = []
        for remote in self._remote.order():
            self._source, self._pieces = remote, remote.open(*self._ask)
            try:
                return next(self._pieces)
            except (NotFoundError, RemoteError) as error:
                if self._closed:
                    raise
                self._remote.demote(remote)
                failures.append(error)
        raise _worst(failures)


def _worst(failures: list[NotFoundError | RemoteError]) -> NotFoundError | RemoteError:
    """Of several failures the one to report: a remote that may come back before one that has nothing."""
    return next((each for each in failures if isinstance(each, RemoteError) and not each.permanent), failures[0])
