"""What was made lately, shared by threads: made once however many ask for it, the oldest let go of."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from wszoo.buffers import Bytes

    Key = tuple[int, int]


class Recent:
    """Arrays by key, the least recently used let go of beyond ``limit`` bytes, but never the newest.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._lock = threading.Lock()
        self._items: OrderedDict[Key, Future[Bytes]] = OrderedDict()
        self._costs: dict[Key, int] = {}  # of those that are made

    def __contains__(self, key: Key) -> bool:
        return key in self._costs

    def get(self, key: Key, make: Callable[[], tuple[Bytes, int]]) -> Bytes:
        """The array; made if it is not there, or waited for if another thread is at it.

        Args:
            key: its name.
            make: gives the array and the bytes that it takes. What it raises, everyone who waits for it gets.
        """
        with self._lock:
            found = self._items.get(key)
            if found is None:
                mine: Future[Bytes] = Future()
                self._items[key] = mine
            else:
                self._items.move_to_end(key)
        return found.result() if found is not None else self._make(key, make, mine)

    def _make(self, key: Key, make: Callable[[], tuple[Bytes, int]], mine: Future[Bytes]) -> Bytes:
        try:
            item, cost = make()
        except BaseException as error:
            with self._lock:
                del self._items[key]
            mine.set_exception(error)
            raise
        mine.set_result(item)
        with self._lock:
            self._costs[key] = cost
            self._size += cost
            self._let_go(key)
        return item

    def _let_go(self, newest: Key) -> None:
        if self._size <= self._limit:
            return
        for key in [each for each in self._items if each in self._costs and each != newest]:
            del self._items[key]
            self._size -= self._costs.pop(key)
            if self._size <= self._limit:
                return
