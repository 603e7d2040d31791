"""Group commit: finished files are made durable many at a time.

With each fsync, a journalling file system writes its journal, and whoever makes or extends a file waits meanwhile. One
for each of 35 packs, and one of the folder after each rename, held up those who fetched: a pull of 1.7 GB from the same
machine took 1.05 s, and 0.81 without any (ext4, 32 cores). The disk is asked to begin with segments before that, so
that little is left to wait for in the end; by other threads than those who fetch, since a busy disk lets them wait too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from wszoo.parallel import ordered_map
from wszoo.transfer.download import Download
from wszoo.transfer.following import EARLY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Seconds that a finished file waits for others. A power failure takes it then, as it takes unfinished ones; a kill does
# not. Where blobs are told of when they are in the store, none waits.
PAUSE = 2.0 if EARLY else 0.0

_MOST = 256  # files at a time; more are not any quicker, and each blob looks through the folders of all
_BEGINNERS = 4  # threads that have the disk begin; with one, it is done 0.1 s later
_SYNCERS = 16  # threads that wait for the disk: what many of them want is in one write of the journal


class Shelf:
    """Finished downloads that wait for others. The caller locks.

    Args:
        clock: seconds.

    Attributes:
        waiting: the downloads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.waiting: list[Download] = []
        self._clock = clock
        self._since = 0.0

    def put(self, download: Download) -> None:
        """Add one."""
        if not self.waiting:
            self._since = self._clock()
        self.waiting.append(download)

    def is_full(self, left: int) -> bool:
        """Whether there is nothing to wait for, see :meth:`take`."""
        return len(self.waiting) >= min(left, _MOST)

    def take(self, left: int) -> list[Download]:
        """Those to be made durable now; none while others may still come in time.

        Args:
            left: downloads that are not durable yet, these among them.
        """
        if not self.is_full(left) and self._clock() < self._since + PAUSE:
            return []
        taken, self.waiting = self.waiting, []
        return taken


def begin(downloads: Sequence[Download]) -> None:
    """Have the disk begin with what was written since the last time."""
    for _ in ordered_map(Download.begin_sync, downloads, workers=_BEGINNERS):
        pass


def commit(downloads: Sequence[Download], settle: Callable[[], None]) -> None:
    """Place downloads for good.

    Args:
        downloads: whose files are whole and checked.
        settle: makes the renames durable.

    Raises:
        StorageError: the file system refuses.
    """
    for _ in ordered_map(Download.sync, downloads, workers=_SYNCERS):
        pass
    for download in downloads:
        download.item.place(download.finished())
    settle()
    for download in downloads:
        download.drop()
