"""One item on its way into the store: which segments are here, and the hash of what is there in order."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.store.files import storage_errors
from wszoo.store.partials import write_all
from wszoo.transfer.items import Finished, cut
from wszoo.transfer.sources import hang_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO

    from wszoo.errors import IntegrityError
    from wszoo.store.partials import Partial
    from wszoo.transfer.items import Item, Segment
    from wszoo.transfer.sources import Refusals, Source

_READ = 1 << 20  # bytes at a time when hashing what was written out of order: still in the processor's cache


class Download:
    """An item that this process has claimed. Safe to use from several threads.

    Args:
        item: what it is to be.
        partial: where its bytes go.
        done: segments that are in there.
        advance: gets every byte once.

    Attributes:
        refused: sources that need not be asked for it again.
        round: how often it has come out wrong.
    """

    def __init__(self, item: Item, partial: Partial, done: set[int], advance: Callable[[int], None]) -> None:
        self.item = item
        self.refused: Refusals = {}
        self.round = 0
        self._partial = partial
        self._advance = advance
        self._lock = threading.Lock()
        self._segments = cut(item, partial.segment)
        self._done = {number for number in done if number < len(self._segments)}
        self._active = 0  # segments that someone fetches
        self._spoilt: IntegrityError | None = None
        self._waiting = [segment for segment in reversed(self._segments) if segment.number not in self._done]
        self._hash = hashlib.sha256()
        self._hashed = 0  # segments whose bytes are in the hash
        self._hashing = False  # a thread is bringing more of them in
        for number in self._done:
            self.count(self._segments[number], self._segments[number].length)

    def take(self) -> Segment | None:
        """A segment that nobody fetches; it is then the caller's."""
        with self._lock:
            if not self._waiting or self._spoilt is not None:
                return None
            self._active += 1
            return self._waiting.pop()

    def give_back(self, segment: Segment) -> IntegrityError | None:
        """Let others fetch the rest of a segment; returns as :meth:`leave`."""
        with self._lock:
            self._waiting.append(segment)
        return self.leave()

    def leave(self) -> IntegrityError | None:
        """End what :meth:`take` began; what is wrong with the item, for the last one to do something about it."""
        with self._lock:
            self._active -= 1
            return None if self._active else self._spoilt

    def spoil(self, error: IntegrityError) -> None:
        """The item is wrong: nobody takes more of it."""
        with self._lock:
            self._spoilt = self._spoilt or error

    @property
    def complete(self) -> bool:
        """Whether every segment is here."""
        return len(self._done) == len(self._segments)

    def file(self, segment: Segment) -> FileIO:
        """Open the file where the segment goes on.

        Raises:
            StorageError: the file system refuses.
        """
        with storage_errors("continue a blob in"):
            file = self._partial.data.open("r+b", buffering=0)
            file.seek(segment.at + segment.reached)
        return file

    def count(self, segment: Segment, reached: int) -> None:
        """Tell progress how far a segment has come; what was told before is not told again."""
        if reached > segment.counted:
            self._advance(reached - segment.counted)
            segment.counted = reached

    def hash_along(self, segment: Segment) -> HashAlong:
        """Hash the segment while it is written, if its turn has come."""
        with self._lock:
            if segment.number != self._hashed or self._hashing or segment.reached:
                return HashAlong(None)
            self._hashing = True
            return HashAlong(self._hash.copy())

    def hashed_along(self, segment: Segment, along: HashAlong) -> None:
        """End what :meth:`hash_along` began; an unfinished segment is hashed again later."""
        if along.running is None:
            return
        with self._lock:
            self._hashing = False
            if segment.reached == segment.length:
                self._hash = along.running
                self._hashed += 1

    def finish_segment(self, segment: Segment) -> bool:
        """Note a whole segment; true when it was the last and everything is hashed.

        Raises:
            StorageError: the file system refuses.
        """
        self._partial.note(segment.number)
        with self._lock:
            self._done.add(segment.number)
        return self.catch_up()

    def catch_up(self) -> bool:
        """Hash the whole segments that are next in order; true for the one caller that came to the end.

        Raises:
            StorageError: the file system refuses.
        """
        while True:
            with self._lock:
                if self._hashing:
                    return False
                if self._hashed == len(self._segments):
                    self._hashing = True  # nobody else comes to the end
                    return True
                if self._hashed not in self._done:
                    return False
                self._hashing = True
            try:
                self._hash_written(self._segments[self._hashed])
                self._hashed += 1
            finally:
                self._hashing = False

    def finished(self) -> Finished:
        """The file with its digest."""
        return Finished(self.item, self._partial.data, Digest.from_hash(self._hash))

    def sync(self) -> None:
        """Wait until the file is on the disk for good.

        Raises:
            StorageError: the file system refuses.
        """
        with storage_errors("write a blob to"), self._partial.data.open("r+b", buffering=0) as file:
            os.fsync(file.fileno())

    def restart(self) -> None:
        """Fetch everything again: it came out wrong, and nobody knows where.

        Raises:
            StorageError: the file system refuses.
        """
        self._partial.start()
        with self._lock:
            self.round += 1
            self._spoilt = None
            self._done, self._hash, self._hashed, self._hashing = set(), hashlib.sha256(), 0, False
            for segment in self._segments:
                segment.reached = 0
            self._waiting = list(reversed(self._segments))

    def drop(self) -> None:
        """Delete what is left of the unfinished file."""
        self._partial.drop()

    def _hash_written(self, segment: Segment) -> None:
        buffer = memoryview(bytearray(_READ))
        with storage_errors("read back a blob from"), self._partial.data.open("rb", buffering=0) as file:
            file.seek(segment.at)
            left = segment.length
            while left and (count := file.readinto(buffer[: min(left, _READ)])):
                self._hash.update(buffer[:count])
                left -= count


class HashAlong:
    """A hash that is fed while bytes are written, or none."""

    def __init__(self, running: hashlib._Hash | None) -> None:
        self.running = running

    def update(self, piece: bytes | memoryview) -> None:
        """Feed it."""
        if self.running is not None:
            self.running.update(piece)


class Attempt:
    """One request for a segment's bytes, which a watchdog may end from another thread.

    Args:
        download: of which.
        segment: which.
        source: who is asked.
        now: seconds.

    Attributes:
        last: when the last byte came.
        abandoned: the segment is someone else's now.
        answer: what the source sends.
    """

    def __init__(self, download: Download, segment: Segment, source: Source, now: float) -> None:
        self.download = download
        self.segment = segment
        self.source = source
        self.last = now
        self.abandoned = False
        self.answer: Iterator[bytes | memoryview] | None = None
        self._lock = threading.Lock()
        self._along = download.hash_along(segment)
        self._file = download.file(segment)

    def write(self, piece: bytes | memoryview, now: float) -> bool:
        """Write at the segment's place; false when the segment is not ours any more.

        Raises:
            StorageError: the file system refuses.
        """
        with self._lock:
            if self.abandoned:
                return False
            with storage_errors("write a blob to"):
                write_all(self._file.write, piece)
            self.segment.reached += len(piece)
            self.last = now
        self._along.update(piece)
        return True

    def abandon(self) -> None:
        """Take the segment away from the thread that waits for bytes; it writes nothing any more."""
        with self._lock:
            self.abandoned = True
        self.end()
        hang_up(self.answer)

    def end(self) -> None:
        """Close the file. For the thread itself, and for :meth:`abandon`; the second call does nothing."""
        with self._lock:
            if self._file.closed:
                return
            self._file.close()
            self.download.hashed_along(self.segment, self._along)
