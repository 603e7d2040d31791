"""What was made lately, shared by threads: made once, by all who ask for it, the oldest let go of."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from concurrent.futures import Future
from typing import TYPE_CHECKING

from wszoo.buffers import memory_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from wszoo.buffers import Bytes
    from wszoo.weights.tensor import Loading

    Key = tuple[int, int]


class Recent:
    """Arrays by key, the least recently used let go of beyond ``limit`` bytes, but never the newest.

    Mapped files count for nothing.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._lock = threading.Lock()
        self._items: OrderedDict[Key, _Shared] = OrderedDict()
        self._costs: dict[Key, int] = {}  # of those that are made

    def __contains__(self, key: Key) -> bool:
        return key in self._costs

    def get(self, key: Key, begin: Callable[[], Loading]) -> Bytes:
        """The array; made if it is not there, and together with other threads if they are at it.

        Args:
            key: its name.
            begin: starts making it. What it or a part raises, everyone who waits for the array gets.
        """
        with self._lock:
            item = self._items.setdefault(key, _Shared(begin))
            self._items.move_to_end(key)
        try:
            data = item.made()
        except BaseException:
            with self._lock:
                if self._items.get(key) is item:
                    del self._items[key]
            raise
        if key not in self._costs:
            self._keep(key, item, memory_of(data))
        return data

    def _keep(self, key: Key, item: _Shared, cost: int) -> None:
        with self._lock:
            if self._items.get(key) is item and key not in self._costs:
                self._costs[key] = cost
                self._size += cost
                self._let_go(key)

    def _let_go(self, newest: Key) -> None:
        if self._size <= self._limit:
            return
        for key in [each for each in self._items if each in self._costs and each != newest]:
            del self._items[key]
            self._size -= self._costs.pop(key)
            if self._size <= self._limit:
                return


class _Shared:
    """One array, and what is left to do of it."""

    def __init__(self, begin: Callable[[], Loading]) -> None:
        self._begin: Callable[[], Loading] | None = begin
        self._lock = threading.Lock()
        self._data: Bytes | None = None
        self._parts: deque[Callable[[], None]] = deque()
        self._missing = 0  # parts that are not done
        self._done: Future[Bytes] = Future()

    def made(self) -> Bytes:
        """The array, once every part is done, as many as possible by this thread."""
        if self._done.done():
            return self._done.result()
        while (part := self._next()) is not None:
            try:
                part()
            except BaseException as error:  # noqa: BLE001 - raised below, and in all who wait
                self._failed(error)
            else:
                self._finished()
        return self._done.result()

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            if self._begin is not None:
                begin, self._begin = self._begin, None
                try:
                    loading = begin()
                except BaseException as error:  # noqa: BLE001 - as above
                    self._done.set_exception(error)
                    return None
                self._data, self._missing = loading.data, len(loading.parts)
                self._parts.extend(loading.parts)
                if not loading.parts:
                    self._done.set_result(loading.data)
            return self._parts.popleft() if self._parts else None

    def _finished(self) -> None:
        with self._lock:
            self._missing -= 1
            if not self._missing and self._data is not None and not self._done.done():
                self._done.set_result(self._data)

    def _failed(self, error: BaseException) -> None:
        with self._lock:
            self._parts.clear()
            if not self._done.done():
                self._done.set_exception(error)
