"""A remote that is a folder: another store, or any OCI image layout."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from wszoo.errors import NotFoundError, RemoteError
from wszoo.hookspecs import hookimpl
from wszoo.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wszoo.names import Ref
    from wszoo.remotes.protocol import Remote, RemoteType
    from wszoo.schema.oci import Descriptor

_PIECE = 4 << 20


class DirectoryRemote:
    """One folder. It is only read.

    Args:
        root: the folder that holds ``oci-layout``.
    """

    trusted = True  # who names a folder on the command line vouches for it; see docs/adr

    def __init__(self, root: Path) -> None:
        self.url = str(root)
        self._store = Store(root)

    def resolve(self, ref: Ref) -> Descriptor:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        return self._store.refs.get(ref).descriptor

    def refs(self) -> list[Ref]:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        return [entry.ref for entry in self._store.refs.all()]

    def open(self, descriptor: Descriptor, offset: int = 0) -> Iterator[bytes]:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        path = self._store.blobs.path(descriptor.digest)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                while piece := file.read(_PIECE):
                    yield piece
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise NotFoundError(
                    f"{self.url} lists blob {descriptor.digest} and does not have it",
                    hint="that store is incomplete: run 'wszoo verify' on it",
                ) from error
            raise RemoteError(f"cannot read {path}: {error.strerror}") from error


class DirectoryType:
    """Opens folders."""

    name = "directory"
    schemes: tuple[str, ...] = ("", "file")

    def open(self, location: str) -> Remote:
        """See :class:`wszoo.remotes.protocol.RemoteType`."""
        root = Path(location.removeprefix("file://"))
        if not (root / "oci-layout").is_file():
            raise NotFoundError(
                f"{location!r} is not a store: it has no file 'oci-layout'",
                hint="name the folder that 'wszoo build --store DIR' wrote, or an OCI image layout",
            )
        return DirectoryRemote(root)


@hookimpl
def wszoo_remotes() -> Sequence[RemoteType]:
    """Provide the folder remote."""
    return [DirectoryType()]
