"""A remote in a bucket: an OCI image layout below a prefix, so that a public bucket serves plain HTTPS clients too.

``s3://BUCKET/PREFIX``, ``gs://BUCKET/PREFIX`` (Google), ``az://CONTAINER/PREFIX`` (Azure). Credentials, region and
endpoint come from each service's usual variables and from the machine's role. Transfers are obstore's (the
``object_store`` crate).

The tag is a compare-and-swap: ``index.json`` is replaced by a conditional write (``If-Match`` and ``If-None-Match``, or
Google's generations), as all three and most work-alikes know it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from wszoo.errors import MissingExtraError, NotFoundError, RemoteError, UsageError
from wszoo.hookspecs import hookimpl
from wszoo.parallel import ordered_map
from wszoo.remotes.layout_index import decode_layout_index, find, models_of, refs_of, with_ref
from wszoo.schema.decode import MAX_DOCUMENT, encode
from wszoo.schema.oci import Index, Layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from wszoo.digest import Digest
    from wszoo.names import Ref
    from wszoo.remotes.protocol import Remote, RemoteType
    from wszoo.schema.oci import Descriptor

WORKERS = 8  # questions whether a blob is there
PIECE = 4 << 20
CHUNK = 128 << 10  # waited for: on a slow line more would take longer than the watchdog waits for a byte
PART = 16 << 20  # of a multipart upload; object stores allow 10,000 of them
_RACES = 50  # writers of index.json that may win in a row, with other tags, before we give up
_TIMEOUTS = {"connect_timeout": "10s", "read_timeout": "60s", "timeout": "6h"}
_RETRIES = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}  # the engine and push try again themselves
_SHOWN = 300  # characters of the crate's error messages, which quote whole responses


class BucketRemote:
    """One prefix of one bucket.

    Args:
        url: as the user named it.
        store: obstore's, rooted at the prefix.
        variables: of the environment, to check when the service refuses.
    """

    trusted = False

    def __init__(self, url: str, store: Any, variables: str) -> None:  # noqa: ANN401 - obstore is optional
        self.url = url
        self._store = store
        self._variables = variables

    def resolve(self, ref: Ref) -> Descriptor:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        return find(self._index()[0], ref, self.url)

    def refs(self) -> list[Ref]:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        return models_of(self._index()[0])

    def open(self, descriptor: Descriptor, offset: int = 0, length: int | None = None) -> _Pieces:
        """See :class:`wszoo.remotes.protocol.Remote`."""
        end = descriptor.size if length is None else offset + length
        return _Pieces(self, _path(descriptor.digest), offset, end)

    def missing(self, ref: Ref, descriptors: Sequence[Descriptor]) -> list[Descriptor]:  # noqa: ARG002 - one for all refs
        """See :class:`wszoo.remotes.protocol.WritableRemote`."""
        sizes = ordered_map(self._size, descriptors, workers=WORKERS)
        return [each for each, size in zip(descriptors, sizes, strict=True) if size != each.size]

    def put(self, ref: Ref, descriptor: Descriptor, path: Path) -> None:  # noqa: ARG002
        """See :class:`wszoo.remotes.protocol.WritableRemote`."""
        import obstore

        with self.errors(str(descriptor.digest)):
            obstore.put(self._store, _path(descriptor.digest), path, chunk_size=PART, max_concurrency=2)

    def tag(self, ref: Ref, index: Descriptor, data: bytes, expected: Digest | None) -> bool:
        """See :class:`wszoo.remotes.protocol.WritableRemote`. A true compare-and-swap."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self.errors("index"):
            obstore.put(self._store, _path(index.digest), data)
            obstore.put(self._store, "oci-layout", encode(Layout()))
        for _ in range(_RACES):
            layout, version = self._index()
            now = {each: descriptor for each in refs_of(layout) if (descriptor := find(layout, each, self.url))}
            if (now[ref.unpinned].digest if ref.unpinned in now else None) != expected:
                return False
            try:
                with self.errors("index.json"):
                    obstore.put(self._store, "index.json", encode(with_ref(layout, ref, index)), mode=version)
            except RemoteError as error:
                if not isinstance(error.__cause__, (AlreadyExistsError, PreconditionError)):
                    raise
            else:
                return True
        raise RemoteError(f"other writers keep changing index.json of {self.url}", hint="try again when they are done")

    def stream(self, path: str, start: int, end: int) -> Iterator[Any]:
        """The bytes ``[start, end)`` of an object, as the network delivers them."""
        import obstore

        with self.errors(path):
            found = obstore.get(self._store, path, options={"range": (start, end)})
            return iter(found.stream(min_chunk_size=CHUNK))

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turn obstore's exceptions into ours.

        Raises:
            NotFoundError: there is no such object.
            RemoteError: anything else.
        """
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.url} does not have {what}") from error
        except (BaseError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:_SHOWN]
            refused = isinstance(error, (PermissionDeniedError, UnauthenticatedError))
            hint = f"check {self._variables}" if refused else ""
            raise RemoteError(f"{self.url}: {what}: {reason}", hint=hint, permanent=refused) from error

    def _size(self, descriptor: Descriptor) -> int | None:
        import obstore

        try:
            with self.errors(str(descriptor.digest)):
                return int(obstore.head(self._store, _path(descriptor.digest))["size"])
        except NotFoundError:
            return None

    def _index(self) -> tuple[Index, Any]:
        """``index.json``, and the mode in which it can be replaced only if it has not changed meanwhile."""
        import obstore

        try:
            with self.errors("index.json"):
                found = obstore.get(self._store, "index.json")
                if found.meta["size"] > MAX_DOCUMENT:
                    raise RemoteError(f"index.json of {self.url} has {found.meta['size']} bytes", permanent=True)
                data = bytes(found.bytes())
        except NotFoundError:
            return Index(), "create"
        version = {name: found.meta[name] for name in ("e_tag", "version") if found.meta.get(name)}
        return decode_layout_index(data, self.url), version


class _Pieces:
    """Iterates over a range of an object; the request is sent when the first piece is asked for."""

    def __init__(self, remote: BucketRemote, path: str, start: int, end: int) -> None:
        self._remote = remote
        self._path = path
        self._range = start, end
        self._left = max(0, end - start)
        self._stream: Iterator[Any] | None = None
        self._piece = memoryview(b"")

    def __iter__(self) -> Iterator[memoryview]:
        return self

    def __next__(self) -> memoryview:
        if not self._left:
            raise StopIteration
        while not self._piece:
            self._piece = self._receive()
        piece, self._piece = self._piece[:PIECE], self._piece[PIECE:]
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Ask for nothing more; what is on its way is dropped."""
        self._left, self._stream, self._piece = 0, None, memoryview(b"")

    def _receive(self) -> memoryview:
        stream = self._stream or self._remote.stream(self._path, *self._range)
        self._stream = stream
        with self._remote.errors(self._path):
            piece = next(stream, None)
        if piece is None:
            raise RemoteError(f"{self._remote.url}: {self._path} ended {self._left} bytes early", hint="try again")
        return memoryview(piece)[: self._left]


