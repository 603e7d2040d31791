"""A folder that appears whole or not at all.

It is written under another name beside the place where it will stand, every file hashed and synced, and then renamed.
A crash leaves that place as it was, and perhaps a ``.wszoo-export-*`` folder beside it, which may be deleted.

The card ``wszoo-export.json`` lists every file with its digest. It is also what marks a folder as one that an export
wrote and may replace: one with files that the card does not list holds somebody's work, and is left alone.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from wszoo.digest import CHUNK, Digest
from wszoo.errors import MalformedError, StorageError, UsageError
from wszoo.names import is_portable_file_name
from wszoo.schema.decode import MAX_DOCUMENT, decode
from wszoo.schema.oci import Size
from wszoo.store.blobs import BlobWriter
from wszoo.store.files import check_room, rename_new, replace, storage_errors, sync_folder, unique_name
from wszoo.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

MARKER = "wszoo-export.json"
_PREFIX = ".wszoo-export-"
_SHOWN = 3
_WRITE = "write the export to"


class WrittenFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an export."""

    size: Size
    digest: Digest


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What an export wrote, and from what: the content of ``wszoo-export.json``.

    Attributes:
        wszoo: version of the tool.
        format: of the export.
        ref: ``name:tag``.
        index_digest: what it pointed to.
        components: those exported.
        targets: of the plans that were written.
        notes: what the reader should know about this export.
        files: by path with ``/``; the card itself is not among them.
    """

    wszoo: str
    format: str
    ref: str
    index_digest: Digest
    components: tuple[str, ...]
    targets: tuple[str, ...]
    notes: tuple[str, ...]
    files: dict[str, WrittenFile]


class OutFile(BlobWriter):
    """A file being written; see :meth:`ExportFolder.open`."""

    def write(self, data: Buffer) -> None:
        """Append; hashed as it goes.

        Raises:
            StorageError: the file system refuses.
        """
        with _refusals(self._what):
            super().write(data)

    def align(self, alignment: int) -> int:
        """Append zeros up to a multiple of ``alignment``; the position after them."""
        self.write(bytes(-self.size % alignment))
        return self.size

    def written(self) -> WrittenFile:
        """What was written so far."""
        return WrittenFile(size=self.size, digest=self.digest())


class ExportFolder:
    """The folder while it is being written, under its temporary name.

    Args:
        root: an empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, WrittenFile] = {}

    def path(self, name: str) -> Path:
        """Where a file is written; its name has ``/`` between its parts.

        Raises:
            MalformedError: a part is no safe file name on every system: names come from who published the model.
        """
        parts = name.split("/")
        if not all(is_portable_file_name(part) for part in parts):
            raise MalformedError(f"{printable(name)!r} cannot be a file name on every system")
        return self.root.joinpath(*parts)

    @contextmanager
    def open(self, name: str) -> Iterator[OutFile]:
        """Write a file piece by piece.

        Raises:
            MalformedError: not a safe name, or one that differs from another file's by case only.
            StorageError: the file system refuses.
        """
        path = self.path(name)
        taken = {known.casefold(): known for known in (*self.files, *([MARKER] if name != MARKER else []))}
        if name.casefold() in taken:
            raise MalformedError(f"{printable(name)!r} and {printable(taken[name.casefold()])!r} would be one file")
        with _refusals("make the export's file"):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        try:
            out = OutFile(file, _WRITE)
            yield out
            with _refusals(_WRITE):
                file.flush()
                os.fsync(file.fileno())
                file.close()
        finally:
            with suppress(OSError):
                file.close()
        self.files[name] = out.written()

    def write(self, name: str, data: bytes) -> None:
        """Write a small file. Errors as for :meth:`open`."""
        with self.open(name) as out:
            out.write(data)

    def copy(self, source: Path, name: str, expected: Digest, advance: Callable[[int], None]) -> None:
        """Copy a file, and check that what was copied has the right bytes.

        Raises:
            IntegrityError: it has not.
            StorageError: the file system refuses.
        """
        with self.open(name) as out, _refusals("read"), source.open("rb") as file:
            while data := file.read(CHUNK):
                out.write(data)
                advance(len(data))
        expected.check(self.files[name].digest, str(source))

    def move(self, name: str, new: str) -> None:
        """Give a written file another name; when that is taken by equal bytes, there is one of it then.

        Raises:
            StorageError: the file system refuses.
        """
        target, written = self.path(new), self.files.pop(name)
        with _refusals("move the export's file"):
            if self.files.get(new) == written:
                self.path(name).unlink()
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                replace(self.path(name), target)
            with suppress(OSError):  # other files are in it
                self.path(name).parent.rmdir()
        self.files[new] = written


@contextmanager
def export_folder(target: Path, *, force: bool, needed: int) -> Iterator[ExportFolder]:
    """Write a folder under a temporary name; it stands at ``target`` when the block ends, and not at all if it raises.

    Args:
        target: does not exist, or is empty; with ``force`` also a folder that an export wrote.
        force: replace such a folder.
        needed: bytes that will be written, about.

    Raises:
        UsageError: something else is there.
        StorageError: there is too little space, or the file system refuses.
    """
    target = target.resolve()
    _check_target(target, force=force)
    with _refusals("find room for the export in"):
        check_room(target.parent, needed, "write the export")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f"{_PREFIX}{unique_name()}"
        temporary.mkdir()
    try:
        yield ExportFolder(temporary)
        _check_target(target, force=force)  # minutes may have passed
        with _refusals("put the export in its place"):
            for folder in (temporary, *(path for path in temporary.rglob("*") if path.is_dir())):
                sync_folder(folder)
            _put_in_place(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, target: Path) -> None:
    aside = target.parent / f"{_PREFIX}{unique_name()}"
    there = target.exists() and rename_new(target, aside)
    if not rename_new(temporary, target):
        if there:
            rename_new(aside, target)
        raise StorageError(f"another program wrote to {target} meanwhile", hint="export to another folder")
    sync_folder(target.parent)
    if there:
        shutil.rmtree(aside, ignore_errors=True)


def _check_target(target: Path, *, force: bool) -> None:
    if not target.name:
        raise UsageError(f"{target} cannot be replaced by an export", hint="name a folder in it")
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError(f"{target} is a file, not a folder", hint="name another place with -o")
    with _refusals("look at"):
        there = {
            PurePosixPath(path.relative_to(target)).as_posix()
            for path in target.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }
        empty = not any(target.iterdir())
    if empty:
        return
    if not force:
        raise UsageError(
            f"{target} is not empty", hint="name another folder with -o, or replace a former export with --force"
        )
    strange = sorted(there - _exported(target))
    if strange:
        shown = ", ".join(map(printable, strange[:_SHOWN])) + (", ..." if len(strange) > _SHOWN else "")
        raise UsageError(f"{target} holds files that no export wrote: {shown}", hint="move them away first")


def _exported(target: Path) -> set[str]:
    """The files that a former export left, by its card.

    Raises:
        UsageError: there is no card.
    """
    try:
        with (target / MARKER).open("rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
        return {MARKER, *decode(data, Card, what=f"{target / MARKER}").files}
    except (OSError, MalformedError) as error:
        raise UsageError(
            f"{target} is not empty, and was not written by an export: it has no readable {MARKER}",
            hint="name another folder with -o",
        ) from error


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """As :func:`wszoo.store.files.storage_errors`, with advice about the folder and not about the store."""
    try:
        with storage_errors(what):
            yield
    except StorageError as error:
        hint = "check its permissions and the free space, or name another folder with -o"
        raise StorageError(error.message, hint=hint) from error
