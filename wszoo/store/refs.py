"""Refs: the only mutable part of a store, changed by compare-and-swap without locks.

Each update of a ref is a folder ``refs/<key>/<generation>/`` with one file in it, made elsewhere and renamed here.
Renaming a folder onto one that exists and is not empty fails on every file system, so of two writers that read
generation 7, one makes generation 8 and the other is told. The highest generation counts. A deleted ref is a generation
without a descriptor.

``<key>`` is a hash of the ref, since tags that differ only in case are one file name on NTFS, and ``con`` is none.

``index.json`` is derived. Who has renamed it into place looks at the refs once more and writes it again if they have
changed since; whoever comes last therefore sees every ref that was written before, so the last content is complete.
A layout that another tool wrote has no ``refs/``: then ``index.json`` is read instead, and adopted at the first write.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from wszoo.digest import Digest
from wszoo.errors import MalformedError, NotFoundError, WszooError
from wszoo.names import Ref
from wszoo.schema.decode import MAX_DOCUMENT, MAX_MANIFEST, decode, encode
from wszoo.schema.oci import REF_NAME, Descriptor, Index
from wszoo.store.files import storage_errors, sync_folder, unique_name, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.store.layout import StoreLayout

_RECORD = "record.json"


class RefRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One generation of a ref.

    Attributes:
        ref: ``name:tag``.
        descriptor: of the index; None when the ref was deleted.
        held: digests of the plan manifests whose blobs are here; None when all are, as after a build.
    """

    ref: str
    descriptor: Descriptor | None = None
    held: tuple[Digest, ...] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A ref as it was read.

    Attributes:
        ref: without a pin.
        descriptor: of the index.
        held: see :class:`RefRecord`.
        generation: what :meth:`Refs.swap` compares.
    """

    ref: Ref
    descriptor: Descriptor
    held: tuple[Digest, ...] | None
    generation: int


class Refs:
    """The refs of one store."""

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout

    def find(self, ref: Ref) -> Entry | None:
        """The ref's entry, or None when there is none, it was deleted, or it has another digest than the pin."""
        if self._layout.refs.is_dir():
            entry = _entry(*self._latest(self._folder(ref)))
        else:
            entry = next((entry for entry in self._from_index() if entry.ref.tagged == ref.tagged), None)
        if entry is not None and ref.digest not in {None, entry.descriptor.digest}:
            return None
        return entry

    def get(self, ref: Ref) -> Entry:
        """The ref's entry.

        Raises:
            NotFoundError: there is none; the hint lists the tags that the name has.
        """
        entry = self.find(ref)
        if entry is None:
            known = [str(other.ref) for other in self.all() if other.ref.name == ref.name]
            hint = f"there is: {', '.join(known)}" if known else "see 'wszoo list', or name a source with --from"
            raise NotFoundError(f"no {ref} in {self._layout.root}", hint=hint)
        return entry

    def all(self) -> list[Entry]:
        """Every ref, sorted by name and tag."""
        if self._layout.refs.is_dir():
            found = [_entry(*self._latest(folder)) for folder in self._layout.refs.iterdir()]
            entries = [entry for entry in found if entry is not None]
        else:
            entries = self._from_index()
        return sorted(entries, key=lambda entry: entry.ref.tagged)

    def swap(
        self, ref: Ref, descriptor: Descriptor | None, *, held: tuple[Digest, ...] | None, expected: Entry | None
    ) -> bool:
        """Point a ref at another index, unless someone else changed it first.

        Args:
            ref: which; a pin is ignored.
            descriptor: of the new index; None deletes the ref.
            held: see :class:`RefRecord`.
            expected: what :meth:`find` returned before; None when there was nothing.

        Returns:
            False when the ref is no longer as expected: read it again.

        Raises:
            StorageError: the file system refuses.
        """
        self._layout.create()
        with storage_errors("update a ref in"):
            self._adopt()
            folder = self._folder(ref)
            folder.mkdir(parents=True, exist_ok=True)
            record, generation = self._latest(folder)
            now = None if record is None or record.descriptor is None else record.descriptor.digest
            if now != (expected.descriptor.digest if expected else None):
                return False
            if expected is not None and expected.generation not in {generation, 0}:
                return False
            update = RefRecord(ref=ref.tagged, descriptor=descriptor, held=held)
            if not self._claim(folder / f"{generation + 1:08d}", update):
                return False
            self._prune(folder, generation)
            self._write_index()
        return True

    def _folder(self, ref: Ref) -> Path:
        return self._layout.refs / hashlib.sha256(ref.tagged.encode()).hexdigest()[:32]

    def _claim(self, generation: Path, record: RefRecord) -> bool:
        temporary = self._layout.tmp / unique_name()
        temporary.mkdir()
        try:
            write_atomic(temporary / _RECORD, encode(record), self._layout.tmp)
            os.rename(temporary, generation)
        except OSError:
            if generation.exists():
                return False
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(generation.parent)
        return True

    def _latest(self, folder: Path) -> tuple[RefRecord | None, int]:
        for _ in range(100):  # a writer may prune what was just listed
            with suppress(FileNotFoundError):
                generations = sorted((name for name in os.listdir(folder) if name.isdigit()), key=int)
                if not generations:
                    return None, 0
                data = (folder / generations[-1] / _RECORD).read_bytes()
                return decode(data, RefRecord, what=f"ref {folder / generations[-1]}"), int(generations[-1])
            if not folder.exists():
                return None, 0
        raise NotFoundError(f"the ref in {folder} changes faster than it can be read")

    @staticmethod
    def _prune(folder: Path, current: int) -> None:
        """Drop generations before the last but one; that one may be being read."""
        for name in os.listdir(folder):
            if name.isdigit() and int(name) < current:
                shutil.rmtree(folder / name, ignore_errors=True)

    def _from_index(self) -> list[Entry]:
        try:
            data = self._layout.index.read_bytes()
        except FileNotFoundError:
            return []
        index = decode(data, Index, what=str(self._layout.index), limit=MAX_DOCUMENT)
        entries = []
        for descriptor in index.manifests:
            # Other tools may keep anything here under any name; what is no ref of ours is not ours to judge.
            with suppress(WszooError):
                ref = Ref.parse(descriptor.annotations.get(REF_NAME, ""))
                entries.append(Entry(ref, descriptor, None, 0))
        return entries

    def _adopt(self) -> None:
        """Turn another tool's ``index.json`` into refs, all at once."""
        if self._layout.refs.is_dir():
            return
        temporary = self._layout.tmp / unique_name()
        temporary.mkdir()
        for entry in self._from_index():
            record = RefRecord(ref=entry.ref.tagged, descriptor=entry.descriptor)
            place = temporary / self._folder(entry.ref).name / f"{1:08d}"
            place.mkdir(parents=True)
            write_atomic(place / _RECORD, encode(record), self._layout.tmp)
        try:
            os.rename(temporary, self._layout.refs)
        except OSError:
            if not self._layout.refs.is_dir():  # else another process was first, with the same content
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _write_index(self) -> None:
        written = None
        while (data := self._index()) != written:
            write_atomic(self._layout.index, data, self._layout.tmp)
            written = data

    def _index(self) -> bytes:
        manifests = (
            msgspec.structs.replace(
                entry.descriptor, annotations={**entry.descriptor.annotations, REF_NAME: entry.ref.tagged}
            )
            for entry in self.all()
        )
        return encode(Index(manifests=tuple(manifests)))


def _entry(record: RefRecord | None, generation: int) -> Entry | None:
    if record is None or record.descriptor is None:
        return None
    if record.descriptor.size > MAX_MANIFEST:
        raise MalformedError(f"the index of {record.ref} claims {record.descriptor.size} bytes")
    return Entry(Ref.parse(record.ref), record.descriptor, record.held, generation)
