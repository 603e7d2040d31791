"""The version of a model that a new one follows when only its weights changed: ``wszoo build --weights-only``.

Which plans there are, for which targets and profiles, comes from the earlier version; the networks of the new one must
be the same but for their weights. What happens to a plan depends on its kind:

    portable    stays: it is the graph and the weights
    splice      is built again; the operations that restored the earlier plan are tried before new ones are looked for
    native      stays if it was built to take any weights, else it is built again
    any         of a network whose weights did not change stays as it is, also where its builder is missing
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from wszoo.assemble import read_graph
from wszoo.errors import BuildError, IntegrityError, MissingExtraError, NotFoundError, UsageError
from wszoo.names import TargetSpec
from wszoo.plans.native import read_map
from wszoo.publish import write_plan
from wszoo.schema.plan import Kind
from wszoo.schema.refit import Mode
from wszoo.store.documents import plan_descriptors, plan_facts, read_index, read_indexed_model, read_plan
from wszoo.weights.packs import weights_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from wszoo.backends.protocol import Backend
    from wszoo.digest import Digest
    from wszoo.names import Ref
    from wszoo.plugins import Registry
    from wszoo.schema.model import Component, ModelConfig
    from wszoo.schema.plan import PlanConfig, Target
    from wszoo.store.documents import PlanDocument
    from wszoo.store.store import Store
    from wszoo.weights.apart import Graph

KEPT, REBUILT, LEFT_OUT = "kept", "rebuilt", "left out"
_REBUILD = "build without --weights-only"


class PlanChange(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one plan of the earlier version.

    Attributes:
        component: the network it runs.
        target: such as ``rtx-sm89``.
        kind: how it is assembled.
        action: ``kept``, ``rebuilt`` or ``left out``.
        why: in words.
        new_bytes: in layers that the earlier version has not.
    """

    component: str
    target: str
    kind: str
    action: str
    why: str
    new_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Earlier:
    """A published version, as far as it is in the store.

    Attributes:
        ref: its name.
        model: its config.
        plans: those that are here.
        absent: those that are not, already as what is said of them.
    """

    ref: Ref
    model: ModelConfig
    plans: tuple[PlanDocument, ...]
    absent: tuple[PlanChange, ...]

    def of(self, component: str) -> list[PlanDocument]:
        """The plans of one network."""
        return [plan for plan in self.plans if plan.config.component == component]

    def targets(self, wanted: Sequence[TargetSpec]) -> tuple[TargetSpec, ...]:
        """What to build for.

        Args:
            wanted: some of its targets; none for all that it has.

        Raises:
            UsageError: it has no plan for one of them.
        """
        there = tuple(dict.fromkeys(TargetSpec.parse(plan.config.target.name) for plan in self.plans))
        for spec in wanted:
            if spec not in there:
                raise UsageError(
                    f"{self.ref.tagged} has no plan for {spec} in this store",
                    hint=f"it has {', '.join(map(str, there)) or 'none'}; for another target {_REBUILD}",
                )
        return tuple(wanted) or there


def read_earlier(store: Store, ref: Ref) -> Earlier:
    """Look a version up.

    Raises:
        NotFoundError: no such ref.
        IntegrityError: a document is damaged.
    """
    entry = store.refs.get(ref)
    plans, absent = [], []
    for descriptor in plan_descriptors(read_index(store, entry.descriptor)):
        try:
            plan = read_plan(store, descriptor)
        except (IntegrityError, NotFoundError):
            plan = None
        if plan is not None and store.holds(plan.blobs):
            plans.append(plan)
            continue
        facts, why = plan_facts(store, descriptor), "it is not in this store: pull it first"
        absent.append(
            PlanChange(component=facts.component, target=facts.target.name, kind=facts.kind, action=LEFT_OUT, why=why)
        )
    return Earlier(ref, read_indexed_model(store, entry.descriptor).config, tuple(plans), tuple(absent))


def resolve_targets(
    registry: Registry, specs: Iterable[TargetSpec]
) -> tuple[dict[str, tuple[Backend, Target]], dict[str, str]]:
    """The targets that can be built here, by name, and for the others why not."""
    found, missing = {}, {}
    for spec in specs:
        try:
            backend = registry.backend_for(spec.prefix)
            found[str(spec)] = backend, backend.target(spec)
        except (UsageError, MissingExtraError) as error:
            missing[str(spec)] = error.message
    return found, missing


