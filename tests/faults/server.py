"""A local web server for an OCI image layout that counts what it sends, and misbehaves when it is told to."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PIECE = 64 << 10


@dataclass
class Request:
    """One request for a blob: which in the order of all, and what for.

    Attributes:
        whole: no range was asked for.
    """

    number: int
    path: str
    start: int
    end: int
    whole: bool


@dataclass
class Fault:
    """What to do instead of answering well.

    Attributes:
        kind: ``cut`` (close half-way), ``stall`` (stop half-way), ``flip`` (a bit), ``short`` (a well-formed answer
            with fewer bytes), ``range`` (the Content-Range of other bytes), ``status``, ``html``, ``redirect`` (to
            itself).
        status: for ``status``.
        retry_after: for ``status``.
    """

    kind: str
    status: int = 503
    retry_after: str | None = None


@dataclass
class FaultServer:
    """Serves ``root`` until the block ends.

    Attributes:
        root: an OCI image layout.
        fault: function of a request for a blob that gives what goes wrong, or None.
        rate: bytes a second for each connection; None for as fast as it goes.
        sent: bytes sent, by path.
        requests: all for blobs.
        ranges: answer range requests.
    """

    root: Path
    fault: object = None
    rate: float | None = None
    sent: Counter = field(default_factory=Counter)
    requests: list = field(default_factory=list)
    ranges: bool = True
    stopped: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    @property
    def blob_bytes(self):
        """Bytes of blobs that were sent."""
        with self.lock:
            return sum(count for path, count in self.sent.items() if "/blobs/" in path)

    @contextmanager
    def running(self):
        """Serve while the block runs."""
        server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stopped.set()
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Clients hang up; a traceback on the error stream would look like theirs."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultServer

    def setup(self):
        super().setup()
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *_):
        pass

    def do_GET(self):
        with suppress(ConnectionError):
            self._answer()

    def _answer(self):
        path = self.owner.root / self.path.lstrip("/")
        if ".." in self.path or not path.is_file():
            self._status(404, {})
            return
        size = path.stat().st_size
        start, end = self._range(size)
        fault = self._fault(start, end) if "/blobs/" in self.path else None
        if fault and fault.kind == "status":
            self._status(fault.status, {"Retry-After": fault.retry_after} if fault.retry_after else {})
        elif fault and fault.kind == "redirect":
            self._status(302, {"Location": self.path})
        elif fault and fault.kind == "html":
            self._status(200, {"Content-Type": "text/html"}, b"<html>please log in</html>")
        else:
            self._send(path, (start, end, size), fault.kind if fault else "")

    def _fault(self, start, end):
        owner = self.owner
        with owner.lock:
            request = Request(len(owner.requests), self.path, start, end, "Range" not in self.headers)
            owner.requests.append(request)
        return owner.fault(request) if owner.fault else None

    def _range(self, size):
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None or not self.owner.ranges:
            return 0, size
        return int(match[1]), min(size, int(match[2]) + 1 if match[2] else size)

    def _status(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def _send(self, path, extent, kind):
        start, end, size = extent
        partial = self.owner.ranges and "Range" in self.headers
        length = (end - start) // 2 if kind == "short" else end - start
        shift = 7 if kind == "range" else 0
        self.send_response(206 if partial else 200)
        self.send_header("Content-Length", str(length))
        if partial:
            self.send_header("Content-Range", f"bytes {start + shift}-{start + length - 1 + shift}/{size}")
        self.end_headers()
        stop = start + length // 2 if kind in {"cut", "stall"} else start + length
        self._pieces(path, start, stop, kind)
        if kind == "stall":
            self.owner.stopped.wait(60)
        if kind in {"cut", "stall"}:
            self.close_connection = True

    def _pieces(self, path, start, stop, kind):
        began = time.monotonic()
        with path.open("rb") as file:
            file.seek(start)
            done = 0
            while done < stop - start and (piece := file.read(min(PIECE, stop - start - done))):
                if kind == "flip" and not done:
                    piece = bytes([piece[0] ^ 1]) + piece[1:]
                self.wfile.write(piece)
                done += len(piece)
                with self.owner.lock:
                    self.owner.sent[self.path] += len(piece)
                if self.owner.rate:
                    time.sleep(max(0.0, began + done / self.owner.rate - time.monotonic()))
