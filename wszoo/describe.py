"""What stands in a store, as structs that print as tables and as JSON: list, show and diff."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from wszoo.digest import Digest
from wszoo.errors import WszooError
from wszoo.schema.model import Value
from wszoo.schema.trust import Decision
from wszoo.store.documents import (
    model_descriptor,
    plan_descriptors,
    plan_facts,
    read_index,
    read_indexed_model,
    read_model,
)
from wszoo.store.engine_only import keeps_engines_only
from wszoo.trust.record import decision_about
from wszoo.trust.signatures import signatures_here
from wszoo.weights.tensor import dtype_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wszoo.names import Ref
    from wszoo.schema.facts import PlanFacts
    from wszoo.schema.model import Component, ModelConfig, TensorInfo
    from wszoo.schema.oci import Descriptor, Index
    from wszoo.store.documents import ModelDocument
    from wszoo.store.refs import Entry
    from wszoo.store.store import Store


class RefView(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``wszoo list``.

    Attributes:
        ref: ``name:tag``.
        index_digest: what it points to.
        family: the plugin that made it.
        components: their names.
        targets: of the plans that are here.
        weight_bytes: raw.
        stored_bytes: what is here for it, shared or not, but for its plans' manifests, of a kilobyte or two each.
        trust: why it was taken from a remote; None for what was built here.
    """

    ref: str
    index_digest: Digest
    family: str
    components: tuple[str, ...]
    targets: tuple[str, ...]
    weight_bytes: int
    stored_bytes: int
    trust: Decision | None


class PlanView(msgspec.Struct, frozen=True, kw_only=True):
    """One plan of ``wszoo show``.

    Attributes:
        component: the network it runs.
        target: such as ``rtx-sm89``.
        kind: how it is assembled.
        backend: and ``version``: what built it.
        version: of the backend.
        profiles: names of its optimization profiles.
        engine_bytes: the full plan.
        plan_bytes: stored and shipped for it: all of its layers.
        shared_bytes: the part of ``plan_bytes`` that other plans of the component use too.
        index_digest: of the model's index.
        manifest_digest: of the plan's manifest.
        plan_digest: of the layer that only this plan has.
        shared_digest: of the layer that it shares, or None.
        engine_digest: of the full plan's bytes, as its publisher says: it is for people, with ``sha256sum``.
        kept_as: what assembling checks, and ``wszoo cache list`` shows: the tree digest if there is one, ADR 23.
        held: its blobs are in this store.
        compute_capabilities: dotted, those it was compiled for; empty for any.
    """

    component: str
    target: str
    kind: str
    backend: str
    version: str
    profiles: tuple[str, ...]
    engine_bytes: int
    plan_bytes: int
    shared_bytes: int
    index_digest: Digest
    manifest_digest: Digest
    plan_digest: Digest
    shared_digest: Digest | None
    engine_digest: Digest
    kept_as: Digest
    held: bool
    compute_capabilities: tuple[str, ...] = ()


class ComponentView(msgspec.Struct, frozen=True, kw_only=True):
    """One network of ``wszoo show``."""

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    tensors: int
    weight_bytes: int
    graph_bytes: int


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """What ``wszoo show`` says of a model.

    Attributes:
        ref: ``name:tag``.
        index_digest: what it points to.
        manifest_digest: of the model's manifest.
        family: the plugin that made it.
        licence: SPDX, or empty.
        weight_bytes: raw, each distinct tensor once.
        weight_stored_bytes: the same as they are stored and shipped.
        components: its networks.
        plans: in the index's order.
        assets: names of the files that travel with it.
        options: the family's own record.
        provenance: versions of what built it.
        trust: why it was taken from a remote; None for what was built here.
        signatures: how many there are of it here.
        keeps_engines: its assembled plans stand in for its weights here (``wszoo pull --keep engine``).
    """

    ref: str
    index_digest: Digest
    manifest_digest: Digest
    family: str
    licence: str
    weight_bytes: int
    weight_stored_bytes: int
    components: tuple[ComponentView, ...]
    plans: tuple[PlanView, ...]
    assets: tuple[str, ...]
    options: dict[str, str]
    provenance: dict[str, str]
    trust: Decision | None
    signatures: int
    keeps_engines: bool = False


