"""A remote that is any web server with the files of an OCI image layout: read only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.errors import MalformedError, NotFoundError
from wszoo.hookspecs import hookimpl
from wszoo.remotes.layout_index import decode_layout_index, find, models_of
from wszoo.schema.decode import MAX_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.names import Ref
    from wszoo.remotes.protocol import Remote, RemoteType
    from wszoo.remotes.web import Web
    from wszoo.remotes.web_body import Body
    from wszoo.schema.oci import Descriptor, Index


class HttpRemote:
    """``https://HOST/PATH/`` with ``index.json`` and ``blobs/sha256/<hex>`` below it.

    Args:
        location: the URL; ``user:password@`` in it is sent as basic authentication and never shown.
        web: the client to use.
    """

    trusted = False

    def __init__(self, location: str, web: Web) -> None:
        from wszoo.remotes.web_errors import redact

        self._base = location.rstrip("/")
        self._web = web
        self.url = redact(self._base)

    def resolve(self, ref: Ref) -> Descriptor:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        return find(self._index(), ref, self.url)

    def refs(self) -> list[Ref]:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        return models_of(self._index())

    def open(self, descriptor: Descriptor, offset: int = 0, length: int | None = None) -> Body:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        from wszoo.remotes.web_body import Body

        url = f"{self._base}/blobs/sha256/{descriptor.digest.hex}"
        return Body(self._web, url, descriptor.size, offset, length)

    def _index(self) -> Index:
        try:
            data, response = self._web.read(f"{self._base}/index.json", limit=MAX_DOCUMENT)
        except NotFoundError as error:
            raise NotFoundError(
                f"{self.url} is no zoo: it has no index.json",
                hint="name the folder's URL; it has index.json, oci-layout and blobs/ in it",
            ) from error
        if data.lstrip()[:1] == b"<" or "text/html" in response.headers.get("Content-Type", ""):
            raise MalformedError(
                f"{self.url}/index.json is a web page", hint="a login or a captive portal may stand in front of it"
            )
        return decode_layout_index(data, self.url)


class HttpType:
    """Opens web servers."""

    name = "http"
    schemes: tuple[str, ...] = ("https", "http")

    def open(self, location: str) -> Remote:
        """See :class:`wszoo.remotes.protocol.RemoteType`."""
        from wszoo.remotes.web import Web, checked_url

        return HttpRemote(checked_url(location), Web())


@hookimpl
def wszoo_remotes() -> Sequence[RemoteType]:
    """Provide the web remote."""
    return [HttpType()]
