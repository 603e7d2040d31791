"""The catalog as answers to a browser, made when they are asked for."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from wszoo.catalog.pages import POLICY, assets, list_page, shards
from wszoo.catalog.site import page_of
from wszoo.catalog.survey import Survey
from wszoo.distribution.serve import Page

if TYPE_CHECKING:
    from wszoo.store.store import Store

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")
_MODEL = re.compile(r"/catalog/models/([a-z0-9-]{1,128})\.html")
_DATA = re.compile(r"/catalog/data/[0-9a-f]{16}\.js")
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
# 'frame-ancestors' counts in a header only.
_HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class Catalog:
    """Answers browsers. The store is read when the first one asks, and again what has changed since.

    Args:
        store: which.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._state: object = None
        self._now: tuple[Survey | None, dict[str, bytes]] = (None, {})

    def answer(self, path: str, accept: str, host: str) -> Page | None:
        """The page at a path; None where there is none.

        Args:
            path: of the request, without the query.
            accept: the header. ``/`` is a page only for those who want HTML.
            host: the header, for the commands on the pages.
        """
        if path == "/" and "text/html" not in accept:
            return None
        for asset in assets().values():
            if path == f"/catalog/{asset.path}":
                return _page(path, asset.content, lasting=True)
        found = _MODEL.fullmatch(path)
        if not (found or path in {"/", "/index.html"} or _DATA.fullmatch(path)):
            return None
        survey, files = self._current()
        if found:
            place = survey.place(found[1])
            url = f"http://{host}" if _HOST.fullmatch(host) else ""
            return None if place is None else _page(path, page_of(survey, place, url=url, beside=False))
        name = "/index.html" if path == "/" else path
        content = files.get(name)
        return None if content is None else _page(name, content, lasting=name != "/index.html")

    def _current(self) -> tuple[Survey, dict[str, bytes]]:
        with self._lock:  # others wait: they need the same
            survey, _ = self._now
            state = self._look()
            if survey is None or state != self._state:
                survey = Survey(self._store, before=survey)
                self._now, self._state = (survey, _files(survey)), state
            return survey, self._now[1]

    def _look(self) -> object:
        """What changes whenever a ref does: whoever writes a ref renames a new ``index.json`` into place."""
        try:
            status = self._store.layout.index.stat()
        except OSError:
            return ()
        return status.st_mtime_ns, status.st_size, status.st_ino


def _files(survey: Survey) -> dict[str, bytes]:
    data = shards([model.summary for model in survey.models])
    listed = list_page(survey, list(data))
    return {"/index.html": listed, **{f"/catalog/{path}": content for path, content in data.items()}}


def _page(path: str, content: bytes, *, lasting: bool = False) -> Page:
    return Page(content, _TYPES[path.rpartition(".")[2]], {**_HEADERS, "Cache-Control": _cache(lasting=lasting)})


def _cache(*, lasting: bool) -> str:
    return "public, max-age=31536000, immutable" if lasting else "no-cache"
