"""Answers of HTTP servers that come in few large pieces, all in one buffer that is filled again and again.

Below urllib3, ``http.client`` gives what the kernel has at hand, 100 to 170 kB, in a new ``bytes`` object each time,
whose pages the kernel has to clear first. Filling one buffer, which stays in the processor's cache while it is hashed
and written, takes 1.4 instead of 1.9 seconds of processor time a gigabyte, hashing and writing included. A buffer of a
megabyte takes as much as one of half of that, and asks for the GIL half as often, which is what many threads wait for.
Over TLS, where a record of 16 KiB comes at a time, there is one piece instead of 64.
"""

from __future__ import annotations

import http.client
import time
from typing import TYPE_CHECKING, Any, ClassVar, cast

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    from collections.abc import Mapping

PIECE = 1 << 20  # bytes
_FIRST = 16 << 10
# A piece is given when it is full, so it must not take long: who waits for bytes gives up after 30 s without any.
_SLOW = 1.0  # seconds; the next piece is smaller
_QUICK = 0.25


class Answer(http.client.HTTPResponse):
    """What came from a server. A piece is overwritten by the next one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        super().__init__(*args, **kwargs)
        self._buffer = memoryview(b"")
        self._room = 0  # bytes of the next piece; 0 stands for what is at hand

    def read1(self, n: int = -1) -> bytes:
        """As much as comes in a moment, at most ``n`` bytes; a view of the buffer, which urllib3 passes on as it is."""
        if n < 0 or self.chunked:
            return super().read1(n)
        began, room = time.monotonic(), self._room
        piece = self._fill(min(n, room)) if room else super().read1(min(n, _FIRST))
        took = time.monotonic() - began
        if took > _SLOW:
            self._room = room // 4 if room > _FIRST else 0
        elif took < _QUICK and len(piece) >= room:
            self._room = min(PIECE, max(_FIRST, room * 4))
        return piece

    def _fill(self, size: int) -> bytes:
        if not self._buffer:
            self._buffer = memoryview(bytearray(PIECE))
        return cast("bytes", self._buffer[: self.readinto(self._buffer[:size])])


class _Plain(HTTPConnection):
    response_class: ClassVar[type[Answer]] = Answer  # type: ignore[misc]


class _Secure(HTTPSConnection):
    response_class: ClassVar[type[Answer]] = Answer  # type: ignore[misc]


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure


_POOLS = {"http": _PlainPool, "https": _SecurePool}


def pool_manager(
    connections: int, proxy: str | None = None, headers: Mapping[str, str] | None = None
) -> urllib3.PoolManager:
    """A manager of connections whose answers are of this kind.

    Args:
        connections: kept open for each host.
        proxy: URL of the proxy, or None for none.
        headers: for the proxy.
    """
    if proxy is None:
        manager = urllib3.PoolManager(num_pools=8, maxsize=connections)
    else:
        manager = urllib3.ProxyManager(proxy, num_pools=8, maxsize=connections, proxy_headers=headers)
    manager.pool_classes_by_scheme = _POOLS
    return manager
