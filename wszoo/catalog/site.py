"""The catalog as static files, beside a store or in a folder of their own.

::

    DIR/
      index.html                  the list
      catalog/
        site.json                 the card: every file that was written, with its size and what it was made from
        assets/<name>-<hash>.*    scripts and styles
        data/<hash>.js            the list as data, a thousand models a file
        models/<name>-<hash>.html a page for each model

Every file is renamed into place. Data and assets are named by their content and the list comes after them, so who looks
meanwhile, or after a crash, sees the old list or the new one. The card is written before the first file and again after
the last one: a folder without a card, and files that no card lists, are somebody else's and stay as they are. There is
no fsync, which for 10,000 pages would take minutes: they can be made again, and after a power failure the next run does
so where a size is not the one on the card.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from wszoo.catalog.detail import detail
from wszoo.catalog.pages import assets, broken_page, edition, list_page, model_page, shards
from wszoo.catalog.survey import Survey, told
from wszoo.errors import MalformedError, StorageError, UsageError, WszooError
from wszoo.progress import Silent
from wszoo.schema.decode import decode, encode
from wszoo.store.files import delete, replace, storage_errors, unique_name

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.catalog.survey import Surveyed
    from wszoo.progress import Progress
    from wszoo.store.store import Store

CARD = "catalog/site.json"
INDEX = "index.html"
MAX_CARD = 256 << 20  # bytes; 10,000 models take 2 MB
_OURS = re.compile(r"index\.html|catalog/(?:assets|data|models)/[a-z0-9-]{1,128}\.(?:html|js|css|svg)")
_FOLDERS = ("catalog", "catalog/assets", "catalog/data", "catalog/models")


class Made(msgspec.Struct, frozen=True, array_like=True):
    """A file of a site.

    Attributes:
        size: bytes; -1 while it is not known whether it was written.
        source: hash of what it was made from.
    """

    size: int
    source: str


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``catalog/site.json``.

    Attributes:
        wszoo: which edition of the pages.
        files: path with ``/`` -> what is there.
    """

    wszoo: str
    files: dict[str, Made]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReport:
    """What was done.

    Attributes:
        models: that are listed.
        broken: of them, those that cannot be read, with refs that cannot be read at all.
        written: files.
        written_bytes: their bytes.
        kept: files that were right already.
        removed: files of models that are gone.
    """

    models: int
    broken: int
    written: int
    written_bytes: int
    kept: int
    removed: int


def write_site(store: Store, folder: Path, *, url: str = "", progress: Progress | None = None) -> SiteReport:
    """Write a store's catalog; what is right already is left alone.

    Args:
        store: which.
        folder: new, empty, one that this function wrote, or the store's own.
        url: where the store will be found, for the commands on the pages; empty when it is not known.
        progress: where to report.

    Raises:
        UsageError: something else is in the folder.
        StorageError: the file system refuses.
    """
    site = _Site(folder, _former(store, folder))
    survey = Survey(store, progress)
    summaries = [model.summary for model in survey.models]
    beside = _is(folder, store.layout.root)
    with storage_errors("write the site to"):
        data = shards(summaries)
        site.begin([f"catalog/models/{summary.page}.html" for summary in summaries])
        for asset in assets().values():
            site.put(f"catalog/{asset.path}", asset.content)
        with (progress or Silent()).stage("write pages", len(survey.models), unit="models") as advance:
            for place, model in enumerate(survey.models):
                _put_page(site, survey, place, model, url=url, beside=beside)
                advance(1)
        for path, content in data.items():
            site.put(f"catalog/{path}", content)
        site.put(INDEX, list_page(survey, list(data)))
        site.finish()
    broken = sum(bool(summary.problem) for summary in summaries) + len(survey.problems)
    return SiteReport(
        models=len(summaries),
        broken=broken,
        written=site.written,
        written_bytes=site.written_bytes,
        kept=len(site.files) - site.written,
        removed=site.removed,
    )


def page_of(survey: Survey, place: int, *, url: str, beside: bool) -> bytes:
    """The page of the model at that position; of one that cannot be read, a page that says so."""
    summary = survey.models[place].summary
    if summary.problem:
        return broken_page(summary)
    try:
        return model_page(detail(survey, place, url), beside=beside)
    except WszooError as error:  # it was readable a moment ago
        return broken_page(msgspec.structs.replace(summary, problem=told(survey.store, error)))


