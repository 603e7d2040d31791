"""A remote in a repository of the Hugging Face Hub: ``hf://ORG/REPO``, optionally ``hf://ORG/REPO@BRANCH``.

::

    index.json  oci-layout
    blobs/sha256/<first two digits>/<hex>     the Hub advises fewer than 10,000 files a folder

Reading is plain HTTP with ranges. Pushing uploads blobs first (``preupload_lfs_files``) and then makes one commit of
all files with the commit that was looked at as its parent, so that of two pushes one is told: a true compare-and-swap.
Blobs become readable with that commit. ``HF_TOKEN``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` are honoured.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from wszoo.errors import NotFoundError, RemoteError, UsageError
from wszoo.hookspecs import hookimpl
from wszoo.remotes.layout_index import decode_layout_index, find, models_of, refs_of, with_ref
from wszoo.schema.decode import MAX_DOCUMENT, encode
from wszoo.schema.oci import Index, Layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from wszoo.digest import Digest
    from wszoo.names import Ref
    from wszoo.remotes.protocol import Remote, RemoteType
    from wszoo.remotes.web import Response, Web
    from wszoo.remotes.web_body import Body
    from wszoo.schema.oci import Descriptor

_LOCATION = re.compile(r"hf://([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w./-]+))?/?")
_ASKED = 500  # paths in one question
_RACES = 20
_CONFLICTS = frozenset({409, 412})  # how the Hub says that the parent is no longer the branch's last commit
_REFUSED = frozenset({401, 403})


class HubRemote:
    """One branch of one model repository.

    Args:
        url: as the user named it.
        repository: ``ORG/REPO``.
        branch: such as ``main``.
        api: huggingface_hub's ``HfApi``, with endpoint and token.
        web: sends what is only read.
    """

    trusted = False

    def __init__(self, url: str, repository: str, branch: str, api: Any, web: Web) -> None:  # noqa: ANN401 - untyped
        self.url = url
        self._repository = repository
        self._branch = branch
        self._api = api
        self._web = web
        self._added: dict[str, Any] = {}
        self._lock = threading.Lock()

    def resolve(self, ref: Ref) -> Descriptor:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        return find(self._index(self._branch), ref, self.url)

    def refs(self) -> list[Ref]:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        return models_of(self._index(self._branch))

    def open(self, descriptor: Descriptor, offset: int = 0, length: int | None = None) -> Body:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        from wszoo.remotes.web_body import Body

        url = self._file(self._branch, _path(descriptor.digest))
        return Body(self._web, url, descriptor.size, offset, length)

    def missing(self, ref: Ref, descriptors: Sequence[Descriptor]) -> list[Descriptor]:  # noqa: ARG002 - one for all refs
        """See :class:`wszoo.remotes.protocol.WritableRemote`."""
        paths, sizes = [_path(each.digest) for each in descriptors], {}
        for start in range(0, len(paths), _ASKED):
            with self._errors("list files"):
                found = self._api.get_paths_info(self._repository, paths[start : start + _ASKED], revision=self._branch)
            sizes.update({each.path: each.size for each in found})
        return [each for each, path in zip(descriptors, paths, strict=True) if sizes.get(path) != each.size]

    def put(self, ref: Ref, descriptor: Descriptor, path: Path) -> None:  # noqa: ARG002
        """See :class:`wszoo.remotes.protocol.WritableRemote`. It becomes readable with the tag."""
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()  # push shows one bar for everything; the library's would be drawn over it
        added = CommitOperationAdd(_path(descriptor.digest), path)
        with self._errors(f"upload {descriptor.digest}"):
            self._api.preupload_lfs_files(self._repository, [added], revision=self._branch)
        with self._lock:
            self._added[added.path_in_repo] = added

    def tag(self, ref: Ref, index: Descriptor, data: bytes, expected: Digest | None) -> bool:
        """See :class:`wszoo.remotes.protocol.WritableRemote`. A true compare-and-swap."""
        for _ in range(_RACES):
            with self._errors("look at the branch"):
                parent = str(self._api.model_info(self._repository, revision=self._branch).sha)
            layout = self._index(parent)
            now = find(layout, ref, self.url).digest if ref.unpinned in refs_of(layout) else None
            if now != expected:
                return False
            files = {
                _path(index.digest): data,
                "oci-layout": encode(Layout()),
                "index.json": encode(with_ref(layout, ref, index)),
            }
            if self._commit(files, f"wszoo push {ref.tagged}", parent):
                return True
        raise RemoteError(f"other writers keep changing {self.url}", hint="try again when they are done")

    def _commit(self, files: dict[str, bytes], message: str, parent: str) -> bool:
        from huggingface_hub import CommitOperationAdd

        with self._lock:
            operations = [*self._added.values(), *(CommitOperationAdd(path, data) for path, data in files.items())]
        try:
            with self._errors("commit"):
                self._api.create_commit(
                    self._repository,
                    operations,
                    commit_message=message,
                    revision=self._branch,
                    parent_commit=parent,
                )
        except RemoteError as error:
            if _status(error.__cause__) in _CONFLICTS:
                return False
            raise
        with self._lock:
            self._added.clear()
        return True

    def _index(self, revision: str) -> Index:
        try:
            data, _ = self._web.read(self._file(revision, "index.json"), limit=MAX_DOCUMENT)
        except NotFoundError:
            return Index()
        return decode_layout_index(data, self.url)

    def _file(self, revision: str, path: str) -> str:
        return f"{self._api.endpoint}/{self._repository}/resolve/{quote(revision, safe='')}/{path}"

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

        from wszoo.remotes.web_errors import retry_after

        try:
            yield
        except RepositoryNotFoundError as error:
            raise NotFoundError(
                f"no repository {self._repository} at {self._api.endpoint}, or it is private",
                hint=f"make it with 'hf repo create {self._repository}', and log in with 'hf auth login' or HF_TOKEN",
            ) from error
        except OfflineModeIsEnabled as error:
            raise RemoteError(f"{self.url}: HF_HUB_OFFLINE is set", permanent=True) from error
        except HfHubHTTPError as error:
            status = _status(error) or 0
            pause = retry_after(error.response.headers.get("Retry-After")) if error.response is not None else None
            hint = "check HF_TOKEN, or 'hf auth login', and what it may write" if status in _REFUSED else ""
            lasting = 400 <= status < 500 and status not in {408, 429}  # noqa: PLR2004
            raise RemoteError(
                f"{self.url}: cannot {what}: {error}", hint=hint, retry_after=pause, permanent=lasting
            ) from error
        except Exception as error:
            raise RemoteError(f"{self.url}: cannot {what}: {type(error).__name__}: {error}") from error


class _HubToken:
    """Sends the token to the Hub and to nobody else."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self._host = urlsplit(endpoint)[:2]
        self._token = token

    def header(self, method: str, url: str) -> str | None:  # noqa: ARG002 - part of the protocol
        return f"Bearer {self._token}" if self._token and urlsplit(url)[:2] == self._host else None

    def challenged(self, response: Response, method: str, url: str) -> bool:  # noqa: ARG002
        return False


def _path(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex[:2]}/{digest.hex}"


def _status(error: BaseException | None) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


class HubType:
    """Opens repositories of the Hub."""

    name = "hub"
    schemes: tuple[str, ...] = ("hf",)

    def open(self, location: str) -> Remote:
        """See :class:`wszoo.remotes.protocol.RemoteType`."""
        match = _LOCATION.fullmatch(location)
        if match is None:
            raise UsageError(f"not a repository of the Hub: {location!r}", hint="such as hf://ORG/REPO")
        from huggingface_hub import HfApi, constants, get_token

        from wszoo.remotes.web import Web

        if constants.HF_HUB_OFFLINE:
            raise RemoteError(f"{location}: HF_HUB_OFFLINE is set", hint="unset it to connect", permanent=True)
        api = HfApi(library_name="wszoo")
        web = Web(_HubToken(api.endpoint, get_token()))
        return HubRemote(location.rstrip("/"), match[1], match[2] or "main", api, web)


@hookimpl
def wszoo_remotes() -> Sequence[RemoteType]:
    """Provide the Hub remote."""
    return [HubType()]