def check_network(store: Store, earlier: Earlier, name: str, graph: Graph) -> None:
    """Refuse a network that is not the earlier one with other weights.

    Raises:
        BuildError: it differs; the message has the first difference.
        NotFoundError: the earlier version's graph is not in the store.
    """
    from wszoo.weights.skeleton import difference

    before = earlier.model.components.get(name)
    if before is None:
        raise BuildError(
            f"{earlier.ref.tagged} has no component {name!r}, so more than its weights changed", hint=_REBUILD
        )
    changed = _reshaped(before, graph) or difference(read_graph(store, before.graph, name), graph.proto)
    if changed:
        raise BuildError(
            f"{name} is not the same network as in {earlier.ref.tagged}: {changed}",
            hint=f"give the same --precision and --option as for {earlier.ref.tagged}, or {_REBUILD}",
        )


def check_complete(earlier: Earlier, components: Iterable[str]) -> None:
    """Refuse a model that lacks one of the earlier version's networks.

    Raises:
        BuildError: it does.
    """
    lacking = sorted(earlier.model.components.keys() - set(components))
    if lacking:
        raise BuildError(
            f"{earlier.ref.tagged} has {', '.join(lacking)} too, so more than its weights changed", hint=_REBUILD
        )


def is_current(config: PlanConfig, component: Component) -> bool:
    """True when a plan was made from just this graph and these weights."""
    return config.graph == component.graph.digest and config.weights == weights_digest(component.tensors)


def reason_against(store: Store, plan: PlanDocument, component: Component | None) -> str:
    """Why a plan cannot have a component's weights without being built again; empty when it can."""
    if plan.config.kind != Kind.NATIVE:
        return f"it is {plan.config.kind}, not stripped by its builder"
    if read_map(store, plan.manifest).mode != Mode.ANY:
        return "it was built for its own weights only"
    if component is None:
        return f"the other version has no {plan.config.component}"
    # The graph names every tensor with its type and shape, and holds the constants that stand in the refit map.
    if component.graph.digest != plan.config.graph:
        return "the other version's network differs in more than the weights"
    return ""


def refitted(store: Store, plan: PlanDocument, component: Component) -> PlanDocument:
    """The same layers for other weights; only where :func:`reason_against` has none."""
    config = msgspec.structs.replace(plan.config, weights=weights_digest(component.tensors))
    return write_plan(store, config, [(layer.media_type, layer.digest) for layer in plan.manifest.layers])


def left_out(plan: PlanDocument, why: str) -> PlanChange:
    """What is said of a plan that cannot be built here."""
    config = plan.config
    return PlanChange(component=config.component, target=config.target.name, kind=config.kind, action=LEFT_OUT, why=why)


def changes(earlier: Earlier, built: Iterable[PlanDocument], kept: Iterable[PlanDocument]) -> list[PlanChange]:
    """What became of the plans that the new version has."""
    sizes = {layer.digest: layer.size for plan in earlier.plans for layer in plan.manifest.layers}
    before = {plan.descriptor.digest for plan in earlier.plans}
    found = [_change(plan, KEPT, _why_kept(plan, before), sizes) for plan in kept]
    return [*found, *(_built(plan, sizes) for plan in built)]


def _built(plan: PlanDocument, sizes: Mapping[Digest, int]) -> PlanChange:
    if plan.config.kind == Kind.PORTABLE:
        return _change(plan, KEPT, "it is the graph and the weights", sizes)
    change = _change(plan, REBUILT, "", sizes)
    why = "with new operations" if change.new_bytes else "the earlier plan's operations restore it"
    return msgspec.structs.replace(change, why=why)


def _why_kept(plan: PlanDocument, before: set[Digest]) -> str:
    if plan.config.kind == Kind.NATIVE and plan.descriptor.digest not in before:
        return "it takes any weights"
    return "its weights did not change" if plan.descriptor.digest in before else "it was built before"


def _change(plan: PlanDocument, action: str, why: str, sizes: Mapping[Digest, int]) -> PlanChange:
    config = plan.config
    return PlanChange(
        component=config.component,
        target=config.target.name,
        kind=config.kind,
        action=action,
        why=why,
        new_bytes=sum(layer.size for layer in plan.manifest.layers if layer.digest not in sizes),
    )


def _reshaped(before: Component, now: Graph) -> str:
    old = [(info.name, info.dtype, info.shape) for info in before.tensors]
    new = [(tensor.name, tensor.dtype.name, tensor.shape) for tensor in now.tensors]
    for one, other in zip(old, new, strict=False):
        if one != other:
            was, now_is = (f"{name!r}, {dtype} {list(shape)}" for name, dtype, shape in (one, other))
            return f"its tensor {was}, is now {now_is}"
    return f"it had {len(old)} tensors and has {len(new)}" if len(old) != len(new) else ""
