"""Refs: the only mutable part of a store, changed by compare-and-swap without locks.

Each update of a ref is a folder ``refs/<key>/<generation>/`` with one file in it, made elsewhere and renamed here.
Renaming a folder onto one that exists and is not empty fails on every file system, so of two writers that read
generation 7, one makes generation 8 and the other is told. The highest generation counts, and old ones are pruned: a
slow writer may make generation 8 when 9 and 10 have come and 8 has gone, so who finds a higher one than its own is told
too. A deleted ref is a generation without a descriptor.

``<key>`` is a hash of the ref, since tags that differ only in case are one file name on NTFS, and ``con`` is none.

``index.json`` is derived. Who has renamed it into place looks at the refs once more and writes it again if they have
changed since; whoever comes last therefore sees every ref that was written before, so the last content is complete.
A layout that another tool wrote has no ``refs/``: then ``index.json`` is read instead, and adopted at the first write,
unless it lists anything that is no ref of ours, which ``index.json`` would lose and gc would delete.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from wszoo.digest import Digest
from wszoo.errors import LimitError, MalformedError, NotFoundError, UsageError, WszooError
from wszoo.names import Ref
from wszoo.schema.decode import MAX_DOCUMENT, MAX_MANIFEST, decode, encode
from wszoo.schema.oci import INDEX, REF_NAME, Descriptor, Index, held_in, with_held
from wszoo.store.files import read_regular, rename_new, storage_errors, sync_folder, unique_name, write_atomic
from wszoo.text import nearest

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.store.layout import StoreLayout

_RECORD = "record.json"
_ELSEWHERE = "see 'wszoo list', or name a source with --from"
_KEY = re.compile(r"[0-9a-f]{32}")
_GENERATION = re.compile(r"[0-9]{8,18}")
_ATTEMPTS = 10  # renames of index.json that may seem to have failed


class RefRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One generation of a ref.

    Attributes:
        ref: ``name:tag``.
        descriptor: of the index; None when the ref was deleted.
        held: digests of the plan manifests whose blobs are here; None when all are, as after a build.
        source: where it was pulled from, for who mends it; absent when it was built here, as it is in records that
            were written before there was such a field.
    """

    ref: str
    descriptor: Descriptor | None = None
    held: tuple[Digest, ...] | None = None
    source: str | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Entry:
    """A ref as it was read.

    Attributes:
        ref: without a pin.
        descriptor: of the index.
        held: see :class:`RefRecord`.
        generation: what :meth:`Refs.swap` compares.
        source: see :class:`RefRecord`; empty when it was built here.
    """

    ref: Ref
    descriptor: Descriptor
    held: tuple[Digest, ...] | None
    generation: int
    source: str = ""


