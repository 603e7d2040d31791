"""Reading a model's documents out of a store: index, manifests, configs, and every blob that they reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from wszoo.errors import IncompatibleError, MalformedError, NotFoundError
from wszoo.schema import model as model_schema
from wszoo.schema import plan as plan_schema
from wszoo.schema.decode import MAX_DOCUMENT, MAX_MANIFEST, decode
from wszoo.schema.facts import PlanFacts, facts_of, from_annotations
from wszoo.schema.model import ModelConfig
from wszoo.schema.oci import INDEX, MANIFEST, Descriptor, Index, Manifest
from wszoo.schema.plan import PlanConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from wszoo.digest import Digest


MAX_ASSET = 1 << 30


class DocumentSource(Protocol):
    """Where documents come from: a store, or a remote."""

    def read(self, descriptor: Descriptor, *, limit: int) -> bytes:
        """The bytes of a small blob, checked against its digest.

        Raises:
            NotFoundError: it is not there.
            IntegrityError: damaged, or larger than ``limit``.
        """
        ...


@dataclass(frozen=True, slots=True)
class ModelDocument:
    """A model manifest with its config."""

    descriptor: Descriptor
    manifest: Manifest
    config: ModelConfig

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Everything that it consists of."""
        return (self.descriptor, self.manifest.config, *self.manifest.layers)


