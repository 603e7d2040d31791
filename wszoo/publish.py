"""Writing a model's documents: configs, manifests, and last of all the index under its tag."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from wszoo.errors import IntegrityError, NotFoundError, StorageError
from wszoo.schema import model as model_schema
from wszoo.schema import plan as plan_schema
from wszoo.schema import runtime_cache
from wszoo.schema.decode import encode
from wszoo.schema.facts import to_annotations
from wszoo.schema.oci import INDEX, MANIFEST, TITLE, Descriptor, Index, Manifest
from wszoo.store.documents import (
    ModelDocument,
    PlanDocument,
    facts_from_document,
    model_descriptor,
    plan_descriptors,
    read_index,
    read_model,
    read_plan,
)
from wszoo.store.shipped_caches import cache_descriptors, read_cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wszoo.digest import Digest
    from wszoo.names import Ref
    from wszoo.schema.model import ModelConfig
    from wszoo.schema.plan import PlanConfig
    from wszoo.schema.runtime_cache import RuntimeCacheFacts
    from wszoo.store.refs import Entry
    from wszoo.store.store import Store

_ATTEMPTS = 50  # as many writers of one tag would have to win in a row for us to give up


@dataclass(frozen=True, slots=True)
class Published:
    """What a tag points to.

    Attributes:
        entry: the ref's entry; None when there is no such ref yet.
        model: None when there is no such ref yet.
        plans: in the index's order.
        caches: runtime caches that travel with it.
    """

    entry: Entry | None
    model: ModelDocument | None
    plans: tuple[PlanDocument, ...]
    caches: tuple[Descriptor, ...] = ()


def read_published(store: Store, ref: Ref) -> Published:
    """What a tag points to now, as far as all of it is here: building again mends what is damaged or missing."""
    entry = store.refs.find(ref)
    if entry is None:
        return Published(None, None, ())
    try:
        index = read_index(store, entry.descriptor)
        model = read_model(store, model_descriptor(index))
    except (IntegrityError, NotFoundError):
        return Published(entry, None, ())
    plans = []
    for each in plan_descriptors(index):
        with suppress(IntegrityError, NotFoundError):
            plan = read_plan(store, each)
            plans += [plan] if store.holds(plan.blobs) else []
    caches = tuple(cache_descriptors(index))
    return Published(entry, model if store.holds(model.blobs) else None, tuple(plans), caches)


def write_model(store: Store, config: ModelConfig) -> ModelDocument:
    """Write a model's config and manifest.

    Args:
        store: holds the packs, graphs and assets already.
        config: what to write; the names of its assets become their layers' titles.
    """
    graphs = {digest: _layer(store, digest, model_schema.GRAPH) for digest in _graph_layers(config)}
    packs = (_layer(store, pack, model_schema.PACK) for pack in config.packs)
    files = (_layer(store, digest, model_schema.ASSET, {TITLE: name}) for name, digest in sorted(config.assets.items()))
    manifest = Manifest(
        artifact_type=model_schema.ARTIFACT,
        config=_put(store, config, model_schema.CONFIG),
        layers=(*graphs.values(), *packs, *files),
    )
    return ModelDocument(_put(store, manifest, MANIFEST, artifact_type=model_schema.ARTIFACT), manifest, config)


def write_plan(store: Store, config: PlanConfig, layers: Iterable[tuple[str, Digest]]) -> PlanDocument:
    """Write a plan's config and manifest.

    Args:
        store: holds the layers already.
        config: what to write.
        layers: media type and digest of each.
    """
    manifest = Manifest(
        artifact_type=plan_schema.ARTIFACT,
        config=_put(store, config, plan_schema.CONFIG),
        layers=tuple(_layer(store, digest, media_type) for media_type, digest in layers),
    )
    descriptor = _put(store, manifest, MANIFEST, artifact_type=plan_schema.ARTIFACT)
    bare = PlanDocument(descriptor, manifest, config)
    annotations = to_annotations(facts_from_document(bare))
    return PlanDocument(msgspec.structs.replace(descriptor, annotations=annotations), manifest, config)


def write_cache(store: Store, facts: RuntimeCacheFacts, layer: bytes) -> Descriptor:
    """Write a runtime cache's config and manifest, and give its descriptor.

    Args:
        store: where to.
        facts: what it is for.
        layer: the cache, compressed.
    """
    packed = Descriptor(media_type=runtime_cache.LAYER, digest=store.blobs.put(layer), size=len(layer))
    config = _put(store, facts, runtime_cache.CONFIG)
    manifest = Manifest(artifact_type=runtime_cache.ARTIFACT, config=config, layers=(packed,))
    descriptor = _put(store, manifest, MANIFEST, artifact_type=runtime_cache.ARTIFACT)
    return msgspec.structs.replace(descriptor, annotations={runtime_cache.ANNOTATION: encode(facts).decode()})


def publish(
    store: Store,
    ref: Ref,
    model: ModelDocument,
    plans: Sequence[PlanDocument],
    *,
    caches: Sequence[Descriptor] = (),
) -> Descriptor:
    """Point the tag at an index of the model and its plans.

    Plans that are there already stay if they belong to the same model and none of the new ones replaces them, also when
    another process publishes to the same tag at the same time. Runtime caches stay as long as their plans do.

    Args:
        store: holds all of it.
        ref: the tag.
        model: what it is to point to.
        plans: those to add.
        caches: runtime caches to add, from :func:`write_cache`.

    Returns:
        The index's descriptor.

    Raises:
        StorageError: the file system refuses, or other processes keep changing the tag.
    """
    for _ in range(_ATTEMPTS):
        before = read_published(store, ref)
        merged = {_slot(plan.config): plan for plan in (*_keepable(before, model), *plans)}
        documents: list[ModelDocument | PlanDocument] = [model, *merged.values()]
        for document in documents:
            if not store.holds(document.blobs):  # nothing makes them anew here: the build has to
                raise StorageError(
                    f"blobs of {ref.tagged} vanished from {store.layout.root} during the build",
                    hint="another program deletes there: build again when it has stopped",
                )
        ordered = sorted(merged.values(), key=lambda plan: _slot(plan.config))
        kept = _caches(store, (*before.caches, *caches), ordered)
        index = Index(manifests=(model.descriptor, *(plan.descriptor for plan in ordered), *kept))
        descriptor = _put(store, index, INDEX)
        if store.refs.swap(ref, descriptor, held=None, expected=before.entry):
            return descriptor
    raise StorageError(f"other processes keep changing {ref.tagged}", hint="try again when they are done")


def _graph_layers(config: ModelConfig) -> list[Digest]:
    return [component.graph.layer for component in config.components.values()]


def _keepable(before: Published, model: ModelDocument) -> Iterable[PlanDocument]:
    same = before.model is not None and before.model.descriptor.digest == model.descriptor.digest
    return before.plans if same else ()


def _caches(store: Store, caches: Iterable[Descriptor], plans: Iterable[PlanDocument]) -> list[Descriptor]:
    """Those that plans of the index have a use for, and that are here; of two for one purpose the later."""
    engines = {plan.config.kept_as for plan in plans}
    found: dict[tuple[str, ...], Descriptor] = {}
    for each in caches:
        with suppress(IntegrityError, NotFoundError):  # a cache only saves time
            cache = read_cache(store, each)
            if cache.facts.engine in engines and store.holds(cache.blobs):
                found[cache.facts.slot] = each
    return [found[slot] for slot in sorted(found)]


def _slot(config: PlanConfig) -> tuple[str, ...]:
    """What two plans of one index may not have in common."""
    target = config.target
    made_for = (config.component, target.name, target.backend, target.version, target.sku)
    return *made_for, *(profile.name for profile in config.profiles)


def _put(store: Store, document: msgspec.Struct, media_type: str, *, artifact_type: str = "") -> Descriptor:
    data = encode(document)
    return Descriptor(media_type=media_type, digest=store.blobs.put(data), size=len(data), artifact_type=artifact_type)


def _layer(store: Store, digest: Digest, media_type: str, annotations: dict[str, str] | None = None) -> Descriptor:
    size = store.blobs.size(digest)
    if size is None:
        raise StorageError(f"blob {digest} vanished from {store.layout.root} during the build", hint="build again")
    return Descriptor(media_type=media_type, digest=digest, size=size, annotations=annotations or {})
