"""What a verify that has not ended has hashed so far, so that the next one goes on there.

``wszoo/verifying/<name>`` has a line for each file that was right: its digest in hexadecimal, size, and modification
time in nanoseconds. A later run believes a line if the file still has that size and time and the run began less than
``MAX_AGE`` ago; so a file goes unhashed for no longer than that, however often verify is interrupted. Damaged files are
not noted. A run that ends deletes the notes, and one of under ``PATIENCE`` seconds makes none.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

from wszoo.errors import MalformedError
from wszoo.store.files import open_regular, unique_name
from wszoo.store.leases import file_system_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader, TextIOWrapper
    from pathlib import Path
    from types import TracebackType

    from wszoo.store.layout import StoreLayout

MAX_AGE = 86_400.0  # seconds
PATIENCE = 2.0  # seconds after which a run is worth resuming
_LINE = 160  # bytes, more than any has


class State(NamedTuple):
    """What tells that a file has been changed, short of hashing it."""

    size: int
    modified: int


def state_of(path: Path) -> State:
    """A file's size in bytes and modification time in nanoseconds.

    Raises:
        OSError: it is not there.
    """
    status = path.lstat()
    return State(status.st_size, status.st_mtime_ns)


class Journal:
    """The notes of one run; a context manager that deletes them if the block ends well.

    Args:
        layout: of the store; where it cannot be written, nothing is noted.

    Attributes:
        before: what interrupted runs noted: digests in hexadecimal, and states.
    """

    def __init__(self, layout: StoreLayout) -> None:
        self.before: frozenset[tuple[str, State]] = frozenset()
        self._layout = layout
        self._old: list[Path] = []
        self._path = layout.verifying / unique_name()
        self._file: TextIOWrapper | None = None
        self._waiting: list[str] = []
        self._began = self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        with suppress(OSError):
            self._old = sorted(self._layout.verifying.iterdir())
            if self._old:
                self.before = frozenset(self._read(file_system_time(self._layout)))
        return self

    def note(self, digest: str, state: State) -> None:
        """A file is right."""
        self._waiting.append(f"{digest} {state.size} {state.modified}\n")
        if time.monotonic() - self._flushed >= PATIENCE:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            if kind is not None and self._file:
                self._flush()
            if self._file:
                self._file.close()
        for path in [*self._old, self._path] if kind is None else ():
            with suppress(OSError):
                path.unlink()

    def _flush(self) -> None:
        with suppress(OSError):  # a store that cannot be written is verified all the same
            if self._file is None:
                self._layout.verifying.mkdir(parents=True, exist_ok=True)
                began = file_system_time(self._layout) - (time.monotonic() - self._began)
                self._file = self._path.open("x", encoding="ascii", newline="\n")
                self._file.write(f"{began}\n")
            self._file.writelines(self._waiting)
            self._file.flush()
        self._waiting.clear()
        self._flushed = time.monotonic()

    def _read(self, now: float) -> Iterator[tuple[str, State]]:
        for path in self._old:
            with suppress(OSError, MalformedError, ValueError), open_regular(path) as file:
                if 0 <= now - float(file.readline(_LINE)) <= MAX_AGE:
                    yield from _noted(file)


def _noted(file: BufferedReader) -> Iterator[tuple[str, State]]:
    while (line := file.readline(_LINE)).endswith(b"\n"):  # the last one may have been cut off
        digest, size, modified = line.decode("ascii").split()
        yield digest, State(int(size), int(modified))