class SharingView(msgspec.Struct, frozen=True, kw_only=True):
    """How the tensors of one side of a diff, or of one component, are spread.

    Attributes:
        name: of the component; empty for the whole model.
        shared_tensors: tensors whose bytes both models have.
        shared_bytes: their raw bytes.
        only_first_bytes: raw bytes that only the first model has.
        only_second_bytes: raw bytes that only the second model has.
        changed: names of tensors that both have with other bytes.
    """

    name: str
    shared_tensors: int
    shared_bytes: int
    only_first_bytes: int
    only_second_bytes: int
    changed: tuple[str, ...]


class DiffView(msgspec.Struct, frozen=True, kw_only=True):
    """What ``wszoo diff`` says.

    Attributes:
        first: ``name:tag@digest``.
        second: ``name:tag@digest``.
        same_model: the two have one model manifest.
        total: all tensors together, each distinct one once.
        components: those that either has.
        plans_only_first: ``component target`` of plans whose full bytes only the first has.
        plans_only_second: the same for the second.
    """

    first: str
    second: str
    same_model: bool
    total: SharingView
    components: tuple[SharingView, ...]
    plans_only_first: tuple[str, ...]
    plans_only_second: tuple[str, ...]


def list_refs(store: Store) -> tuple[list[RefView], list[WszooError]]:
    """Every ref of a store that can be read, and what is wrong with the others."""
    views = []
    entries, damage = store.refs.survey()
    for entry in entries:
        if entry.ref.is_referrers:
            continue
        try:
            views.append(_ref(store, entry))
        except WszooError as error:
            damage.append(error)
    return views, damage


def _ref(store: Store, entry: Entry) -> RefView:
    shown, model = look(store, entry)
    return RefView(
        ref=shown.ref,
        index_digest=shown.index_digest,
        family=shown.family,
        components=tuple(component.name for component in shown.components),
        targets=tuple(dict.fromkeys(plan.target for plan in shown.plans if plan.held)),
        weight_bytes=shown.weight_bytes,
        stored_bytes=entry.descriptor.size + _stored(store, shown, model),
        trust=shown.trust,
    )


def _stored(store: Store, shown: ModelView, model: ModelDocument) -> int:
    """Bytes of a model's own blobs that are here, and of its plans' layers.

    Plans' manifests are not read: with twelve plans a model that is most of the time that a list takes.
    """
    blobs = {each.digest: store.blobs.size(each.digest) or 0 for each in model.blobs}
    for plan in shown.plans:
        if plan.held:
            blobs.setdefault(plan.plan_digest, plan.plan_bytes - plan.shared_bytes)
            if plan.shared_digest:
                blobs.setdefault(plan.shared_digest, plan.shared_bytes)
    return sum(blobs.values())


def show(store: Store, ref: Ref) -> ModelView:
    """One model.

    Raises:
        NotFoundError: no such ref.
        IntegrityError: a document is damaged.
    """
    return look(store, store.refs.get(ref))[0]


def look(store: Store, entry: Entry) -> tuple[ModelView, ModelDocument]:
    """What a ref that was read points to, and the documents of its model.

    Raises:
        NotFoundError: a document is missing.
        IntegrityError: a document is damaged.
    """
    index = read_index(store, entry.descriptor)
    model = read_model(store, model_descriptor(index))
    return _view(store, entry, index, model), model


def _view(store: Store, entry: Entry, index: Index, model: ModelDocument) -> ModelView:
    config = model.config
    return ModelView(
        ref=entry.ref.tagged,
        index_digest=entry.descriptor.digest,
        manifest_digest=model.descriptor.digest,
        family=config.family,
        licence=config.licence,
        weight_bytes=sum(tensor_sizes(config).values()),
        weight_stored_bytes=sum(frame.stored for frames in config.frames.values() for frame in frames),
        components=tuple(_component(name, component) for name, component in config.components.items()),
        plans=tuple(
            _plan(
                plan_facts(store, each), each, entry.descriptor.digest, entry.held is None or each.digest in entry.held
            )
            for each in plan_descriptors(index)
        ),
        assets=tuple(config.assets),
        options=config.options,
        provenance=config.provenance,
        trust=decision_about(store.layout, entry.descriptor.digest),
        signatures=len(signatures_here(store, entry.ref, entry.descriptor.digest)),
        keeps_engines=keeps_engines_only(store.layout, entry.descriptor.digest),
    )


