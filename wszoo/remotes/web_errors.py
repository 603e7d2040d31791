"""What an HTTP answer, or none, means for the caller: the right error, whether to try again, and when."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from urllib3.exceptions import LocationParseError, NameResolutionError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as UrllibTimeout

from wszoo.errors import NotFoundError, RemoteError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_GONE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_REFUSED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
# Worth another attempt although the status is a client error: timeouts, conflicts of two uploads, rate limits.
_PASSING = frozenset({408, 409, 423, 425, 429})
_SERVER_ERROR = 500
_BODY_SHOWN = 300  # characters of an error's body that help to understand it


def check_status(response: BaseHTTPResponse, method: str, url: str, accept: frozenset[int]) -> None:
    """Raise unless the status is one of those.

    Raises:
        NotFoundError: 404 or 410.
        RemoteError: anything else.
    """
    status = response.status
    if status in accept:
        return
    what, detail = f"{method} {redact(url)}", _detail(response)
    if status in _GONE:
        raise NotFoundError(f"{what}: not found ({status})", hint="check the remote's URL and the model's name")
    if status in _REFUSED:
        raise RemoteError(
            f"{what}: access refused ({status}){detail}",
            hint="check the credentials for this remote; docs/remotes.md says where each kind takes them from",
            permanent=True,
        )
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "unknown status"
    raise RemoteError(
        f"{what}: {phrase} ({status}){detail}",
        retry_after=retry_after(response.headers.get("Retry-After")),
        permanent=status < _SERVER_ERROR and status not in _PASSING,
    )


def retry_after(value: str | None) -> float | None:
    """Seconds from a ``Retry-After`` header, which has a number or a date; None when there is none that makes sense."""
    if value is None:
        return None
    try:
        return max(0.0, float(int(value)))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def connection_error(error: Exception, url: str) -> RemoteError:
    """The error for a request that got no answer, or whose answer broke off."""
    host = urlsplit(url).hostname
    causes = [error, error.__cause__, error.__context__, getattr(error, "original_error", None)]
    if any(isinstance(each, NameResolutionError) for each in causes):
        return RemoteError(f"cannot find the host {host!r}", hint="check the name and the network connection")
    if any(isinstance(each, SSLError) for each in causes):
        return RemoteError(
            f"{host} has no certificate that this machine trusts: {error}",
            hint="add its authority to the system's certificates (SSL_CERT_FILE names another file)",
            permanent=True,
        )
    if isinstance(error, LocationParseError):
        return RemoteError(f"not a URL: {redact(url)!r}", permanent=True)
    if any(isinstance(each, NewConnectionError) for each in causes):
        reason = str(error).rpartition(": ")[2]  # urllib3 puts its connection object before it
        return RemoteError(f"cannot connect to {host}: {reason}", hint="is it running, and the network up?")
    if any(isinstance(each, UrllibTimeout) for each in causes):
        return RemoteError(f"{redact(url)} does not answer in time", hint="try again")
    return RemoteError(f"{redact(url)} broke off: {error}", hint="try again")


def redact(url: str) -> str:
    """A URL without passwords and without the signatures that stand in queries."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def _detail(response: BaseHTTPResponse) -> str:
    if "html" in response.headers.get("Content-Type", ""):
        response.close()
        return ""
    try:
        text = response.read(_BODY_SHOWN, decode_content=False).decode(errors="replace")
    except Exception:  # noqa: BLE001 - what it would have said is lost, the status is not
        text = ""
    response.close()
    shown = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    return f": {shown}" if shown else ""
