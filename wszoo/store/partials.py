"""Blobs that are not whole yet: files of one owner each, which a later pull continues.

::

    wszoo/partials/
      <owner>.alive           see presence.py
      <key>.claim             who fetches the blob now; only saves work
      <key>.<owner>/data      its bytes so far, at their places
      <key>.<owner>/done      first line: size and segment size in bytes; then the number of each segment that is whole

``<key>`` is the blob's digest in hexadecimal. Only the owner writes into its folder. Who continues a dead one's work
renames the folder, if the owner is certain never to write again, and otherwise copies the whole segments. Nothing here
is synced: after a crash of the machine a segment that is noted and not on the disk is found by the blob's digest.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.store.files import create_new, replace, storage_errors, unique_name
from wszoo.store.presence import State, state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wszoo.digest import Digest
    from wszoo.store.layout import StoreLayout

_FOLDER = re.compile(r"(?P<key>[0-9a-f]{64})\.(?P<owner>[0-9]+-[0-9a-f]{32})")
_COPY = 4 << 20


@dataclass(frozen=True, slots=True)
class Partial:
    """One owner's part of a blob.

    Attributes:
        folder: holds ``data`` and ``done``.
        size: bytes of the whole blob.
        segment: bytes a segment; the last may be shorter.
    """

    folder: Path
    size: int
    segment: int

    @property
    def data(self) -> Path:
        """The file that becomes the blob."""
        return self.folder / "data"

    def done(self) -> set[int]:
        """The segments that are whole; none if they were cut otherwise than ours."""
        try:
            header, *lines = (self.folder / "done").read_text(encoding="utf-8").split("\n")
        except (OSError, ValueError):
            return set()
        if header != f"{self.size} {self.segment}":
            return set()
        # What stands behind the last newline was being written when its owner died.
        found = {int(line) for line in lines[:-1] if line.isdecimal()}
        return {number for number in found if number * self.segment < self.size}

    def note(self, number: int) -> None:
        """Record that a segment is whole.

        Raises:
            StorageError: the file system refuses.
        """
        with (
            storage_errors("note a segment in"),
            (self.folder / "done").open("a", encoding="utf-8", newline="\n") as file,
        ):
            file.write(f"{number}\n")

    def start(self) -> None:
        """Make the files, or make them anew without any segment.

        Raises:
            StorageError: the file system refuses.
        """
        with storage_errors("start a blob in"):
            self.folder.mkdir(exist_ok=True)
            with (self.folder / "done").open("w", encoding="utf-8", newline="\n") as file:
                file.write(f"{self.size} {self.segment}\n")
            with self.data.open("wb") as file:
                file.truncate(self.size)

    def drop(self) -> None:
        """Delete all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Partials:
    """The unfinished blobs of a store, seen by one owner.

    Args:
        layout: of the store.
        owner: from :func:`wszoo.store.presence.present`.
    """

    def __init__(self, layout: StoreLayout, owner: str) -> None:
        self._layout = layout
        self._owner = owner

    def claim(self, key: Digest, *, force: bool = False) -> bool:
        """Try to be the one who fetches a blob.

        Args:
            key: the blob.
            force: take it from a living owner that does not get on.

        Raises:
            StorageError: the file system refuses.
        """
        path = self._layout.partials / f"{key.hex}.claim"
        with storage_errors("claim a blob in"):
            mine = self._owner.encode()
            if create_new(path, mine):
                return True
            holder = _holder(path)
            if holder is None or (not force and state(self._layout, holder) is State.ALIVE):
                return False
            return self._take(path, holder) and create_new(path, mine)

    def release(self, key: Digest) -> None:
        """Let others have the blob."""
        path = self._layout.partials / f"{key.hex}.claim"
        with suppress(OSError):
            if _read(path) == self._owner:
                path.unlink()

    def open(self, key: Digest, size: int, segment: int) -> tuple[Partial, set[int]]:
        """This owner's part of a blob, with what the dead have left; and the segments that are whole.

        Raises:
            StorageError: the file system refuses.
        """
        mine = Partial(self._layout.partials / f"{key.hex}.{self._owner}", size, segment)
        with storage_errors("continue a blob in"):
            for theirs, ended in self._left(key, size, segment):
                if not (ended and not mine.folder.exists() and theirs.done() and _rename(theirs.folder, mine.folder)):
                    self._copy(theirs, mine)
                    theirs.drop()
        done = mine.done() if mine.data.exists() else set()
        if not done:
            mine.start()
        return mine, done

    def kept(self, key: Digest, size: int, segment: int) -> int:
        """About how many bytes of a blob need not be fetched again."""
        found: set[int] = set()
        for theirs, _ in self._left(key, size, segment):
            found |= theirs.done()
        return min(size, len(found) * segment)

    def written(self, key: Digest) -> float:
        """When anybody last wrote to the blob's parts (file system time, seconds); 0 if there are none."""
        times = [0.0]
        for folder, _ in _folders(self._layout, key.hex):
            with suppress(OSError):
                times.append((folder / "data").stat().st_mtime)
        return max(times)

    def _left(self, key: Digest, size: int, segment: int) -> Iterator[tuple[Partial, bool]]:
        """Parts of owners that are taken for dead, and whether they certainly are."""
        for folder, owner in _folders(self._layout, key.hex):
            if owner != self._owner and (known := state(self._layout, owner)) is not State.ALIVE:
                yield Partial(folder, size, segment), known is State.GONE

    def _take(self, path: Path, holder: str) -> bool:
        """Remove a dead owner's claim; of several who try, one succeeds."""
        aside = self._layout.tmp / unique_name()
        try:
            replace(path, aside)
        except FileNotFoundError:
            return False
        if _holder(aside) != holder:  # another was quicker, and this is the other's claim
            with suppress(OSError):
                os.rename(aside, path)
            return False
        aside.unlink(missing_ok=True)
        return True

    @staticmethod
    def _copy(theirs: Partial, mine: Partial) -> None:
        done = theirs.done()
        have = mine.done() if mine.data.exists() else set()
        if not done - have:
            return
        if not have:
            mine.start()
        with theirs.data.open("rb") as source, mine.data.open("r+b", buffering=0) as target:
            for number in sorted(done - have):
                source.seek(number * mine.segment)
                target.seek(number * mine.segment)
                left = min(mine.segment, mine.size - number * mine.segment)
                while left and (piece := source.read(min(left, _COPY))):
                    write_all(target.write, piece)
                    left -= len(piece)
                if not left:
                    mine.note(number)


