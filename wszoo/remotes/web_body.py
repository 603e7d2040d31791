"""A range of a blob over HTTP: what was asked for or an error, in bounded pieces, and stoppable from any thread."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from urllib3.exceptions import HTTPError

from wszoo.errors import RemoteError
from wszoo.remotes.web_errors import connection_error, redact
from wszoo.remotes.web_pieces import PIECE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wszoo.remotes.web import Response, Web

_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class Body:
    """Iterates over the bytes ``[offset, offset + length)`` of a URL; :meth:`close` stops it, from any thread.

    The request is sent when the first piece is asked for.

    Args:
        web: sends the request.
        url: of the blob.
        size: of the whole blob, as its descriptor says.
        offset: first byte.
        length: bytes; None means to the end.
    """

    def __init__(self, web: Web, url: str, size: int, offset: int, length: int | None) -> None:
        self._web = web
        self._url = url
        self._size = size
        self._offset = offset
        self._left = max(0, size - offset) if length is None else length
        self._response: Response | None = None
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._left:
            self.close()
            raise StopIteration
        if self._closed:
            raise RemoteError(f"reading {redact(self._url)} was given up")
        if self._response is None:
            self._response = self._open()
        piece = self._read(min(PIECE, self._left))
        if not piece:
            left, self._left = self._left, 0
            self.close()
            raise RemoteError(f"{redact(self._url)} ended {left} bytes early", hint="try again")
        self._left -= len(piece)
        if not self._left:
            self._finish()
        return piece

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; who waits for bytes of it gets an error."""
        self._closed = True
        response, self._response = self._response, None
        if response is not None:
            with suppress(Exception):  # a connection that is gone already
                response.shutdown()
            with suppress(Exception):
                response.close()

    def _finish(self) -> None:
        """Give the connection back for the next request, unless the server has more to say."""
        response, self._response = self._response, None
        if response is not None and response.length_remaining == 0:
            response.release_conn()
        elif response is not None:
            response.close()

    def _read(self, count: int) -> bytes:
        response = self._response
        if self._closed or response is None:  # closed while the request was on its way
            self.close()
            raise RemoteError(f"reading {redact(self._url)} was given up")
        try:
            # What comes in a moment, not a whole piece: on a slow line that takes longer than the watchdog waits.
            return response.read1(count, decode_content=False)
        except (
            HTTPError,
            OSError,
            ValueError,
            AttributeError,
        ) as error:  # the latter two when closed by another thread
            self.close()
            raise connection_error(error, self._url) from error

    def _open(self) -> Response:
        last = self._offset + self._left - 1
        whole = self._offset == 0 and last + 1 >= self._size
        headers = {} if whole else {"Range": f"bytes={self._offset}-{last}"}
        response = self._web.request(
            "GET", self._url, headers=headers, accept=frozenset({_OK, _PARTIAL, _UNSATISFIABLE})
        )
        try:
            self._check(response, last)
        except BaseException:
            response.close()
            raise
        return response

    def _check(self, response: Response, last: int) -> None:
        url, found = redact(self._url), response.headers
        if found.get("Content-Encoding", "identity") not in {"", "identity"}:
            raise RemoteError(f"{url} is sent encoded as {found['Content-Encoding']!r}, unasked", permanent=True)
        if "text/html" in found.get("Content-Type", "").lower():
            raise RemoteError(
                f"{url} answers with a web page instead of bytes",
                hint="a login or a captive portal may stand in front of it: open it in a browser",
                permanent=True,
            )
        if response.status == _UNSATISFIABLE:
            raise RemoteError(f"{url} is shorter than the {self._size} bytes that its descriptor says", permanent=True)
        if response.status == _PARTIAL:
            self._check_range(found.get("Content-Range", ""), last)
            return
        length = found.get("Content-Length")
        if length is not None and length.strip() != str(self._size):
            raise RemoteError(f"{url} has {length} bytes, its descriptor says {self._size}", permanent=True)
        self._skip(response)

    def _check_range(self, text: str, last: int) -> None:
        match = _RANGE.fullmatch(text.strip())
        expected = (self._offset, last)
        if match is None or (int(match[1]), int(match[2])) != expected or match[3] not in {"*", str(self._size)}:
            raise RemoteError(
                f"{redact(self._url)} was asked for bytes {expected[0]}-{expected[1]}/{self._size} and sends {text!r}",
                hint="a cache in between may be broken",
            )

    def _skip(self, response: Response) -> None:
        """A server without ranges sends everything: pass over what was not asked for."""
        left = self._offset
        while left:
            try:
                piece = response.read(min(PIECE, left), decode_content=False)
            except (HTTPError, OSError) as error:
                raise connection_error(error, self._url) from error
            if not piece:
                raise RemoteError(f"{redact(self._url)} ended before byte {self._offset}", hint="try again")
            left -= len(piece)
