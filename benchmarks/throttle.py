"""A link of limited rate: forwards TCP connections, all of them together at no more than so many bytes a second.

Only what comes back from the server is held up. Payload is counted, not the headers of TCP and IP.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE = 16 << 10  # 1.3 ms at 100 Mbit/s
_BURST = 0.05  # seconds; what a link's queue holds, and what makes up for a sleep that took too long


class Throttle:
    """Forwards from a free port to another.

    Args:
        target: host and port.
        rate: bytes a second.
    """

    def __init__(self, target: tuple[str, int], rate: float) -> None:
        self._target = target
        self._rate = rate
        self._free = 0.0  # when the link has sent what was given to it
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]

    @contextmanager
    def running(self) -> Iterator[Throttle]:
        """Forward while the block runs."""
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for pair, limited in (((client, server), False), ((server, client), True)):
                    threading.Thread(target=self._forward, args=(*pair, limited), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, limited: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE):
                if limited:
                    self._wait(len(piece))
                target.sendall(piece)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _wait(self, count: int) -> None:
        with self._lock:
            self._free = max(self._free, time.monotonic() - _BURST) + count / self._rate
            until = self._free
        if (left := until - time.monotonic()) > 0:
            time.sleep(left)
