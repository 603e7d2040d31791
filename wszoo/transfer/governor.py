"""How many requests run at once: more as long as that brings more bytes, fewer when the other side complains."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PERIOD = 0.5  # seconds between decisions
_GAIN = 1.05  # a step up must bring 5 % more bytes, or it was the last
_STEP = 2


class Governor:
    """Climbs while throughput grows, halves on errors. The caller locks.

    Args:
        start: requests at first.
        most: requests at most.
        clock: seconds.
    """

    def __init__(self, start: int, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = min(start, most)
        self._most = most
        self._clock = clock
        self._since = clock()
        self._bytes = 0
        self._best = 0.0
        self._settled = False
        self._calm_until = 0.0

    def received(self, count: int) -> None:
        """Count bytes, and decide when it is time."""
        self._bytes += count
        took = self._clock() - self._since
        if took < _PERIOD:
            return
        rate = self._bytes / took
        self._since, self._bytes = self._clock(), 0
        if self._clock() < self._calm_until:
            return
        if rate > self._best * _GAIN:
            self._best = rate
            self.limit = min(self._most, self.limit + _STEP) if not self._settled else self.limit
        else:
            self._settled = True

    def failed(self) -> None:
        """Halve, but once for all the requests that fail together."""
        now = self._clock()
        if now < self._calm_until:
            return
        self.limit = max(1, self.limit // 2)
        self._best, self._settled = 0.0, False
        self._calm_until = now + 2 * _PERIOD
        self._since, self._bytes = now, 0
