"""A remote that is a folder: another store, or any OCI image layout."""

from __future__ import annotations

import errno
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from wszoo.errors import MalformedError, NotFoundError, RemoteError
from wszoo.hookspecs import hookimpl
from wszoo.schema.oci import with_held
from wszoo.store.files import open_regular
from wszoo.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wszoo.digest import Digest
    from wszoo.names import Ref
    from wszoo.remotes.protocol import Remote, RemoteType
    from wszoo.schema.oci import Descriptor

_PIECE = 4 << 20


class DirectoryRemote:
    """One folder. Reading changes nothing in it; pushing makes it a store, with everything that a store promises.

    Args:
        root: the folder that holds ``oci-layout``, or an empty one to push to.
    """

    trusted = True  # who names a folder on the command line vouches for it; see docs/adr

    def __init__(self, root: Path) -> None:
        self.url = str(root)
        self._store = Store(root)
        self._pushing = ExitStack()
        self._leased = False
        self._lock = threading.Lock()

    def resolve(self, ref: Ref) -> Descriptor:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        entry = self._store.refs.get(ref)
        return with_held(entry.descriptor, entry.held)

    def refs(self) -> list[Ref]:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        return [entry.ref for entry in self._store.refs.all() if not entry.ref.is_referrers]

    def open(self, descriptor: Descriptor, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        path, left = self._store.blobs.path(descriptor.digest), length
        try:
            with open_regular(path) as file:
                file.seek(offset)
                while piece := file.read(_PIECE if left is None else min(left, _PIECE)):
                    left = None if left is None else left - len(piece)
                    yield piece
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise NotFoundError(
                    f"{self.url} lists blob {descriptor.digest} and does not have it",
                    hint="that store is incomplete: run 'wszoo verify' on it",
                ) from error
            raise RemoteError(f"cannot read {path}: {error.strerror}") from error
        except MalformedError as error:
            raise RemoteError(f"cannot read {error.message}", permanent=True) from error

    def missing(self, ref: Ref, descriptors: Sequence[Descriptor]) -> list[Descriptor]:  # noqa: ARG002 - one for all refs
        """See :class:`wszoo.remotes.protocol.WritableRemote`. What is there starts its age anew."""
        blobs = self._store.blobs
        return [each for each in descriptors if not blobs.hold(each.digest) or blobs.size(each.digest) != each.size]

    def put(self, ref: Ref, descriptor: Descriptor, path: Path) -> None:  # noqa: ARG002
        """See :class:`wszoo.remotes.protocol.WritableRemote`. Until the tag a gc over there keeps away."""
        with self._lock:
            if not self._leased:
                self._pushing.enter_context(self._store.lease())
                self._leased = True
        with self._store.blobs.writer(descriptor.digest) as writer, path.open("rb") as file:
            while piece := file.read(_PIECE):
                writer.write(piece)

    def tag(self, ref: Ref, index: Descriptor, data: bytes, expected: Digest | None) -> bool:
        """See :class:`wszoo.remotes.protocol.WritableRemote`. A true compare-and-swap."""
        with self._pushing, self._lock:
            self._leased = False
            entry = self._store.refs.find(ref.unpinned)
            if (entry.descriptor.digest if entry else None) != expected:
                return False
            self._store.blobs.put(data)
            return self._store.refs.swap(ref, index, held=None, expected=entry)


class DirectoryType:
    """Opens folders."""

    name = "directory"
    schemes: tuple[str, ...] = ("", "file")

    def open(self, location: str) -> Remote:
        """See :class:`wszoo.remotes.protocol.RemoteType`."""
        root = Path(location.removeprefix("file://"))
        if not root.exists():
            raise NotFoundError(
                f"{location!r} is not a store: there is no such folder",
                hint="give a folder's path, a URL, or a name that 'wszoo remote list' shows",
            )
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
