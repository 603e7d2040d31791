"""Moving blobs from a remote into a store: bounded, hashed while written, nothing visible before it is whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.errors import IntegrityError, LimitError, RemoteError
from wszoo.parallel import ordered_map
from wszoo.store.files import check_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from wszoo.progress import Progress
    from wszoo.remotes.protocol import Remote
    from wszoo.schema.oci import Descriptor
    from wszoo.store.store import Store

WORKERS = 4


@dataclass(frozen=True, slots=True)
class RemoteDocuments:
    """A remote's small blobs, kept in memory: what deciding about a pull reads.

    Attributes:
        remote: where they come from.
        read_before: what was read, by digest.
    """

    remote: Remote
    read_before: dict[Digest, bytes] = field(default_factory=dict)

    def read(self, descriptor: Descriptor, *, limit: int) -> bytes:
        """A blob's bytes, checked; see :class:`wszoo.store.documents.DocumentSource`."""
        digest = descriptor.digest
        if digest not in self.read_before:
            data = b"".join(_bounded(self.remote.open(descriptor), limit, digest, self.remote.url))
            digest.check(Digest.of(data), f"blob {digest} from {self.remote.url}")
            self.read_before[digest] = data
        return self.read_before[digest]


def missing(store: Store, descriptors: Iterable[Descriptor]) -> list[Descriptor]:
    """Those of the blobs that are not in the store, each once; those that are get their age renewed.

    A blob of another size than its descriptor says counts as missing, so that pulling again repairs a truncated one.
    """
    unique = {descriptor.digest: descriptor for descriptor in descriptors}
    return [
        descriptor
        for descriptor in unique.values()
        if not store.blobs.hold(descriptor.digest) or store.blobs.size(descriptor.digest) != descriptor.size
    ]


def fetch(remote: Remote, store: Store, descriptors: Sequence[Descriptor], progress: Progress, label: str) -> None:
    """Copy blobs into the store.

    Raises:
        StorageError: the disk has not enough room (checked first), or refuses.
        IntegrityError: a blob is not what its descriptor says; nothing of it is kept.
        RemoteError: the remote failed.
    """
    total = sum(descriptor.size for descriptor in descriptors)
    check_room(store.layout.root, total, "fetch the model")
    with progress.stage(label, total) as advance:
        for _ in ordered_map(lambda each: _fetch_one(remote, store, each, advance), descriptors, workers=WORKERS):
            pass


def _fetch_one(remote: Remote, store: Store, descriptor: Descriptor, advance: Callable[[int], None]) -> None:
    with store.blobs.writer(descriptor.digest) as writer:
        for piece in _bounded(remote.open(descriptor), descriptor.size, descriptor.digest, remote.url):
            writer.write(piece)
            advance(len(piece))
        if writer.size < descriptor.size:
            raise IntegrityError(
                f"blob {descriptor.digest} from {remote.url} ends after {writer.size} of {descriptor.size} bytes",
                hint="the source is damaged: run 'wszoo verify' there, or pull from elsewhere",
            )


def _bounded(
    pieces: Iterator[bytes | memoryview], limit: int, digest: Digest, url: str
) -> Iterator[bytes | memoryview]:
    seen = 0
    try:
        for piece in pieces:
            seen += len(piece)
            if seen > limit:
                raise LimitError(f"blob {digest} from {url} is larger than the {limit} bytes it should have")
            yield piece
    except OSError as error:
        raise RemoteError(f"{url} broke off in blob {digest}: {error}", hint="try again") from error