@dataclass(frozen=True, slots=True)
class PlanDocument:
    """A plan manifest with its config."""

    descriptor: Descriptor
    manifest: Manifest
    config: PlanConfig

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Everything that it consists of."""
        return (self.descriptor, self.manifest.config, *self.manifest.layers)


def read_index(source: DocumentSource, descriptor: Descriptor) -> Index:
    """Fetch and decode a model's index.

    Skopeo 1.9 drops the artifact types when it copies an index; then they are taken from the manifests.

    Raises:
        IntegrityError: see :func:`wszoo.schema.decode.decode`; also one that is no index.
    """
    index = decode(_read(source, descriptor, MAX_MANIFEST), Index, what=f"index {descriptor.digest}")
    _expect(INDEX, index.media_type, f"index {descriptor.digest}")
    return msgspec.structs.replace(index, manifests=tuple(_typed(source, each) for each in index.manifests))


def model_descriptor(index: Index) -> Descriptor:
    """The one model manifest that an index lists.

    Raises:
        MalformedError: none, or several.
    """
    found = [each for each in index.manifests if each.artifact_type == model_schema.ARTIFACT]
    if len(found) != 1:
        raise MalformedError(f"the index lists {len(found)} model manifests instead of one: it is no wszoo model")
    return found[0]


def plan_descriptors(index: Index) -> list[Descriptor]:
    """The plan manifests that an index lists, in its order."""
    return [each for each in index.manifests if each.artifact_type == plan_schema.ARTIFACT]


def read_model(source: DocumentSource, descriptor: Descriptor) -> ModelDocument:
    """Fetch and decode a model manifest and its config.

    Raises:
        IntegrityError: damaged, malformed, or too large.
        IncompatibleError: of a type that this version does not know.
    """
    manifest = _read_manifest(source, descriptor, model_schema.ARTIFACT)
    _expect(model_schema.CONFIG, manifest.config.media_type, f"config of {descriptor.digest}")
    data = _read(source, manifest.config, MAX_DOCUMENT)
    return ModelDocument(descriptor, manifest, decode(data, ModelConfig, what=f"model config {manifest.config.digest}"))


def read_indexed_model(source: DocumentSource, index: Descriptor) -> ModelDocument:
    """Fetch the model that an index lists. Errors as for its two documents."""
    return read_model(source, model_descriptor(read_index(source, index)))


def read_plan(source: DocumentSource, descriptor: Descriptor) -> PlanDocument:
    """Fetch and decode a plan manifest and its config.

    Raises:
        IntegrityError: damaged, malformed, or too large.
        IncompatibleError: of a type that this version does not know.
    """
    manifest = _read_manifest(source, descriptor, plan_schema.ARTIFACT)
    _expect(plan_schema.CONFIG, manifest.config.media_type, f"config of {descriptor.digest}")
    data = _read(source, manifest.config, MAX_DOCUMENT)
    return PlanDocument(descriptor, manifest, decode(data, PlanConfig, what=f"plan config {manifest.config.digest}"))


def plan_facts(source: DocumentSource, descriptor: Descriptor) -> PlanFacts:
    """A plan's facts from its descriptor, or from its config when another tool dropped the annotations.

    Raises:
        IntegrityError: damaged or malformed.
    """
    return from_annotations(descriptor) or facts_from_document(read_plan(source, descriptor))


def facts_from_document(plan: PlanDocument) -> PlanFacts:
    """A plan's facts from its manifest and config.

    Raises:
        MalformedError: it has no layers, or more than two.
    """
    return facts_of(plan.config, plan.manifest.layers)


def read_asset(source: DocumentSource, model: ModelDocument, name: str) -> bytes:
    """A file that travels with a model.

    Raises:
        NotFoundError: there is none of that name; the hint lists those that there are.
        IntegrityError: it is damaged, or over 1 GiB.
    """
    digest = model.config.assets.get(name)
    if digest is None:
        raise NotFoundError(f"no asset {name!r} in the model", hint=f"there is: {', '.join(model.config.assets)}")
    layer = next((each for each in model.manifest.layers if each.digest == digest), None)
    if layer is None:
        raise MalformedError(f"the asset {name!r} is in no layer of {model.descriptor.digest}")
    return _read(source, layer, MAX_ASSET)


def reachable(source: DocumentSource, descriptor: Descriptor, held: Collection[Digest] | None) -> Iterator[Descriptor]:
    """Every blob that a ref needs, the index first.

    Args:
        source: the store.
        descriptor: of the index.
        held: plan manifests to follow; None follows all.

    Raises:
        NotFoundError: a document on the way is missing.
        IntegrityError: a document on the way is damaged.
    """
    yield descriptor
    index = read_index(source, descriptor)
    for child in index.manifests:
        # A pull fetches the model and some plans, and nothing of a kind that a later version may add to an index.
        if held is not None and child.artifact_type != model_schema.ARTIFACT and child.digest not in held:
            continue
        yield child
        manifest = decode(_read(source, child, MAX_MANIFEST), Manifest, what=f"manifest {child.digest}")
        yield manifest.config
        yield from manifest.layers


class _ArtifactType(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    artifact_type: str = ""


def _typed(source: DocumentSource, child: Descriptor) -> Descriptor:
    if child.artifact_type or child.media_type != MANIFEST:
        return child
    try:
        data = _read(source, child, MAX_MANIFEST)
    except NotFoundError:  # a plan that was not pulled
        return child
    found = decode(data, _ArtifactType, what=f"manifest {child.digest}")
    return msgspec.structs.replace(child, artifact_type=found.artifact_type)


def _read_manifest(source: DocumentSource, descriptor: Descriptor, artifact: str) -> Manifest:
    what = f"manifest {descriptor.digest}"
    manifest = decode(_read(source, descriptor, MAX_MANIFEST), Manifest, what=what)
    _expect(MANIFEST, manifest.media_type, what)
    _expect(artifact, manifest.artifact_type, what)
    return manifest


def _read(source: DocumentSource, descriptor: Descriptor, limit: int) -> bytes:
    data = source.read(descriptor, limit=limit)
    if len(data) != descriptor.size:
        raise MalformedError(
            f"blob {descriptor.digest} has {len(data)} bytes, its descriptor says {descriptor.size}",
            hint="the publisher's index is wrong: tell them",
        )
    return data


def _expect(wanted: str, found: str, what: str) -> None:
    if found != wanted:
        raise IncompatibleError(
            f"{what} has the media type {found!r}, expected {wanted!r}",
            hint="it was made by another tool or a later wszoo: upgrade with 'pip install --upgrade wszoo'",
        )
