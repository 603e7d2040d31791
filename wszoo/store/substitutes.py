"""Packs that are not here as a whole, because most of their tensors were: where each of their tensors stands instead.

``wszoo/tensors/<hex>.json`` is named after the pack that it replaces, and complete: a reader that misses the pack finds
every tensor of it there, in packs of other models or in local packs, which hold what was fetched of it. Every tensor
was hashed before the file was written. gc keeps the blobs that it names as long as a ref needs the pack.

``wszoo/tensors/<hex>.made`` tells other processes which local pack a fetch of ranges gave; it may be deleted any time.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from wszoo.digest import Digest
from wszoo.errors import MalformedError
from wszoo.schema.decode import MAX_DOCUMENT, decode, encode
from wszoo.store.files import read_regular, storage_errors, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wszoo.store.blobs import Blobs
    from wszoo.store.layout import StoreLayout


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A frame and the blob that it is in; else as :class:`wszoo.schema.model.Frame`."""

    blob: Digest
    offset: int
    stored: int
    raw: int
    codec: str


class Substitute(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in for a pack.

    Attributes:
        pack: which.
        tensors: every tensor with a frame in the pack -> all of its frames, in order.
    """

    pack: Digest
    tensors: dict[Digest, tuple[Place, ...]]

    def blobs(self) -> set[Digest]:
        """The blobs that hold the tensors."""
        return {place.blob for places in self.tensors.values() for place in places}


def table_path(layout: StoreLayout, pack: Digest) -> Path:
    """Where the table for a pack is, or would be."""
    return layout.tensors / f"{pack.hex}.json"


def read_substitute(layout: StoreLayout, pack: Digest) -> Substitute | None:
    """What stands in for a pack; None when nothing does.

    Raises:
        MalformedError: the file is damaged.
    """
    path = table_path(layout, pack)
    try:
        data = read_regular(path, MAX_DOCUMENT)
    except OSError:
        return None
    try:
        return decode(data, Substitute, what=str(path), limit=MAX_DOCUMENT)
    except MalformedError as error:
        raise MalformedError(error.message, hint=f"delete {path} and pull the model again") from error


def write_substitute(layout: StoreLayout, substitute: Substitute) -> None:
    """Let something stand in for a pack from now on.

    Raises:
        StorageError: the file system refuses.
    """
    layout.create()
    with storage_errors("note where tensors are in"):
        write_atomic(table_path(layout, substitute.pack), encode(substitute), layout.tmp)


def hold_substitute(layout: StoreLayout, blobs: Blobs, pack: Digest) -> bool:
    """True when all that stands in for a pack is here; its age starts anew."""
    try:
        found = read_substitute(layout, pack)
    except MalformedError:
        return False
    if found is None or not all(blobs.hold(each) for each in found.blobs()):
        return False
    with suppress(OSError):
        os.utime(table_path(layout, pack))
    return True


def note_made(layout: StoreLayout, key: Digest, blob: Digest) -> None:
    """Tell which blob a fetch gave.

    Raises:
        StorageError: the file system refuses.
    """
    with storage_errors("note a local pack in"):
        write_atomic(layout.tensors / f"{key.hex}.made", blob.encode("ascii"), layout.tmp)


def made(layout: StoreLayout, key: Digest) -> Digest | None:
    """Which blob a fetch gave; None when it has not been done."""
    with suppress(OSError, UnicodeDecodeError, MalformedError):
        return Digest((layout.tensors / f"{key.hex}.made").read_text(encoding="utf-8"))
    return None


def replaced(layout: StoreLayout, blobs: Blobs, wanted: Iterable[Digest]) -> Iterator[Substitute]:
    """What stands in for those of the blobs that are not here as a whole.

    Raises:
        MalformedError: a table is damaged.
    """
    for name in _names(layout, wanted):
        if blobs.size(name) is None and (found := read_substitute(layout, name)) is not None:
            yield found


def clean_substitutes(layout: StoreLayout, keep: set[Digest], limit: float, *, dry_run: bool) -> int:
    """Delete tables but those for the packs in ``keep``, and old notes; the bytes that go.

    Args:
        layout: of the store.
        keep: packs that refs need and that are not here as a whole.
        limit: file system time in seconds; what is younger stays.
        dry_run: only count.
    """
    freed = 0
    for path in layout.tensors.iterdir() if layout.tensors.is_dir() else ():
        with suppress(OSError):
            status = path.stat()
            if status.st_mtime >= limit or (path.suffix == ".json" and f"sha256:{path.stem}" in keep):
                continue
            freed += status.st_size
            if not dry_run:
                path.unlink()
    return freed


def all_substitutes(layout: StoreLayout) -> Iterator[Substitute]:
    """Every table that can be read."""
    for path in sorted(layout.tensors.glob("*.json")) if layout.tensors.is_dir() else ():
        with suppress(MalformedError):
            if (found := read_substitute(layout, Digest(f"sha256:{path.stem}"))) is not None:
                yield found


def _names(layout: StoreLayout, wanted: Iterable[Digest]) -> list[Digest]:
    if not layout.tensors.is_dir():
        return []
    tables: set[Path] = {path for path in layout.tensors.iterdir() if path.suffix == ".json"}
    stems = {path.stem for path in tables}
    return [digest for digest in wanted if digest.hex in stems]
