"""The default executor: processes on this machine, as many at once as there are cores and memory for.

A builder that crashes takes its process with it and nothing else: the task is lost, the next one gets a new process. A
process that has built something large ends afterwards, because builders do not give all of their memory back.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from wszoo.errors import UsageError
from wszoo.executors.memory import available
from wszoo.executors.protocol import Lost, Need, Node
from wszoo.hookspecs import hookimpl
from wszoo.parallel import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnContext

    from wszoo.executors.protocol import Crew, Executor

A = TypeVar("A")
R = TypeVar("R")

LARGE = 1 << 30  # bytes that a task is expected to take, from which on its process ends with it
_TAIL = 16 << 10  # bytes of what a process printed that are kept when it dies


class LocalCrew:
    """Processes of this machine.

    Args:
        jobs: tasks at once.
        budget: bytes that tasks may take altogether; one that is expected to take more runs alone. None for what is
            free when the first task comes: exporting may have taken gigabytes before.
        scratch: a folder for what the processes print.
    """

    shares_store = True

    def __init__(self, jobs: int, budget: int | None, scratch: Path) -> None:
        self._budget = budget
        self._scratch = scratch
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="wszoo-task")
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        self._all: list[_Process] = []
        self._changed = threading.Condition()
        self._reserved = 0
        self._closed = False

    def nodes(self) -> Sequence[Node]:
        """One. It has no labels: who shares this machine's store asks the builders themselves."""
        return [Node(name="this machine", labels={}, memory=self._budget or available())]

    def submit(self, function: Callable[[A], R], argument: A, need: Need) -> Future[R]:
        """See :class:`wszoo.executors.protocol.Crew`."""
        if self._budget is None:
            self._budget = available()
        return self._threads.submit(self._run, function, argument, min(need.memory, self._budget))

    def cancel(self, future: Future[Any]) -> None:
        """Give up a task that has not begun."""
        future.cancel()

    def close(self) -> None:
        """Stop what runs and forget what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._all:
            process.stop()
        self._threads.shutdown(wait=True)

    def _run(self, function: Callable[[A], R], argument: A, memory: int) -> R:
        self._reserve(memory)
        try:
            process = self._take()
            try:
                result: R = process.call(function, argument)
            finally:
                if memory >= LARGE:
                    process.stop()
                self._idle.put(process)
        finally:
            self._release(memory)
        return result

    def _reserve(self, memory: int) -> None:
        budget = self._budget or 0
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._reserved + memory <= budget)
            if self._closed:
                raise Lost("the build was stopped")
            self._reserved += memory

    def _release(self, memory: int) -> None:
        with self._changed:
            self._reserved -= memory
            self._changed.notify_all()

    def _take(self) -> _Process:
        try:
            return self._idle.get_nowait()
        except Empty:
            process = _Process(multiprocessing.get_context("spawn"), self._scratch / f"{len(self._all)}.log")
            self._all.append(process)
            return process


class _Process:
    """A process that runs one task at a time; started when it is needed, and again when it died."""

    def __init__(self, context: SpawnContext, log: Path) -> None:
        self._context = context
        self._log = log
        self._process: Any = None
        self._connection: Connection | None = None

    def call(self, function: Callable[[A], R], argument: A) -> R:
        """Run a function over there.

        Raises:
            Lost: the process died.
            Exception: whatever the function raised.
        """
        connection = self._started()
        try:
            connection.send((function, argument))
            good, result = connection.recv()
        except (EOFError, OSError):
            raise self._lost() from None
        if not good:
            raise result
        given: R = result
        return given

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.terminate()
            self._process.join()
            self._process = None

    def _started(self) -> Connection:
        if self._process is None or not self._process.is_alive() or self._connection is None:
            self._connection, theirs = self._context.Pipe()
            self._process = self._context.Process(target=_serve, args=(theirs, str(self._log)), daemon=True)
            self._process.start()
            theirs.close()  # else nobody is told when the process dies
        return self._connection

    def _lost(self) -> Lost:
        process, self._process = self._process, None
        if process is None:
            return Lost("the build was stopped")
        process.join()
        code = process.exitcode
        how = f"by signal {-code} ({_signal_name(-code)})" if code is not None and code < 0 else f"with status {code}"
        printed = ""
        with suppress(OSError):
            printed = self._log.read_bytes()[-_TAIL:].decode(errors="replace").strip()
        return Lost(f"the builder's process ended {how}", printed)


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return "unknown"


def _serve(connection: Connection, log: str) -> None:
    """The loop of a process. What native code prints goes into a file, of which a crash leaves the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver says what is to happen
    with Path(log).open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    while True:
        try:
            function, argument = connection.recv()
        except (EOFError, OSError):  # the driver is gone
            return
        try:
            answer = True, function(argument)
        except Exception as error:  # noqa: BLE001 - it is raised again where it was asked for
            answer = False, error
        connection.send(answer)


class LocalExecutor:
    """Opens a :class:`LocalCrew`."""

    name = "local"
    summary = "processes on this machine, as many as there is memory for"

    @contextmanager
    def open(self, address: str, jobs: int | None) -> Iterator[Crew]:
        """See :class:`wszoo.executors.protocol.Executor`.

        Raises:
            UsageError: an address was given.
        """
        if address:
            raise UsageError(f"the local executor has no address, and got {address!r}", hint="leave it out")
        with tempfile.TemporaryDirectory(prefix="wszoo-local-", ignore_cleanup_errors=True) as scratch:
            crew = LocalCrew(jobs or cores(), None, Path(scratch))
            try:
                yield crew
            finally:
                crew.close()


@hookimpl
def wszoo_executors() -> Sequence[Executor]:
    """The local executor."""
    return [LocalExecutor()]
