"""Uploading a blob to a registry: in one request, or a large one in chunks that can each be tried again.

Source: the OCI distribution specification 1.1, "Pushing blobs".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin

from wszoo.errors import IntegrityError, NotFoundError, RemoteError
from wszoo.remotes.web import finish

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.remotes.web import Response, Web
    from wszoo.schema.oci import Descriptor

CHUNK = 64 << 20  # packs stay below this, so nearly all blobs take one request; some registries refuse larger bodies
_PIECE = 1 << 20
_STARTED, _TAKEN, _DONE = frozenset({202}), frozenset({202, 204}), frozenset({201, 204})
_MOUNTED = 201


def upload(web: Web, start: str, descriptor: Descriptor, path: Path, home: str | None = None) -> bool:
    """Upload a file as a blob, or have the registry take it over from another of its repositories.

    Args:
        web: sends the requests.
        start: URL of the repository's uploads.
        descriptor: of the blob.
        path: the file with its bytes.
        home: a repository that may have it. Where it has not, or may not be read, the bytes are sent.

    Returns:
        Whether the bytes were sent.

    Raises:
        RemoteError: the registry cannot be reached or refuses.
        IntegrityError: it received other bytes than the descriptor says.
    """
    response = _begin(web, start, descriptor, home)
    if response.status == _MOUNTED:
        finish(response)
        return False
    place, sent = _location(response, start), 0
    while descriptor.size - sent > CHUNK:
        part = _Part(path, sent, CHUNK)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(CHUNK),
            "Content-Range": f"{sent}-{sent + CHUNK - 1}",
        }
        place = _location(web.request("PATCH", place, headers=headers, body=part.open, accept=_TAKEN), place)
        sent += CHUNK
    last = _Part(path, sent, descriptor.size - sent)
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(last.length)}
    if sent and last.length:
        headers["Content-Range"] = f"{sent}-{descriptor.size - 1}"
    url = f"{place}{'&' if '?' in place else '?'}digest={descriptor.digest}"
    response = web.request("PUT", url, headers=headers, body=last.open, accept=_DONE)
    finish(response)
    echo = response.headers.get("Docker-Content-Digest")
    if echo is not None and echo != descriptor.digest:
        raise IntegrityError(f"blob {descriptor.digest} arrived at {start} as {echo}")
    return True


def _begin(web: Web, start: str, descriptor: Descriptor, home: str | None) -> Response:
    headers = {"Content-Length": "0"}
    if home is not None:
        mount = f"{start}?{urlencode({'mount': str(descriptor.digest), 'from': home})}"
        try:
            return web.request("POST", mount, headers=headers, accept=_STARTED | {_MOUNTED})
        except (NotFoundError, RemoteError) as error:
            if isinstance(error, RemoteError) and not error.permanent:
                raise
    return web.request("POST", start, headers=headers, accept=_STARTED)


class _Part:
    """A piece of a file as a request's body; opened anew for each attempt."""

    def __init__(self, path: Path, offset: int, length: int) -> None:
        self._path = path
        self._offset = offset
        self.length = length

    def open(self) -> Any:  # noqa: ANN401 - urllib3 takes any iterable
        left = self.length
        with self._path.open("rb") as file:
            file.seek(self._offset)
            while left and (piece := file.read(min(_PIECE, left))):
                left -= len(piece)
                yield piece


def _location(response: Response, url: str) -> str:
    finish(response)
    target = response.headers.get("Location")
    if not target:
        raise RemoteError(f"{url} accepts an upload and does not say where", permanent=True)
    return urljoin(url, target)