def write_all(write: object, data: bytes | memoryview) -> None:
    """Write all of ``data`` through an unbuffered file's ``write``, which may take less at a time."""
    assert callable(write)
    view = memoryview(data)
    while view:
        view = view[write(view) :]


def clean_partials(layout: StoreLayout, limit: float, *, dry_run: bool) -> int:
    """Delete what dead owners left before ``limit`` (file system time, seconds); the bytes that go."""
    freed = 0
    for folder, owner in list(_folders(layout, "")):
        with suppress(OSError):
            newest = max((each.stat().st_mtime for each in folder.iterdir()), default=folder.stat().st_mtime)
            if newest < limit and state(layout, owner) is not State.ALIVE:
                freed += _used(folder)
                if not dry_run:
                    shutil.rmtree(folder, ignore_errors=True)
    for path in [*layout.partials.glob("*.claim"), *layout.partials.glob("*.alive")]:
        with suppress(OSError):
            owner = path.stem if path.suffix == ".alive" else _read(path) or ""
            if path.stat().st_mtime < limit and state(layout, owner) is not State.ALIVE and not dry_run:
                path.unlink()
    return freed


def _folders(layout: StoreLayout, key: str) -> Iterator[tuple[Path, str]]:
    with suppress(FileNotFoundError):
        for name in os.listdir(layout.partials):  # each blob looks for its own among those that are under way
            if name.startswith(key) and (match := _FOLDER.fullmatch(name)):
                yield layout.partials / name, match["owner"]


def _used(folder: Path) -> int:
    """Bytes of the files on the disk, holes left out where the system tells."""
    found = [each.stat() for each in folder.iterdir()]
    return sum(min(each.st_size, getattr(each, "st_blocks", each.st_size) * 512) for each in found)


def _holder(path: Path) -> str | None:
    """Who has a claim; None when it has just gone. Who passed over other errors would wait for ever."""
    try:
        return path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _rename(source: Path, target: Path) -> bool:
    try:
        os.rename(source, target)
    except OSError:  # another was quicker, or Windows has it open
        return False
    return True