class Refs:
    """The refs of one store."""

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout
        # Folder's name -> its newest record that was read, and what tells that file from another of that name.
        self._known: dict[str, tuple[tuple[int, int, int], RefRecord]] = {}

    def find(self, ref: Ref) -> Entry | None:
        """The ref's entry, or None when there is none, it was deleted, or it has another digest than the pin."""
        with storage_errors("read a ref of"):
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
            others = [other.ref for other in self.survey()[0] if not other.ref.is_referrers]
            if tags := [str(other) for other in others if other.name == ref.name]:
                hint = f"there is: {', '.join(tags)}"
            else:
                hint = nearest(ref.name, {other.name for other in others}) or _ELSEWHERE
            raise NotFoundError(f"no {ref} in {self._layout.root}", hint=hint)
        return entry

    def all(self) -> list[Entry]:
        """Every ref, sorted by name and tag.

        Raises:
            IntegrityError: one of them is damaged.
        """
        entries, damage = self.survey()
        if damage:
            raise damage[0]
        return entries

    def survey(self) -> tuple[list[Entry], list[WszooError]]:
        """Every ref that can be read, sorted by name and tag, and what is wrong with the others."""
        entries: list[Entry] = []
        damage: list[WszooError] = []
        with storage_errors("read the refs of"):
            if self._layout.refs.is_dir():
                # Systems leave files of their own in any folder: desktop.ini, .DS_Store.
                for folder in filter(lambda path: _KEY.fullmatch(path.name), self._layout.refs.iterdir()):
                    try:
                        entry = _entry(*self._latest(folder))
                    except WszooError as error:
                        damage.append(error)
                    else:
                        entries += [entry] if entry else []
            else:
                try:
                    entries = self._from_index()
                except WszooError as error:
                    damage.append(error)
        return sorted(entries, key=lambda entry: entry.ref.tagged), damage

    def check_ours(self) -> None:
        """Raise where another tool's ``index.json`` lists something that is no ref of ours.

        Raises:
            UsageError: it does; nothing here may be rewritten or deleted.
        """
        if self._layout.refs.is_dir() or (listed := self._read_index()) is None:
            return
        foreign = [each for each in listed.manifests if _foreign(each)]
        if foreign:
            name = foreign[0].annotations.get(REF_NAME, "")
            raise UsageError(
                f"{self._layout.root} holds what another tool keeps there: {name!r}, {foreign[0].digest}",
                hint="use a folder of its own with --store or WSZOO_STORE; pulling from this one with --from works",
            )

    def swap(
        self,
        ref: Ref,
        descriptor: Descriptor | None,
        *,
        held: tuple[Digest, ...] | None,
        expected: Entry | None,
        source: str = "",
    ) -> bool:
        """Point a ref at another index, unless someone else changed it first.

        Args:
            ref: which; a pin is ignored.
            descriptor: of the new index; None deletes the ref.
            held: see :class:`RefRecord`.
            expected: what :meth:`find` returned before; None when there was nothing.
            source: see :class:`RefRecord`; empty when it was built here.

        Returns:
            True when the ref is now what was asked for. False when it is not, or when others have changed it since:
            read it again.

        Raises:
            StorageError: the file system refuses.
            LimitError: the index is larger than any reader accepts.
            UsageError: the folder is another tool's, see :meth:`check_ours`.
        """
        if descriptor is not None and descriptor.size > MAX_MANIFEST:
            raise LimitError(
                f"the index of {ref.tagged} has {descriptor.size} bytes, over the {MAX_MANIFEST} that readers accept",
                hint="spread its plans over several tags",
            )
        self._layout.create()
        with storage_errors("update a ref in", self._layout.refs):
            self._adopt()
            folder = self._folder(ref)
            folder.mkdir(parents=True, exist_ok=True)
            record, generation = self._latest(folder)
            if not generation:
                sync_folder(self._layout.refs)  # the ref's folder is new
            now = None if record is None or record.descriptor is None else record.descriptor.digest
            if now != (expected.descriptor.digest if expected else None):
                return False
            if expected is not None and expected.generation not in {generation, 0}:
                return False
            update = RefRecord(ref=ref.tagged, descriptor=descriptor, held=held, source=source or msgspec.UNSET)
            if not self._claim(folder / f"{generation + 1:08d}", update):
                return False
            last = _generations(folder)[-1:] == [generation + 1]
            if last:
                self._prune(folder, generation)
            self._write_index()
        return last

    def _folder(self, ref: Ref) -> Path:
        return self._layout.refs / hashlib.sha256(ref.tagged.encode()).hexdigest()[:32]

    def _claim(self, generation: Path, record: RefRecord) -> bool:
        temporary = self._layout.tmp / unique_name()
        temporary.mkdir()
        try:
            write_atomic(temporary / _RECORD, encode(record), self._layout.tmp)
            if not rename_new(temporary, generation):
                return False
        except FileNotFoundError:  # a gc without grace has taken it for litter
            return False
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(generation.parent)
        return True

    def _latest(self, folder: Path) -> tuple[RefRecord | None, int]:
        for _ in range(100):  # a writer may prune what was just listed
            with suppress(FileNotFoundError):
                generations = _generations(folder)
                if not generations:
                    return None, 0
                return self._record(folder, generations[-1]), generations[-1]
            if not folder.exists():
                return None, 0
        raise NotFoundError(f"the ref in {folder} changes faster than it can be read")

    def _record(self, folder: Path, generation: int) -> RefRecord:
        """A generation's record. It never changes, and every writer reads all refs twice to write ``index.json``."""
        path = folder / f"{generation:08d}"
        status = (path / _RECORD).lstat()
        # Who deletes a damaged ref by hand and pulls again starts from generation 1 anew.
        state = (generation, status.st_mtime_ns, status.st_ino)
        known = self._known.get(folder.name)
        if known is None or known[0] != state:
            known = self._known[folder.name] = state, _read_record(path)
        return known[1]

    @staticmethod
    def _prune(folder: Path, current: int) -> None:
        """Drop generations before the last but one; that one may be being read."""
        for generation in _generations(folder):
            if generation < current:
                shutil.rmtree(folder / f"{generation:08d}", ignore_errors=True)

    def _read_index(self) -> Index | None:
        try:
            data = read_regular(self._layout.index, MAX_DOCUMENT)
        except FileNotFoundError:
            return None
        return decode(data, Index, what=str(self._layout.index), limit=MAX_DOCUMENT)

    def _from_index(self) -> list[Entry]:
        index = self._read_index()
        # Other tools may keep anything here under any name; what is no ref of ours is not ours to judge.
        ours = [each for each in index.manifests if not _foreign(each)] if index else []
        return [Entry(Ref.parse(each.annotations[REF_NAME]).unpinned, each, held_in(each), 0) for each in ours]

    def _adopt(self) -> None:
        """Turn another tool's ``index.json`` into refs, all at once."""
        if self._layout.refs.is_dir():
            return
        self.check_ours()
        temporary = self._layout.tmp / unique_name()
        temporary.mkdir()
        for entry in {entry.ref.tagged: entry for entry in reversed(self._from_index())}.values():  # the first wins
            record = RefRecord(ref=entry.ref.tagged, descriptor=entry.descriptor, held=entry.held)
            place = temporary / self._folder(entry.ref).name / f"{1:08d}"
            place.mkdir(parents=True)
            write_atomic(place / _RECORD, encode(record), self._layout.tmp)
            sync_folder(place.parent)
        sync_folder(temporary)
        try:
            rename_new(temporary, self._layout.refs)  # if another process was first, it had the same content
            sync_folder(self._layout.private)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _write_index(self) -> None:
        written, failed = None, 0
        while (data := self._index()) != written:
            try:
                write_atomic(self._layout.index, data, self._layout.tmp)
                written = data
            except FileNotFoundError:
                # Over NFS, when the answer to a rename is lost and another host has written since: write_atomic() then
                # finds neither its file nor its content, and cannot know that it was its own rename.
                failed += 1
                if failed == _ATTEMPTS:
                    raise

    def _index(self) -> bytes:
        return encode(Index(manifests=tuple(_published(entry) for entry in self.survey()[0])))


