"""A remote that is an OCI registry: any that speaks the distribution API, for pulling and pushing.

``oci://HOST/PATH`` holds the ref ``name:tag`` as the repository ``HOST/PATH/name`` with that tag. Bytes are pushed as
they were built, so digests are the same there. Registries keep blobs by repository: a blob is looked for in the
repositories of the refs that this remote was asked to resolve.

A registry has no compare-and-swap for tags: :meth:`RegistryRemote.tag` looks just before it writes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from wszoo.digest import Digest
from wszoo.errors import IntegrityError, MalformedError, NotFoundError, RemoteError, UsageError
from wszoo.hookspecs import hookimpl
from wszoo.names import Ref
from wszoo.parallel import ordered_map
from wszoo.schema.decode import MAX_DOCUMENT, MAX_MANIFEST, decode
from wszoo.schema.oci import INDEX, MANIFEST, Descriptor, Index

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from wszoo.remotes.protocol import Remote, RemoteType
    from wszoo.remotes.web import Web

WORKERS = 8  # questions whether a blob is there cost a round trip each and nothing else
_DOCUMENTS = frozenset({INDEX, MANIFEST})
_LINK = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')
_PATH = re.compile(r"(?:[a-z0-9]+(?:[._-]+[a-z0-9]+)*/?)*")
_CREATED = frozenset({201, 202, 204})
_NOT_FOUND = 404
MAX_PAGES = 32  # of referrers; those of our kind are few, and other tools' may come first


class RegistryRemote:
    """One registry, below one path.

    Args:
        base: ``https://HOST`` or ``http://HOST``.
        path: what stands before models' names; may be empty.
        web: sends requests, with the credentials for that host.
    """

    trusted = False

    def __init__(self, base: str, path: str, web: Web) -> None:
        self.url = f"oci://{urlsplit(base).netloc}/{path}".rstrip("/")
        self._base = base
        self._path = path
        self._web = web
        self._known: list[str] = []  # repositories of what was resolved, the latest first
        self._homes: dict[Digest, str] = {}
        self._suggested: dict[Digest, list[str]] = {}
        self._refused: set[str] = set()  # repositories that we may not see into

    def resolve(self, ref: Ref) -> Descriptor:
        """See :class:`wszoo.remotes.protocol.Remote`. A pin is looked up wherever the tag is now."""
        repository = self._repository(ref)
        try:
            data = self._manifest(repository, str(ref.digest or ref.tag))
        except NotFoundError as error:
            raise NotFoundError(
                f"no {ref} at {self.url}", hint=f"'wszoo list' shows what is here; there, see {repository}"
            ) from error
        self.expect(ref)
        return Descriptor(media_type=INDEX, digest=Digest.of(data), size=len(data))

    def expect(self, ref: Ref) -> None:
        """See :class:`wszoo.remotes.protocol.ModelwiseRemote`."""
        repository = self._repository(ref)
        if repository not in self._known:
            self._known.insert(0, repository)

    def refs(self) -> list[Ref]:
        """See :class:`wszoo.remotes.protocol.Remote`. Many registries do not list their repositories."""
        prefix = f"{self._path}/" if self._path else ""
        names = [each for each in self._list("/v2/_catalog?n=1000", "repositories") if each.startswith(prefix)]
        found = []
        for name in sorted(names):
            try:
                tags = self._list(f"/v2/{name}/tags/list?n=1000", "tags")
            except NotFoundError:  # a repository whose tags were all deleted
                continue
            found += [Ref(name.removeprefix(prefix), tag) for tag in tags]
        return [ref for ref in found if not ref.is_referrers]

    def referrers(self, ref: Ref, index: Digest) -> list[Descriptor] | None:
        """See :class:`wszoo.remotes.protocol.ReferringRemote`. Of more than ``MAX_PAGES`` pages the last are left."""
        try:
            return list(self._referrers(f"{self._base}/v2/{self._repository(ref)}/referrers/{index}")) or None
        except (NotFoundError, MalformedError):  # registries before version 1.1 have no such question
            return None
        except RemoteError as error:
            if error.permanent:
                return None
            raise

    def _referrers(self, url: str) -> Iterator[Descriptor]:
        after: str | None = url
        for _ in range(MAX_PAGES):
            if after is not None:
                data, response = self._web.read(after, limit=MAX_MANIFEST, headers={"Accept": INDEX})
                yield from decode(data, Index, what=after, limit=MAX_MANIFEST).manifests
                after = _next_page(after, response.headers.get("Link", ""))

    def open(self, descriptor: Descriptor, offset: int = 0, length: int | None = None) -> Iterator[bytes | memoryview]:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        from wszoo.remotes.web_body import Body

        if descriptor.media_type in _DOCUMENTS:
            end = None if length is None else offset + length
            return iter([piece] if (piece := self._document(descriptor)[offset:end]) else [])
        url = f"{self._base}/v2/{self._home(descriptor)}/blobs/{descriptor.digest}"
        return Body(self._web, url, descriptor.size, offset, length)

    def missing(self, ref: Ref, descriptors: Sequence[Descriptor]) -> list[Descriptor]:
        """See :class:`wszoo.remotes.protocol.WritableRemote`."""
        repository = self._repository(ref)
        present = ordered_map(lambda each: self._has(repository, each), descriptors, workers=WORKERS)
        return [each for each, there in zip(descriptors, present, strict=True) if not there]

    def put(self, ref: Ref, descriptor: Descriptor, path: Path) -> None:
        """See :class:`wszoo.remotes.protocol.WritableRemote`."""
        from wszoo.remotes.registry_upload import upload

        repository = self._repository(ref)
        if descriptor.media_type in _DOCUMENTS:
            self._put_manifest(repository, str(descriptor.digest), descriptor, path.read_bytes())
        else:
            start = f"{self._base}/v2/{repository}/blobs/uploads/"
            upload(self._web, start, descriptor, path, self._elsewhere(repository, descriptor))

    def suggest(self, homes: Mapping[Digest, Sequence[Ref]]) -> None:
        """See :class:`wszoo.remotes.protocol.SharingRemote`: blobs are mounted from the other repository."""
        self._suggested = {digest: [self._repository(ref) for ref in refs] for digest, refs in homes.items()}

    def _elsewhere(self, repository: str, descriptor: Descriptor) -> str | None:
        """Another repository that has a blob, and lets us see it."""
        for each in self._suggested.get(descriptor.digest, ()):
            if each == repository or each in self._refused:
                continue
            try:
                if self._has(each, descriptor):
                    return each
            except RemoteError:
                self._refused.add(each)
        return None

    def tag(self, ref: Ref, index: Descriptor, data: bytes, expected: Digest | None) -> bool:
        """See :class:`wszoo.remotes.protocol.WritableRemote`. Not atomic: registries have nothing to make it so."""
        repository = self._repository(ref)
        try:
            now: Digest | None = Digest.of(self._manifest(repository, ref.tag))
        except NotFoundError:
            now = None
        if now != expected:
            return False
        self._put_manifest(repository, ref.tag, index, data)
        return True

    def _repository(self, ref: Ref) -> str:
        return f"{self._path}/{ref.name}" if self._path else ref.name

    def _manifest(self, repository: str, reference: str) -> bytes:
        url = f"{self._base}/v2/{repository}/manifests/{reference}"
        data, response = self._web.read(url, limit=MAX_MANIFEST, headers={"Accept": f"{INDEX}, {MANIFEST}"})
        self._check_echo(response.headers.get("Docker-Content-Digest"), Digest.of(data), url)
        return data

    def _put_manifest(self, repository: str, reference: str, descriptor: Descriptor, data: bytes) -> None:
        url = f"{self._base}/v2/{repository}/manifests/{reference}"
        from wszoo.remotes.web import finish

        headers = {"Content-Type": descriptor.media_type}
        response = self._web.request("PUT", url, headers=headers, body=lambda: data, accept=_CREATED)
        finish(response)
        self._check_echo(response.headers.get("Docker-Content-Digest"), descriptor.digest, url)

    def _check_echo(self, echo: str | None, digest: Digest, url: str) -> None:
        if echo is not None and echo.startswith("sha256:") and echo != digest:
            raise IntegrityError(
                f"{url} is {echo} to the registry and {digest} here",
                hint="the registry or a proxy in between changes what passes through it",
            )

    def _document(self, descriptor: Descriptor) -> bytes:
        for repository in self._asked():
            try:
                return self._manifest(repository, str(descriptor.digest))
            except NotFoundError:
                continue
        raise NotFoundError(f"{self.url} does not have the manifest {descriptor.digest}")

    def _home(self, descriptor: Descriptor) -> str:
        """The repository that has a blob; asked only where there are several that may."""
        known = self._asked()
        if len(known) == 1:
            return known[0]
        if descriptor.digest not in self._homes:
            home = next((each for each in known if self._has(each, descriptor)), None)
            if home is None:
                raise NotFoundError(f"{self.url} does not have the blob {descriptor.digest}")
            self._homes[descriptor.digest] = home
        return self._homes[descriptor.digest]

    def _asked(self) -> list[str]:
        if not self._known:
            raise NotFoundError(f"{self.url} keeps blobs by model, and no model was resolved there yet")
        return list(self._known)

    def _has(self, repository: str, descriptor: Descriptor) -> bool:
        from wszoo.remotes.web import finish

        kind = "manifests" if descriptor.media_type in _DOCUMENTS else "blobs"
        url = f"{self._base}/v2/{repository}/{kind}/{descriptor.digest}"
        headers = {"Accept": f"{INDEX}, {MANIFEST}" if kind == "manifests" else "*/*"}
        response = self._web.request("HEAD", url, headers=headers, accept=frozenset({200, _NOT_FOUND}))
        finish(response)
        return response.status != _NOT_FOUND

    def _list(self, path: str, field: str) -> list[str]:
        found: list[str] = []
        url: str | None = f"{self._base}{path}"
        while url is not None:
            names, url = self._page(url, field)
            found += names
        return found

    def _page(self, url: str, field: str) -> tuple[list[str], str | None]:
        from wszoo.remotes.registry_documents import string_list

        try:
            data, response = self._web.read(url, limit=MAX_DOCUMENT)
        except RemoteError as error:
            error.hint = error.hint or "many registries do not list what they hold: name the model"
            raise
        return string_list(data, field, url), _next_page(url, response.headers.get("Link", ""))


def _next_page(url: str, link: str) -> str | None:
    """Where a list goes on, by the ``Link`` of a page of it; None after the last.

    Raises:
        RemoteError: on another host, which would be sent the credentials of this one, or in a circle.
    """
    match = _LINK.search(link)
    after = urljoin(url, match[1]) if match else None
    if after is not None and (urlsplit(after)[:2] != urlsplit(url)[:2] or after == url):
        raise RemoteError(f"{url} continues elsewhere: {after}", permanent=True)
    return after


class RegistryType:
    """Opens registries: over HTTPS, or over HTTP on this machine and where ``oci+http://`` says so."""

    name = "registry"
    schemes: tuple[str, ...] = ("oci", "oci+http")

    def open(self, location: str) -> Remote:
        """See :class:`wszoo.remotes.protocol.RemoteType`."""
        from wszoo.remotes.registry_auth import RegistryCredentials
        from wszoo.remotes.web import Web, checked_url

        scheme, _, rest = location.partition("://")
        host, _, path = rest.rstrip("/").partition("/")
        path = path.rstrip("/")
        if not _PATH.fullmatch(path) or "@" in host:
            raise UsageError(
                f"not a place in a registry: {location!r}",
                hint="such as oci://registry.example/acme; credentials come from 'docker login'",
            )
        host = "registry-1.docker.io" if host in {"docker.io", "index.docker.io"} else host
        plain = scheme == "oci+http" or urlsplit(f"//{host}").hostname in {"localhost", "127.0.0.1", "::1"}
        base = checked_url(f"{'http' if plain else 'https'}://{host}")
        return RegistryRemote(base, path, Web(RegistryCredentials(base)))


@hookimpl
def wszoo_remotes() -> Sequence[RemoteType]:
    """Provide the registry remote."""
    return [RegistryType()]
