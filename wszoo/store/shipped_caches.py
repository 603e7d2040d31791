"""Runtime caches in a model's index: reading them, from a store or a remote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.codecs import zstd
from wszoo.digest import Digest
from wszoo.errors import LimitError, MalformedError
from wszoo.schema.decode import MAX_MANIFEST, decode
from wszoo.schema.oci import Manifest
from wszoo.schema.runtime_cache import ANNOTATION, ARTIFACT, LAYER, RuntimeCacheFacts

if TYPE_CHECKING:
    from wszoo.schema.oci import Descriptor, Index
    from wszoo.store.documents import DocumentSource

MAX_CACHE = 256 << 20  # bytes, compressed and not; kernels of a network take a few MB


@dataclass(frozen=True, slots=True)
class CacheDocument:
    """A runtime cache's manifest and facts."""

    descriptor: Descriptor
    manifest: Manifest
    facts: RuntimeCacheFacts

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Everything that it consists of."""
        return (self.descriptor, self.manifest.config, *self.manifest.layers)


def cache_descriptors(index: Index) -> list[Descriptor]:
    """The runtime caches that an index lists, in its order."""
    return [each for each in index.manifests if each.artifact_type == ARTIFACT]


def cache_facts(source: DocumentSource, descriptor: Descriptor) -> RuntimeCacheFacts:
    """What a runtime cache is for, from its descriptor, or from its config when another tool dropped the annotations.

    Raises:
        NotFoundError: the config is not there.
        IntegrityError: damaged or malformed.
    """
    text = descriptor.annotations.get(ANNOTATION)
    if text is None:
        return read_cache(source, descriptor).facts
    return decode(text.encode(errors="replace"), RuntimeCacheFacts, what=f"the annotation {ANNOTATION}")


def read_cache(source: DocumentSource, descriptor: Descriptor) -> CacheDocument:
    """A runtime cache's manifest and config.

    Raises:
        NotFoundError: one of them is not there.
        IntegrityError: damaged, malformed, or too large.
    """
    what = f"manifest {descriptor.digest}"
    manifest = decode(source.read(descriptor, limit=MAX_MANIFEST), Manifest, what=what)
    facts = decode(source.read(manifest.config, limit=MAX_MANIFEST), RuntimeCacheFacts, what=f"the config of {what}")
    return CacheDocument(descriptor, manifest, facts)


def read_kernels(source: DocumentSource, cache: CacheDocument) -> bytes:
    """The cache itself, checked; whether it fits is for TensorRT-RTX to say.

    Raises:
        NotFoundError: it is not there.
        IntegrityError: damaged, malformed, or too large.
    """
    layers, facts = cache.manifest.layers, cache.facts
    if len(layers) != 1 or layers[0].media_type != LAYER:
        raise MalformedError(f"the runtime cache {cache.descriptor.digest} has not one layer of type {LAYER}")
    if facts.size > MAX_CACHE:
        raise LimitError(f"a runtime cache claims {facts.size} bytes, more than the {MAX_CACHE} accepted")
    data = zstd.decompress(source.read(layers[0], limit=MAX_CACHE), size=facts.size)
    facts.digest.check(Digest.of(data), f"the runtime cache {cache.descriptor.digest}")
    return data
