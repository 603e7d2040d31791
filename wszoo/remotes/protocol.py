"""What a remote is: refs by name and blobs by digest, read piece by piece, and perhaps written.

Reading is :class:`Remote`. A remote that can also be pushed to has the methods of :class:`WritableRemote`; whether it
has them is what ``wszoo push`` asks (:func:`writable`). Both are tested by what :mod:`wszoo.testing.remotes` ships.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from wszoo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from wszoo.digest import Digest
    from wszoo.names import Ref
    from wszoo.schema.oci import Descriptor


class Remote(Protocol):
    """One opened place. What it returns is hostile until checked: whoever calls compares sizes and digests.

    Attributes:
        url: how it was named, for messages.
        trusted: the user named it on the command line and it is on this machine.
    """

    url: str
    trusted: bool

    def resolve(self, ref: Ref) -> Descriptor:
        """The descriptor of a ref's index.

        Raises:
            NotFoundError: no such ref; the hint lists what there is.
            RemoteError: it cannot be reached.
        """
        ...

    def refs(self) -> list[Ref]:
        """Every ref, as far as the remote can list them.

        Raises:
            RemoteError: it cannot be reached.
        """
        ...

    def open(self, descriptor: Descriptor, offset: int = 0, length: int | None = None) -> Iterator[bytes | memoryview]:
        """A blob's bytes from ``offset`` on, in pieces of at most a few MiB.

        Called by several threads at once. A piece may be overwritten when the next one is asked for. Closing the
        iterator early, perhaps from another thread than the one that reads, ends the connection.

        Args:
            descriptor: which blob.
            offset: first byte.
            length: bytes; None means to the end. No more than that is sent.

        Raises:
            NotFoundError: it has no such blob.
            RemoteError: it cannot be reached, or broke off; its attributes tell whether and when to try again.
        """
        ...


@runtime_checkable
class WritableRemote(Remote, Protocol):
    """A remote that can be pushed to. Methods are told the ref, because a registry keeps blobs by name.

    Whoever pushes puts blobs first, then the manifests that name them, and tags last: who sees a tag can pull it.
    """

    def missing(self, ref: Ref, descriptors: Sequence[Descriptor]) -> list[Descriptor]:
        """Those that the remote does not have, in the order given.

        Raises:
            RemoteError: it cannot be reached, or refuses.
        """
        ...

    def put(self, ref: Ref, descriptor: Descriptor, path: Path) -> None:
        """Store a blob or manifest. Putting again what is there does no harm; nothing is visible before it is whole.

        Called by several threads at once.

        Args:
            ref: what it is pushed for.
            descriptor: its media type, size and digest.
            path: a file with exactly its bytes.

        Raises:
            RemoteError: it cannot be reached, refuses, or received other bytes.
        """
        ...

    def tag(self, ref: Ref, index: Descriptor, data: bytes, expected: Digest | None) -> bool:
        """Store an index and point a ref at it, unless the ref has moved.

        Args:
            ref: which; a pin is ignored.
            index: the index's descriptor.
            data: its bytes.
            expected: what the ref is thought to point to now; None when it is thought not to exist.

        Returns:
            False when the ref points elsewhere: nothing was changed. Remotes without a compare-and-swap look just
            before they write, and say so in their documentation.

        Raises:
            RemoteError: it cannot be reached, or refuses.
        """
        ...


@runtime_checkable
class ReferringRemote(Protocol):
    """A remote that may know by itself what refers to an index; all others list that under a tag.

    See :mod:`wszoo.trust.signatures`.
    """

    def referrers(self, ref: Ref, index: Digest) -> list[Descriptor] | None:
        """The manifests that refer to an index of a ref's name; None when the tag has to be looked up.

        Raises:
            RemoteError: it cannot be reached.
        """
        ...


@runtime_checkable
class SharingRemote(WritableRemote, Protocol):
    """A remote that keeps blobs by model, and can take one over from another model without its bytes being sent."""

    def suggest(self, homes: Mapping[Digest, Sequence[Ref]]) -> None:
        """Tell which other models may have brought blobs that are put next. A wrong guess costs a question."""
        ...


@runtime_checkable
class ModelwiseRemote(Protocol):
    """A remote that keeps blobs by model, and has to be told which one is meant before a blob is opened."""

    def expect(self, ref: Ref) -> None:
        """Look for blobs among those of a ref's model too. Connects to nobody; resolving the ref does the same."""
        ...


def expect(remote: Remote, ref: Ref) -> None:
    """Tell a remote which model's blobs will be asked for, if it wants to know."""
    if isinstance(remote, ModelwiseRemote):
        remote.expect(ref)


def writable(remote: Remote) -> WritableRemote:
    """The remote, if it can be pushed to.

    Raises:
        UsageError: it can only be read.
    """
    if isinstance(remote, WritableRemote):
        return remote
    raise UsageError(
        f"{remote.url} can only be read",
        hint="push to a folder, oci://HOST/PATH, s3:// (gs://, az://) or hf://ORG/REPO; see docs/remotes.md",
    )


class RemoteType(Protocol):
    """Opens remotes of one kind.

    Attributes:
        name: such as ``directory``.
        schemes: what stands before ``://``; the empty string is a plain path.
    """

    name: str
    schemes: tuple[str, ...]

    def open(self, location: str) -> Remote:
        """Open the place that the user named; connects as late as it can.

        Raises:
            NotFoundError: there is nothing of that kind there.
            RemoteError: it cannot be reached.
        """
        ...
