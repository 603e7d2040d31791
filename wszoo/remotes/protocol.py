"""What a remote is: refs by name and blobs by digest, read piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    def open(self, descriptor: Descriptor, offset: int = 0) -> Iterator[bytes | memoryview]:
        """A blob's bytes from ``offset`` on, in pieces of at most a few MiB.

        Raises:
            NotFoundError: it has no such blob.
            RemoteError: it cannot be reached, or broke off.
        """
        ...


class RemoteType(Protocol):
    """Opens remotes of one kind.

    Attributes:
        name: such as ``directory``.
        schemes: what stands before ``://``; the empty string is a plain path.
    """

    name: str
    schemes: tuple[str, ...]

    def open(self, location: str) -> Remote:
        """Open the place that the user named.

        Raises:
            NotFoundError: there is nothing of that kind there.
            RemoteError: it cannot be reached.
        """
        ...