def _path(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


@dataclass(frozen=True, slots=True)
class _Service:
    """Where the services differ.

    Attributes:
        store: the class of ``obstore.store``.
        option: what it calls the URL of a work-alike.
        endpoints: variables that may hold that URL, the first that is set counts.
        variables: what else to look at when it refuses.
    """

    store: str
    option: str
    endpoints: tuple[str, ...]
    variables: str


_SERVICES = {
    "s3": _Service(
        "S3Store",
        "endpoint",
        ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL",
    ),
    "gs": _Service(
        "GCSStore", "base_url", ("GOOGLE_BASE_URL",), "GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_SERVICE_ACCOUNT"
    ),
    "az": _Service(
        "AzureStore",
        "endpoint",
        ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
        "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_ENDPOINT",
    ),
}


class BucketType:
    """Opens buckets."""

    name = "bucket"
    schemes: tuple[str, ...] = tuple(_SERVICES)

    def open(self, location: str) -> Remote:
        """See :class:`wszoo.remotes.protocol.RemoteType`."""
        parts = urlsplit(location)
        if not parts.netloc or "@" in parts.netloc or parts.query:
            raise UsageError(
                f"not a place in a bucket: {location!r}",
                hint="such as s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX",
            )
        service = _SERVICES[parts.scheme]
        try:
            store = _open(service, parts.netloc, parts.path.strip("/") or None)
        except ImportError as error:
            raise MissingExtraError("obstore", "cloud", f"the remote type {parts.scheme}://") from error
        except Exception as error:
            raise UsageError(
                f"{location}: {' '.join(str(error).split())[:_SHOWN]}", hint=f"check {service.variables}"
            ) from error
        return BucketRemote(location.rstrip("/"), store, service.variables)


def _open(service: _Service, bucket: str, prefix: str | None) -> Any:  # noqa: ANN401 - obstore is optional
    import obstore.store

    endpoint = next((found for name in service.endpoints if (found := os.environ.get(name))), "")
    options: dict[str, Any] = {**_TIMEOUTS, "allow_http": endpoint.startswith("http://")}
    named: dict[str, Any] = {service.option: endpoint} if endpoint else {}
    make = getattr(obstore.store, service.store)
    return make(bucket, prefix=prefix, client_options=options, retry_config=_RETRIES, **named)


@hookimpl
def wszoo_remotes() -> Sequence[RemoteType]:
    """Provide the bucket remote."""
    return [BucketType()]
