"""Threads for work that releases the GIL: hashing, compression, copies, I/O."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, workers: int | None = None
) -> Generator[R, None, None]:
    """Like ``map``, on threads, in order, and never more than two items a thread ahead of the consumer.

    ``ThreadPoolExecutor.map`` starts everything at once, which for a 5 GB model means 5 GB of results in memory.
    """
    count = workers or cores()
    source = iter(items)
    with ThreadPoolExecutor(count) as pool:
        waiting: deque[Future[R]] = deque(pool.submit(function, item) for item in islice(source, 2 * count))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(source, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