def diff(store: Store, first: Ref, second: Ref) -> DiffView:
    """What two models share and what they do not.

    Raises:
        NotFoundError: no such ref.
        IntegrityError: a document is damaged.
    """
    views = [show(store, ref) for ref in (first, second)]
    configs = [_config(store, ref) for ref in (first, second)]
    names = dict.fromkeys(name for config in configs for name in config.components)
    engines = [{plan.kept_as: f"{plan.component} {plan.target}" for plan in view.plans} for view in views]
    return DiffView(
        first=f"{views[0].ref}@{views[0].index_digest}",
        second=f"{views[1].ref}@{views[1].index_digest}",
        same_model=views[0].manifest_digest == views[1].manifest_digest,
        total=_sharing("", _all_tensors(configs[0]), _all_tensors(configs[1])),
        components=tuple(_sharing(name, _tensors(configs[0], name), _tensors(configs[1], name)) for name in names),
        plans_only_first=tuple(engines[0][digest] for digest in engines[0] if digest not in engines[1]),
        plans_only_second=tuple(engines[1][digest] for digest in engines[1] if digest not in engines[0]),
    )


def _config(store: Store, ref: Ref) -> ModelConfig:
    return read_indexed_model(store, store.refs.get(ref).descriptor).config


def _tensors(config: ModelConfig, component: str) -> dict[str, TensorInfo]:
    there = config.components.get(component)
    return {info.name: info for info in there.tensors} if there else {}


def _all_tensors(config: ModelConfig) -> dict[str, TensorInfo]:
    return {f"{name}/{info.name}": info for name, part in config.components.items() for info in part.tensors}


def _sharing(name: str, first: Mapping[str, TensorInfo], second: Mapping[str, TensorInfo]) -> SharingView:
    sizes = [{info.digest: _nbytes(info) for info in side.values()} for side in (first, second)]
    shared = sizes[0].keys() & sizes[1].keys()
    return SharingView(
        name=name,
        shared_tensors=len(shared),
        shared_bytes=sum(sizes[0][digest] for digest in shared),
        only_first_bytes=sum(size for digest, size in sizes[0].items() if digest not in shared),
        only_second_bytes=sum(size for digest, size in sizes[1].items() if digest not in shared),
        changed=tuple(key for key in first if key in second and first[key].digest != second[key].digest),
    )


def _component(name: str, component: Component) -> ComponentView:
    distinct = {info.digest: _nbytes(info) for info in component.tensors}
    return ComponentView(
        name=name,
        inputs=component.inputs,
        outputs=component.outputs,
        tensors=len(component.tensors),
        weight_bytes=sum(distinct.values()),
        graph_bytes=component.graph.size,
    )


def _plan(facts: PlanFacts, descriptor: Descriptor, index: Digest, held: bool) -> PlanView:
    return PlanView(
        component=facts.component,
        target=facts.target.name,
        kind=facts.kind,
        backend=facts.target.backend,
        version=facts.target.version,
        profiles=facts.profiles,
        engine_bytes=facts.engine_bytes,
        plan_bytes=facts.plan_bytes,
        shared_bytes=facts.shared_bytes,
        index_digest=index,
        manifest_digest=descriptor.digest,
        plan_digest=facts.plan_digest,
        shared_digest=facts.shared_digest,
        engine_digest=facts.engine_digest,
        kept_as=facts.kept_as,
        held=held,
        compute_capabilities=facts.target.compute_capabilities,
    )


def tensor_sizes(config: ModelConfig) -> dict[Digest, int]:
    """Raw bytes of each distinct tensor."""
    return {info.digest: _nbytes(info) for part in config.components.values() for info in part.tensors}


def _nbytes(info: TensorInfo) -> int:
    return dtype_of(info.dtype).nbytes(info.shape)
