"""One item on its way into the store: which segments are here, and the hash of what is there in order."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.store.files import begin_sync, storage_errors
from wszoo.store.partials import write_all
from wszoo.transfer.items import Finished, Run, cut
from wszoo.transfer.sources import hang_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO

    from wszoo.errors import IntegrityError
    from wszoo.store.partials import Partial
    from wszoo.transfer.items import Item, Range, Segment
    from wszoo.transfer.sources import Refusals, Source

_LONG = 2.0  # seconds; who has nothing to do helps with a run that takes longer
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
        self._lock = threading.Lock()
        self._segments = cut(item, partial.segment)
        self._done = {number for number in done if number < len(self._segments)}
        self._runs: list[Run] = []  # that someone fetches
        self._spoilt: IntegrityError | None = None
        self._waiting = [segment for segment in reversed(self._segments) if segment.number not in self._done]
        self._hash = hashlib.sha256()
        self._hashed = 0  # segments whose bytes are in the hash
        self._hashing = False  # a thread is bringing more of them in
        self._ended = False
        self._unsynced: list[Segment] = []  # whole ones that the disk was not asked to begin with
        for number in self._done:
            advance(self._segments[number].length)
            self._segments[number].counted = self._segments[number].length

    def take(self, most: int) -> Run | None:
        """Segments that nobody fetches, the first ones in a row; they are then the caller's.

        Args:
            most: bytes; one segment may have more.
        """
        with self._lock:
            if not self._waiting or self._spoilt is not None:
                return None
            run = Run(deque([self._waiting.pop()]), time.monotonic())
            while (
                self._waiting
                and self._waiting[-1].number == run.segments[-1].number + 1
                and run.left + self._waiting[-1].left <= most
            ):
                run.segments.append(self._waiting.pop())
            self._runs.append(run)
            return run

    def help(self) -> Run | None:
        """The last segment of a run that takes long; it is then the caller's."""
        with self._lock:
            now = time.monotonic()
            slow = [run for run in self._runs if len(run.segments) > 1 and run.lasts(now) > _LONG]
            if not slow or self._spoilt is not None:
                return None
            run = Run(deque([max(slow, key=lambda each: each.lasts(now)).segments.pop()]), now)
            self._runs.append(run)
            return run

    def rest(self, run: Run) -> Range:
        """The next range of a run to ask for."""
        with self._lock:
            return run.rest()

    def whole(self, run: Run) -> Segment | None:
        """Note that the first segment of a run is here; the one that is next.

        Raises:
            StorageError: the file system refuses.
        """
        number = run.segments[0].number
        self._partial.note(number)
        with self._lock:
            self._done.add(number)
            self._unsynced.append(run.segments.popleft())
            return run.segments[0] if run.segments else None

    def give_back(self, run: Run) -> IntegrityError | None:
        """Let others fetch the rest of a run; returns as :meth:`leave`."""
        with self._lock:
            self._waiting = sorted([*self._waiting, *run.segments], key=lambda each: each.number, reverse=True)
        return self.leave(run)

    def leave(self, run: Run) -> IntegrityError | None:
        """End what :meth:`take` began; what is wrong with the item, for the last one to do something about it."""
        with self._lock:
            self._runs.remove(run)
            return None if self._runs else self._spoilt

    def spoil(self, error: IntegrityError) -> None:
        """The item is wrong: nobody takes more of it. Too late when :meth:`catch_up` has come to the end."""
        with self._lock:
            if not self._ended:
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
            if not segment.left:
                self._hash = along.running
                self._hashed += 1

    def catch_up(self) -> bool:
        """Hash the whole segments that are next in order; true for the one caller that came to the end.

        From then on the file is the caller's, and nobody else's. One that is spoilt has no end.

        Raises:
            StorageError: the file system refuses.
        """
        while True:
            with self._lock:
                if self._hashing or self._ended or self._spoilt is not None:
                    return False
                if self._hashed == len(self._segments):
                    # Else someone is about to note the last segment, in a file that goes then.
                    self._ended = self.complete
                    return self._ended
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

    @property
    def unsynced(self) -> bool:
        """Whether there are whole segments that the disk was not asked to begin with."""
        return bool(self._unsynced)

    def begin_sync(self) -> None:
        """Have the disk begin with them, so that :meth:`sync` takes less time. A disk that is busy makes this wait."""
        with self._lock:
            segments, self._unsynced = self._unsynced, []
        with suppress(OSError), self._partial.data.open("r+b", buffering=0) as file:
            for segment in segments:
                begin_sync(file, segment.at, segment.length)

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
            self._ended = False
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
    """Requests to one source for the bytes of a run, which a watchdog may end from another thread.

    Args:
        download: of which.
        run: which.
        source: who is asked.
        now: seconds.

    Attributes:
        segment: that is being fetched.
        last: when the last byte came.
        got: bytes that came.
        fresh: bytes that progress does not know of.
        told: how many bytes had come when the engine was last told, and when that was.
        abandoned: the run is someone else's now.
        answer: what the source sends.
    """

    def __init__(self, download: Download, run: Run, source: Source, now: float) -> None:
        self.download = download
        self.run = run
        self.segment = run.segments[0]
        self.source = source
        self.last = now
        self.got = self.fresh = 0
        self.told = 0, now
        self.abandoned = False
        self.answer: Iterator[bytes | memoryview] | None = None
        self._lock = threading.Lock()
        self._along = download.hash_along(self.segment)
        self._file = download.file(self.segment)

    def write(self, piece: bytes | memoryview, now: float) -> bool:
        """Write at the run's place; false when the run is not ours any more.

        Raises:
            StorageError: the file system refuses.
        """
        with self._lock:
            if self.abandoned:
                return False
            self.last = now
            view = memoryview(piece)
            while view and self.run.segments:  # the last ones may have gone to another worker
                view = view[self._write(view[: self.segment.left]) :]
        return True

    def _write(self, part: memoryview) -> int:
        """Write and hash bytes of one segment, and note it if these were the last."""
        count, segment = len(part), self.segment
        with storage_errors("write a blob to"):
            write_all(self._file.write, part)
        self._along.update(part)
        segment.reached += count
        self.run.got += count
        self.got += count
        self.fresh += segment.uncounted()
        if not segment.left:
            self.download.hashed_along(segment, self._along)
            self._along = HashAlong(None)
            if (following := self.download.whole(self.run)) is not None:
                self.segment, self._along = following, self.download.hash_along(following)
        return count

    def abandon(self) -> None:
        """Take the run away from the thread that waits for bytes; it writes nothing any more."""
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