def _generations(folder: Path) -> list[int]:
    return sorted(int(name) for name in os.listdir(folder) if _GENERATION.fullmatch(name))


def _read_record(generation: Path) -> RefRecord:
    try:
        return decode(read_regular(generation / _RECORD, MAX_DOCUMENT), RefRecord, what=f"ref {generation}")
    except WszooError as error:
        raise MalformedError(error.message, hint=f"delete {generation.parent}, then pull or build again") from error


def _published(entry: Entry) -> Descriptor:
    """How ``index.json`` tells a ref to those who pull from here."""
    described = with_held(entry.descriptor, entry.held)
    return msgspec.structs.replace(described, annotations={**described.annotations, REF_NAME: entry.ref.tagged})


def _foreign(descriptor: Descriptor) -> bool:
    try:
        Ref.parse(descriptor.annotations.get(REF_NAME, ""))
    except WszooError:
        return True
    return descriptor.media_type != INDEX


def _entry(record: RefRecord | None, generation: int) -> Entry | None:
    if record is None or record.descriptor is None:
        return None
    if record.descriptor.size > MAX_MANIFEST:
        raise MalformedError(f"the index of {record.ref} claims {record.descriptor.size} bytes")
    return Entry(Ref.parse(record.ref), record.descriptor, record.held, generation, record.source or "")
