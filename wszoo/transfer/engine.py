"""Fetching many items at once: who does what next, who is stuck, and when it is over.

Workers are threads. Each takes the next segments of the item that it has begun, so that an item is written and hashed
in order; else it begins another item; else it helps with one that is under way; else it looks whether items that other
processes have claimed are finished; else it takes a segment from a worker that has several to go and is slow. The
calling thread watches: it starts workers as the governor allows, and takes the segments from a worker that got no byte
for too long. A thread that is blocked in the network cannot be stopped; it finds out by itself that it has lost its
segments, and ends. One more thread makes finished items durable, see commit.py.

How many segments a worker takes at once depends on how much is left (guided self-scheduling, Polychronopoulos and Kuck
1987): most of a model comes in requests of a whole pack each, and at the end there is a segment for everybody.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wszoo.errors import IntegrityError, RemoteError, WszooError
from wszoo.transfer.commit import Shelf, begin, commit
from wszoo.transfer.download import Attempt, Download
from wszoo.transfer.following import EARLY, GivenUp
from wszoo.transfer.governor import Governor
from wszoo.transfer.requests import Stopped, fetch_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wszoo.store.partials import Partials
    from wszoo.transfer.items import Item, Run
    from wszoo.transfer.sources import Source, Sources
    from wszoo.transfer.tuning import Tuning

_TICK = 0.2  # seconds between the watcher's rounds
_BEAT = 0.05  # and between the committer's
_LAST_WORDS = 5.0  # seconds that workers get to end after a failure
_SHARES = 2  # of what is left, for each worker


@dataclass(slots=True, eq=False)
class _Foreign:
    """An item that another process has claimed."""

    item: Item
    written: float = 0.0
    since: float = field(default_factory=time.monotonic)
    looked: float = 0.0


_Task = tuple[Download, "Run"] | _Foreign


class Engine:
    """One transfer.

    Args:
        sources: where from.
        partials: where unfinished files are.
        items: what; each key once.
        advance: gets every byte once; called by one thread at a time.
        settle: makes what items have placed durable.
        tuning: how hard to try.
    """

    def __init__(
        self,
        sources: Sources,
        partials: Partials,
        items: Iterable[Item],
        *,
        advance: Callable[[int], None],
        settle: Callable[[], None],
        tuning: Tuning,
    ) -> None:
        self._sources = sources
        self._partials = partials
        self._tuning = tuning
        self._advance = advance
        self._settle = settle
        self._changed = threading.Condition(threading.RLock())
        self._wake = threading.Event()  # the committer, who otherwise looks at each beat
        self._new: deque[_Foreign] = deque(_Foreign(item) for item in items)
        self._foreign: deque[_Foreign] = deque()
        self._open: list[Download] = []
        self._shelf = Shelf()
        self._left = len(self._new)
        self._missing = sum(task.item.size for task in self._new)  # bytes
        self._attempts: dict[threading.Thread, Attempt | None] = {}
        self._busy = 0
        self._governor = Governor(tuning.start, tuning.workers)
        self._error: BaseException | None = None
        self.stopping = threading.Event()

    def run(self, given_up: Callable[[], bool] = lambda: False) -> None:
        """Fetch everything.

        Args:
            given_up: whether the rest is not wanted any more; asked five times a second.

        Raises:
            GivenUp: it is not.
            NotFoundError: a blob is at no source.
            IntegrityError: every source sends something else than was promised.
            RemoteError: the sources failed again and again.
            StorageError: the file system refuses.
        """
        committer = threading.Thread(target=self._commit, name="wszoo-commit", daemon=True)
        committer.start()
        try:
            with self._changed:
                while self._left and self._error is None:
                    self._hire()
                    self._changed.wait(_TICK)
                    self._watch()
                    if given_up():
                        self._error = self._error or GivenUp()
        finally:
            self._end(committer)
        if self._error is not None:
            raise self._error

    # ---- the watcher ----

    def _hire(self) -> None:
        while len(self._attempts) < min(self._governor.limit, self._tuning.workers):
            worker = threading.Thread(target=self._work, name="wszoo-fetch", daemon=True)
            self._attempts[worker] = None
            worker.start()

    def _watch(self) -> None:
        now = time.monotonic()
        for worker, attempt in list(self._attempts.items()):
            if attempt is not None and now - attempt.last > self._tuning.stall:
                self._replace(worker, attempt)

    def _replace(self, worker: threading.Thread, attempt: Attempt) -> None:
        attempt.abandon()
        del self._attempts[worker]
        self._busy -= 1
        url, stall = attempt.source.remote.url, self._tuning.stall
        try:
            self.received(attempt)
            self.failed(attempt, RemoteError(f"{url} sent nothing for {stall:g} s", hint="check the network"))
            wrong = attempt.download.give_back(attempt.run)
            if wrong is not None:
                self._again(attempt.download, wrong)
            elif attempt.download.catch_up():  # it stalled after its last byte
                self._finish(attempt.download)
        except WszooError as error:
            self._error = self._error or error

    def _end(self, committer: threading.Thread) -> None:
        with self._changed:
            self.stopping.set()
            self._wake.set()
            self._changed.notify_all()
            workers = [*self._attempts, committer]
        until = time.monotonic() + _LAST_WORDS
        for worker in workers:
            worker.join(max(0.0, until - time.monotonic()))
        with self._changed:
            for attempt in self._attempts.values():
                if attempt is not None:
                    attempt.abandon()
            for download in (*self._open, *self._shelf.waiting):
                self._partials.release(download.item.key)

    # ---- the workers ----

    def _work(self) -> None:
        mine: Download | None = None
        try:
            while (task := self._next(mine)) is not None:
                mine = self._begin(task) if isinstance(task, _Foreign) else self._fetch(*task)
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - the calling thread raises it
            self._fail(error)
        finally:
            with self._changed:
                self._attempts.pop(threading.current_thread(), None)

    def _next(self, mine: Download | None) -> _Task | None:
        with self._changed:
            while not self.stopping.is_set() and self._left:
                if self._busy < self._governor.limit and (task := self._choose(mine)) is not None:
                    self._busy += 1
                    return task
                self._changed.wait(self._tuning.poll)
        return None

    def _choose(self, mine: Download | None) -> _Task | None:
        share = self._missing // (_SHARES * self._governor.limit)
        if mine is not None and (run := mine.take(share)) is not None:
            return mine, run
        if self._new:
            return self._new.popleft()
        for download in self._open:
            if (run := download.take(share)) is not None:
                return download, run
        now = time.monotonic()
        if self._foreign and now - self._foreign[0].looked >= self._tuning.poll:
            return self._foreign.popleft()
        for download in self._open:
            if (run := download.help()) is not None:
                return download, run
        return None

    def _begin(self, task: _Foreign) -> Download | None:
        """Claim an item; or find that it is here, or that another process has it."""
        item = task.item
        if not item.present() and not self._claim(task):
            task.looked = time.monotonic()
            with self._changed:
                self._foreign.append(task)
            return None
        if item.present():  # perhaps the last owner finished it just before the claim became ours
            self._partials.release(item.key)
            self._count(item.size)
            item.arrived(None)
            with self._changed:
                self._left -= 1
            return None
        partial, done = self._partials.open(item.key, item.size, self._tuning.segment)
        download = Download(item, partial, done, self._count)
        with self._changed:
            self._open.append(download)
        if download.complete and download.catch_up():
            self._finish(download)
        return download

    def _claim(self, task: _Foreign) -> bool:
        if self._partials.claim(task.item.key):
            return True
        written, now = self._partials.written(task.item.key), time.monotonic()
        if written != task.written:
            task.written, task.since = written, now
        return now - task.since > self._tuning.patience and self._partials.claim(task.item.key, force=True)

    def _fetch(self, download: Download, run: Run) -> Download:
        complete = False
        try:
            fetch_run(self, self._sources, download, run)
        except IntegrityError as error:
            download.spoil(error)
        else:
            complete = download.catch_up()
        wrong = download.leave(run)
        if wrong is not None:
            self._again(download, wrong)
        elif complete:
            self._finish(download)
        return download

    def _finish(self, download: Download) -> None:
        finished = download.finished()
        try:
            download.item.check(finished)
        except IntegrityError as error:
            self._again(download, error)
            return
        if EARLY:
            download.item.arrived(finished.path)
        with self._changed:
            self._open.remove(download)
            self._shelf.put(download)
            if self._shelf.is_full(self._left):
                self._wake.set()

    def _again(self, download: Download, error: IntegrityError) -> None:
        """Fetch an item again that came out wrong, preferring another source each time; each gets one such chance."""
        if download.round >= len(self._sources.all):
            download.drop()
            raise error
        download.restart()
        with self._changed:
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        """End the transfer; the calling thread raises the error."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _count(self, count: int) -> None:
        with self._changed:
            self._missing -= count
            self._advance(count)

    # ---- the committer ----

    def _commit(self) -> None:
        try:
            while finished := self._next_to_commit():
                try:
                    commit(finished, self._settle)
                finally:  # if the disk refused, others may try
                    for download in finished:
                        self._partials.release(download.item.key)
                if not EARLY:
                    for download in finished:
                        download.item.arrived(None)
                with self._changed:
                    self._left -= len(finished)
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - the calling thread raises it
            self._fail(error)

    def _next_to_commit(self) -> list[Download]:
        """None at the end, which does not wait for more: what is whole is kept also when the transfer fails."""
        while True:
            self._wake.wait(_BEAT)
            with self._changed:
                over = self.stopping.is_set()
                finished = self._shelf.take(0 if over else self._left)
                if finished or over:
                    return finished
                self._wake.clear()
                written = [download for download in (*self._open, *self._shelf.waiting) if download.unsynced]
            begin(written)

    # ---- what requests tell ----

    def begin(self, download: Download, run: Run, source: Source) -> Attempt:
        """See :class:`wszoo.transfer.requests.Host`."""
        attempt = Attempt(download, run, source, time.monotonic())
        with self._changed:
            self._attempts[threading.current_thread()] = attempt
        return attempt

    def received(self, attempt: Attempt) -> None:
        """See :class:`wszoo.transfer.requests.Host`."""
        with self._changed:
            fresh, attempt.fresh = attempt.fresh, 0
            count, attempt.told = attempt.got - attempt.told[0], (attempt.got, time.monotonic())
            self._governor.received(count)
            if fresh:
                self._count(fresh)

    def failed(self, attempt: Attempt, error: RemoteError) -> None:
        """See :class:`wszoo.transfer.requests.Host`."""
        with self._changed:
            self._governor.failed()
        segment = attempt.segment
        segment.failures += 1
        self._sources.failed(attempt.source, error, segment.failures, attempt.download.refused)

    def end(self, attempt: Attempt) -> None:
        """See :class:`wszoo.transfer.requests.Host`."""
        attempt.end()
        if not attempt.abandoned:
            self.received(attempt)
        with self._changed:
            if self._attempts.get(threading.current_thread()) is attempt:
                self._attempts[threading.current_thread()] = None
