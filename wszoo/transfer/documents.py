"""A remote's small blobs, kept in memory: what deciding about a pull reads."""

from __future__ import annotations

import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.errors import IntegrityError, NotFoundError, RemoteError
from wszoo.transfer import tuning as tunings
from wszoo.transfer.sources import Refusals, Sources, flattened, hang_up, pieces, too_long

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wszoo.remotes.protocol import Remote
    from wszoo.schema.oci import Descriptor
    from wszoo.transfer.tuning import Tuning


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
    found, size = [], 0
    answer = remote.open(descriptor)
    with _hung_up_after(stall, answer) as alive, closing(pieces(remote, descriptor, answer)) as checked:
        for piece in checked:
            alive()
            size += len(piece)
            if size > limit:
                raise too_long(descriptor, remote, limit)
            found.append(bytes(piece))
    data = b"".join(found)
    descriptor.digest.check(Digest.of(data), f"blob {descriptor.digest} from {remote.url}")
    return data


@contextmanager
def _hung_up_after(stall: float, answer: Iterator[bytes | memoryview]) -> Iterator[Callable[[], None]]:
    """End the request when what this yields is not called for ``stall`` seconds, if it can be ended from outside."""
    timers: list[threading.Timer] = []

    def alive() -> None:
        for timer in timers:
            timer.cancel()
        timers[:] = [threading.Timer(stall, hang_up, [answer])]
        timers[0].daemon = True
        timers[0].start()

    alive()
    try:
        yield alive
    finally:
        timers[0].cancel()