def _put_page(site: _Site, survey: Survey, place: int, model: Surveyed, *, url: str, beside: bool) -> None:
    path = f"catalog/models/{model.summary.page}.html"
    near = survey.sharing.of(place)
    names = [(survey.models[other].summary.ref, nbytes) for other, nbytes in near.others]
    rest = msgspec.json.encode((edition(), url, beside, near.nbytes, names))
    source = hashlib.sha256(model.seen + rest).hexdigest()[:32]
    if not site.keep(path, source):
        site.put(path, page_of(survey, place, url=url, beside=beside), source)


class _Site:
    """A site while it is being written.

    Args:
        folder: where.
        before: what a former run left.
    """

    def __init__(self, folder: Path, before: dict[str, Made]) -> None:
        self._folder = folder
        self._before = before
        self.files: dict[str, Made] = {}
        self.written = self.written_bytes = self.removed = 0

    def begin(self, pages: list[str]) -> None:
        """Make the folders, and a card that owns what will be written."""
        for name in _FOLDERS:
            place = self._folder / name
            place.mkdir(parents=True, exist_ok=True)
            if place.is_symlink():
                raise UsageError(f"{place} is a link", hint="name a folder of its own with -o")
        coming = {path: Made(-1, "") for path in (*pages, INDEX) if path not in self._before}
        if coming:
            self._replace(CARD, encode(Card(wszoo=edition(), files={**self._before, **coming})))

    def keep(self, path: str, source: str) -> bool:
        """True when the file there was made from that, and is whole."""
        made = self._before.get(path)
        if made is None or made.source != source or not self._has(path, made.size):
            return False
        self.files[path] = made
        return True

    def put(self, path: str, content: bytes, source: str = "") -> None:
        """Write a file, unless it is there as it should be."""
        source = source or hashlib.sha256(content).hexdigest()[:32]
        if not self.keep(path, source):
            self._replace(path, content)
            self.files[path] = Made(len(content), source)
            self.written += 1
            self.written_bytes += len(content)

    def finish(self) -> None:
        """Write the card, then delete what it no longer lists."""
        if self.files == self._before:
            return
        gone = [path for path in self._before if path not in self.files]
        self._replace(CARD, encode(Card(wszoo=edition(), files=self.files)))
        for path in gone:
            with suppress(FileNotFoundError):
                delete(self._folder / path)
                self.removed += 1

    def _has(self, path: str, size: int) -> bool:
        try:
            return (self._folder / path).lstat().st_size == size
        except OSError:
            return False

    def _replace(self, path: str, content: bytes) -> None:
        target = self._folder / path
        temporary = target.with_name(f".{unique_name()}")
        try:
            temporary.write_bytes(content)
            replace(temporary, target)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _former(store: Store, folder: Path) -> dict[str, Made]:
    """What an earlier run wrote to a folder; raises where something else has."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder", hint="name another place with -o")
    with storage_errors("look at"):
        if (folder / CARD).is_file():
            return _read_card(folder / CARD)
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    foreign = there & {INDEX, "catalog"} if _is(folder, store.layout.root) else there
    if foreign:
        raise UsageError(
            f"{folder} holds what 'wszoo site' did not write: {', '.join(sorted(foreign)[:3])}",
            hint="name a new folder with -o, or the store's own",
        )
    return {}


def _read_card(path: Path) -> dict[str, Made]:
    try:
        with path.open("rb") as file:
            card = decode(file.read(MAX_CARD + 1), Card, what=str(path), limit=MAX_CARD)
    except MalformedError as error:
        raise StorageError(error.message, hint="delete the folder that it is in, and write the site again") from error
    strange = [name for name in card.files if not _OURS.fullmatch(name)]
    if strange:  # what the card lists may be deleted
        raise UsageError(f"{path} lists {strange[0]!r}, which no site has", hint="name a new folder with -o")
    return card.files


def _is(folder: Path, root: Path) -> bool:
    return folder.exists() and root.exists() and folder.samefile(root)
