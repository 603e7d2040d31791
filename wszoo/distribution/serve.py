"""A store over HTTP, read only: for a LAN, a test, or behind a proxy that does TLS.

Three kinds of paths exist: ``/oci-layout``, ``/index.json`` and ``/blobs/sha256/<hex>``. A path is matched as a whole
and never turned into a file name otherwise, so nothing else of the machine can be asked for. Pages for browsers come
from whoever is given as ``pages``, see :mod:`wszoo.catalog.live`; they are bytes in memory, never files.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from wszoo.digest import Digest
from wszoo.errors import MalformedError, StorageError
from wszoo.store.files import open_regular
from wszoo.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wszoo.store.store import Store

_BLOB = re.compile(r"/blobs/sha256/([0-9a-f]{64})")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_PIECE = 1 << 20
IDLE_SECONDS = 60  # a client that neither asks nor takes anything for so long is dropped


@dataclass(frozen=True, slots=True)
class Page:
    """What a browser gets.

    Attributes:
        content: bytes.
        kind: its media type.
        headers: others.
    """

    content: bytes
    kind: str
    headers: dict[str, str]


class Pages(Protocol):
    """Who has pages for browsers."""

    def answer(self, path: str, accept: str, host: str) -> Page | None:
        """The page at a path, or None; with the request's ``Accept`` and ``Host``, which may be anything."""
        ...


class StoreServer(ThreadingHTTPServer):
    """Serves one store; ``serve_forever`` runs it, ``shutdown`` and ``server_close`` end it.

    Args:
        store: which.
        host: address to listen on.
        port: 0 takes a free one; see :attr:`url`.
        log: gets a line for each request.
        pages: for browsers; None for no such pages.

    Raises:
        StorageError: the address cannot be listened on.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        store: Store,
        host: str = "127.0.0.1",
        port: int = 0,
        log: Callable[[str], None] | None = None,
        pages: Pages | None = None,
    ) -> None:
        self.store = store
        self.log = log
        self.pages = pages
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise StorageError(
                f"cannot listen on {host} port {port}: {error.strerror or error}",
                hint="another program may use the port: give another --port, or 0 for a free one",
            ) from error

    @property
    def url(self) -> str:
        """What to pull from."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002 - socketserver's signature
        """A client that goes away in the middle is no news; a disk that fails is."""
        error = sys.exception()
        if self.log is not None and not isinstance(error, (ConnectionError, TimeoutError)):
            self.log(f"{client_address[0]} got no answer: {error!r}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"wszoo/{__version__}"
    sys_version = ""
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    server: StoreServer

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        found = self._find()
        if found is None:
            self._show(body=body)
            return
        path, kind = found
        try:
            with open_regular(path) as file:
                self._send(file, os.fstat(file.fileno()).st_size, kind, body=body)
        except (FileNotFoundError, MalformedError):
            self._refuse(HTTPStatus.NOT_FOUND)

    def _show(self, *, body: bool) -> None:
        """Answer a browser."""
        path, pages = self.path.partition("?")[0], self.server.pages
        page = pages.answer(path, self.headers.get("Accept", ""), self.headers.get("Host", "")) if pages else None
        if page is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        fixed = {"Content-Type": page.kind, "Content-Length": str(len(page.content))}
        for name, value in {**page.headers, **fixed, "X-Content-Type-Options": "nosniff"}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            with suppress(ConnectionError, TimeoutError):
                self.wfile.write(page.content)

    def _find(self) -> tuple[Path, str] | None:
        store, path = self.server.store, self.path.partition("?")[0]
        if path == "/index.json":
            return store.layout.index, "application/vnd.oci.image.index.v1+json"
        if path == "/oci-layout":
            return store.layout.marker, "application/json"
        if match := _BLOB.fullmatch(path):
            return store.blobs.path(Digest(f"sha256:{match[1]}")), "application/octet-stream"
        return None

    def _send(self, file: BinaryIO, size: int, kind: str, *, body: bool) -> None:
        span = _span(self.headers.get("Range"), size)
        if span is None:
            self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"})
            return
        first, end = span
        partial = (first, end) != (0, size)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK)
        if partial:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Cache-Control", "no-cache" if kind != "application/octet-stream" else "max-age=31536000")
        self.send_header("Content-Length", str(end - first))
        self.send_header("Content-Type", kind)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if body:
            self._copy(file, first, end - first)

    def _copy(self, file: BinaryIO, first: int, left: int) -> None:
        buffer = memoryview(bytearray(min(_PIECE, left)))
        file.seek(first)
        with suppress(ConnectionError, TimeoutError):
            while left:
                count = file.readinto(buffer[: min(len(buffer), left)])  # type: ignore[attr-defined]
                if not count:
                    break
                self.wfile.write(buffer[:count])
                left -= count
        self.close_connection = self.close_connection or bool(left)

    def _refuse(self, status: HTTPStatus, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 - http.server's signature
        if self.server.log is not None:
            text = format % args
            shown = "".join(letter if letter.isprintable() else "?" for letter in text)
            self.server.log(f"{self.client_address[0]} {shown}")


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and end of what a ``Range`` header asks for; None when there is no such part of the file.

    Several ranges, and other units, are answered with the whole file, as RFC 9110 allows.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not (match[1] or match[2]):
        return 0, size
    if not match[1]:
        count = min(int(match[2]), size)
        return (size - count, size) if count else None
    first, end = int(match[1]), min(int(match[2]) + 1 if match[2] else size, size)
    if match[2] and int(match[2]) < first:
        return 0, size
    return (first, end) if first < size else None
