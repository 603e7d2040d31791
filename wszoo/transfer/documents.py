"""A remote's small blobs, kept in memory: what deciding about a pull reads."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.errors import IntegrityError, NotFoundError, RemoteError
from wszoo.transfer import tuning as tunings
from wszoo.transfer.sources import Refusals, Sources, flattened, hang_up, pieces, too_long

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wszoo.remotes.protocol import Remote
    from wszoo.schema.oci import Descriptor
    from wszoo.transfer.tuning import Tuning


_TICK = 0.1  # seconds between looks at the clock; on Windows Ctrl-C waits for the end of one


@dataclass(slots=True)
class RemoteDocuments:
    """Reads documents from a remote, or from its mirrors where it fails.

    Attributes:
        remote: where they come from.
        mirrors: where else to look.
        tuning: how hard to try; None for the default.
        read_before: what was read, by digest.
    """

    remote: Remote
    mirrors: tuple[Remote, ...] = ()
    tuning: Tuning | None = None
    read_before: dict[Digest, bytes] = field(default_factory=dict)
    _sources: Sources = field(init=False)

    def __post_init__(self) -> None:
        self._sources = Sources(flattened((self.remote, *self.mirrors)), self.tuning or tunings.DEFAULT)

    def read(self, descriptor: Descriptor, *, limit: int) -> bytes:
        """A blob's bytes, checked; see :class:`wszoo.store.documents.DocumentSource`.

        Raises:
            NotFoundError: no source has it.
            IntegrityError: every source that has it sends something else.
            RemoteError: no source can be reached.
        """
        if descriptor.digest not in self.read_before:
            self.read_before[descriptor.digest] = self._fetch(descriptor, limit)
        return self.read_before[descriptor.digest]

    def _fetch(self, descriptor: Descriptor, limit: int) -> bytes:
        refused: Refusals = {}
        failures, tuning = 0, self._sources.tuning
        while True:
            source = self._sources.pick(refused)
            time.sleep(max(0.0, source.not_before - time.monotonic()))
            try:
                return _read(source.remote, descriptor, limit, tuning.stall)
            except (NotFoundError, IntegrityError) as error:
                refused[source] = error
            except RemoteError as error:
                failures += 1
                self._sources.failed(source, error, failures, refused)


def _read(remote: Remote, descriptor: Descriptor, limit: int, stall: float) -> bytes:
    reader = _Reader(remote, descriptor, limit)
    threading.Thread(target=reader.run, name="wszoo-read", daemon=True).start()
    try:
        data = reader.wait(stall)
    finally:
        reader.give_up()
    descriptor.digest.check(Digest.of(data), f"blob {descriptor.digest} from {remote.url}")
    return data


class _Reader:
    """Reads a blob on a thread of its own, which whoever waits for it may leave behind.

    A remote's iterator may be a plain generator, or block in foreign code: neither Ctrl-C nor a call from another
    thread reaches it there.

    Args:
        remote: where from.
        descriptor: what.
        limit: bytes at most.
    """

    def __init__(self, remote: Remote, descriptor: Descriptor, limit: int) -> None:
        self._remote = remote
        self._descriptor = descriptor
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._answer: Iterator[bytes | memoryview] | None = None
        self._error: BaseException | None = None
        self._over = threading.Event()
        self._given_up = False

    def run(self) -> None:
        """Read; what goes wrong is raised by :meth:`wait`."""
        try:
            self._answer = self._remote.open(self._descriptor)
            with closing(pieces(self._remote, self._descriptor, self._answer)) as checked:
                for piece in checked:
                    self._take(piece)
                    if self._given_up:
                        return
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._error = error
        finally:
            self._over.set()

    def wait(self, stall: float) -> bytes:
        """All the bytes.

        Raises:
            RemoteError: no byte came for ``stall`` seconds.
            WszooError: what the remote raised.
        """
        size, since = -1, time.monotonic()
        while not self._over.wait(_TICK):
            if self._size != size:
                size, since = self._size, time.monotonic()
            elif time.monotonic() - since > stall:
                url = self._remote.url
                raise RemoteError(f"{url} sent nothing for {stall:g} s", hint="check the network")
        if self._error is not None:
            raise self._error
        return b"".join(self._pieces)

    def give_up(self) -> None:
        """Nobody waits any more."""
        self._given_up = True
        if not self._over.is_set():
            hang_up(self._answer)

    def _take(self, piece: bytes | memoryview) -> None:
        self._size += len(piece)
        if self._size > self._limit:
            raise too_long(self._descriptor, self._remote, self._limit)
        self._pieces.append(bytes(piece))
