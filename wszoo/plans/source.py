"""Where a deserializer reads a plan from: a file, memory, or the store's weights around a splice program.

None of them checks a digest: :mod:`wszoo.assemble` hands one out only when the whole has been hashed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from wszoo.errors import StorageError
from wszoo.plans.splice.program import STRIP
from wszoo.store.files import storage_errors

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.buffers import Bytes
    from wszoo.plans.splice.window import Windows

_WINDOW = 4 << 20  # bytes of a spliced plan computed at a time: many a read asks for a few bytes


class PlanSource(Protocol):
    """A plan's bytes, in any order.

    Attributes:
        size: of the whole plan.
        name: for messages.
    """

    size: int
    name: str

    def read(self, offset: int, count: int) -> bytes | memoryview:
        """At most ``count`` bytes from ``offset`` on; none at the end, and fewer where that is convenient.

        Raises:
            StorageError: the file cannot be read.
            IntegrityError: a tensor is not what the tensor table says.
        """
        ...

    def close(self) -> None:
        """Let go of files; reading afterwards is an error."""
        ...


class FileSource:
    """A plan in a file.

    Raises:
        StorageError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        with storage_errors(f"read the plan {path}"):
            self._file = path.open("rb")
            self.size = path.stat().st_size

    def read(self, offset: int, count: int) -> bytes:
        """See :class:`PlanSource`."""
        try:
            self._file.seek(offset)
            return self._file.read(count)
        except (OSError, ValueError) as error:
            raise StorageError(f"cannot read the plan {self.name}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class MemorySource:
    """A plan in memory: a stripped one, which is small.

    Args:
        data: all of it.
        name: for messages.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        self.size = len(data)
        self._data = memoryview(data)

    def read(self, offset: int, count: int) -> memoryview:
        """See :class:`PlanSource`."""
        return self._data[offset : offset + count]

    def close(self) -> None:
        """Nothing is open."""


class SplicedSource:
    """A plan that is nowhere as a whole: computed from its program and the store's weights, window by window.

    Args:
        windows: of the program.
        name: for messages.
    """

    def __init__(self, windows: Windows, name: str) -> None:
        self.name = name
        self.size = windows.size
        self._windows = windows
        self._at = 0
        self._window: Bytes = np.empty(0, np.uint8)

    def read(self, offset: int, count: int) -> memoryview:
        """See :class:`PlanSource`."""
        if not self._at <= offset < self._at + len(self._window):
            size = STRIP if self._windows.is_costly(offset) else _WINDOW
            start = offset // size * size
            self._window = self._windows.read(min(start, self.size), min(start + size, self.size))
            self._at = start
        return memoryview(self._window)[offset - self._at : offset - self._at + count]

    def close(self) -> None:
        """Drop the window."""
        self._window = np.empty(0, np.uint8)
