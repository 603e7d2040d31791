"""One HTTP client for every remote that speaks HTTP: urllib3 with bounded redirects, honest ranges, typed errors.

urllib3 is asked for no retries of its own (the transfer engine and push retry, and know why), for no decoding
(``Accept-Encoding: identity``: ranges of an encoded body would be ranges of something else), and for the system's
certificates. ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` are honoured.
"""

from __future__ import annotations

import threading
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urljoin, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import HTTPError

from wszoo.errors import LimitError, RemoteError, UsageError
from wszoo.remotes.web_errors import check_status, connection_error, redact
from wszoo.remotes.web_pieces import pool_manager
from wszoo.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0  # without a byte; the engine's stall watchdog is quicker and knows the rate
REDIRECTS = 5
CONNECTIONS = 64  # kept open for each host; the engine decides how many are used

_LITTLE = 1 << 16  # bytes of an answer nobody needs that are worth reading to keep the connection
_REDIRECT = frozenset({301, 302, 303, 307, 308})
_HEADERS = {"User-Agent": f"wszoo/{__version__}", "Accept-Encoding": "identity"}
_UNSAFE_TO_FOLLOW = frozenset({"POST", "PATCH"})

Response = urllib3.BaseHTTPResponse


class Credentials(Protocol):
    """Who adds an ``Authorization`` header, and learns from refusals."""

    def header(self, method: str, url: str) -> str | None:
        """The header's value for a request, or None."""
        ...

    def challenged(self, response: Response, method: str, url: str) -> bool:
        """Take a 401 into account; True when trying once more makes sense."""
        ...


class Anonymous:
    """No credentials but those that stand in the URL."""

    def header(self, method: str, url: str) -> str | None:  # noqa: ARG002 - part of the protocol
        """``Basic`` for ``https://user:password@host/``."""
        parts = urlsplit(url)
        if parts.username is None:
            return None
        made = urllib3.make_headers(basic_auth=f"{parts.username}:{parts.password or ''}")
        return made.get("authorization")

    def challenged(self, response: Response, method: str, url: str) -> bool:  # noqa: ARG002
        """Nothing more can be offered."""
        return False


class Web:
    """A connection pool with credentials. Safe to use from several threads.

    Args:
        credentials: for the host that the user named; redirects to another host go without.
    """

    def __init__(self, credentials: Credentials | None = None) -> None:
        self._credentials: Credentials = credentials or Anonymous()
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Any] | None = None,
        accept: frozenset[int] = frozenset({200}),
    ) -> Response:
        """Send a request; the response's body has not been read, and is the caller's to release.

        Args:
            method: ``GET``, ``HEAD``, ``PUT``, ...
            url: where to.
            headers: in addition to the usual.
            body: makes the body, anew for each attempt; None for none.
            accept: statuses that are no error.

        Raises:
            NotFoundError: 404 or 410.
            RemoteError: any other status, or no answer.
        """
        for attempt in range(2):
            response = self._follow(method, url, headers or {}, body)
            if response.status != 401 or attempt:  # noqa: PLR2004
                break
            finish(response)
            if not self._credentials.challenged(response, method, url):
                break
        check_status(response, method, url, accept)
        return response

    def read(self, url: str, *, limit: int, headers: Mapping[str, str] | None = None) -> tuple[bytes, Response]:
        """A small document's bytes, and the response for its headers.

        Raises:
            NotFoundError: it is not there.
            LimitError: larger than ``limit``.
            RemoteError: it cannot be had.
        """
        response = self.request("GET", url, headers=headers)
        try:
            data = response.read(limit + 1, decode_content=False)
        except (HTTPError, OSError) as error:
            raise connection_error(error, url) from error
        finally:
            response.close()
        if len(data) > limit:
            raise LimitError(f"{redact(url)} is larger than the {limit} bytes that wszoo accepts for it")
        return data, response

    def _follow(self, method: str, url: str, headers: Mapping[str, str], body: Callable[[], Any] | None) -> Response:
        origin = here = url
        for _ in range(REDIRECTS + 1):
            sent = {**_HEADERS, **headers}
            if _host(here) == _host(origin) and (credential := self._credentials.header(method, here)):
                sent["Authorization"] = credential
            response = self._send(method, here, sent, body)
            target = response.headers.get("Location")
            if response.status not in _REDIRECT or not target or method in _UNSAFE_TO_FOLLOW:
                return response
            response.close()
            here = _checked(here, urljoin(here, target))
        raise RemoteError(f"{redact(origin)} redirects more than {REDIRECTS} times", permanent=True)

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Callable[[], Any] | None) -> Response:
        try:
            return self._pool(url).request(
                method,
                _without_user(url),
                headers=dict(headers),
                body=body() if body else None,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            )
        except (HTTPError, OSError) as error:
            raise connection_error(error, url) from error

    def _pool(self, url: str) -> urllib3.PoolManager:
        proxy = _proxy(url)
        with self._lock:
            if proxy not in self._pools:
                self._pools[proxy] = _manager(proxy)
            return self._pools[proxy]


def finish(response: Response) -> None:
    """Give the connection back for the next request, or end it if the server has more than a little to say."""
    with suppress(HTTPError, OSError):
        response.read(_LITTLE, decode_content=False)
    response.close()  # does nothing to a connection that was given back because all was read


def checked_url(url: str) -> str:
    """The URL, if it has a host and a port that can be.

    Raises:
        UsageError: it has not.
    """
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.port != 0 and not parts.query and not parts.fragment
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"not a URL of a remote: {url!r}", hint="such as https://HOST/PATH")
    return url


def _manager(proxy: str | None) -> urllib3.PoolManager:
    if proxy is None:
        return pool_manager(CONNECTIONS)
    user = urlsplit(proxy)
    headers = urllib3.make_headers(proxy_basic_auth=f"{user.username}:{user.password or ''}") if user.username else None
    return pool_manager(CONNECTIONS, _without_user(proxy), headers)


def _proxy(url: str) -> str | None:
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    found = urllib.request.getproxies()
    proxy = found.get(parts.scheme) or found.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _host(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2]


def _checked(source: str, target: str) -> str:
    before, after = urlsplit(source).scheme, urlsplit(target).scheme
    if after not in {"http", "https"} or (before == "https" and after == "http"):
        raise RemoteError(f"{redact(source)} redirects to {redact(target)}, which is less safe", permanent=True)
    return target


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
