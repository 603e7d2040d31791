"""From a plan as its builder wrote it to a stripped one in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from wszoo.digest import Digest
from wszoo.errors import IntegrityError, NotFoundError
from wszoo.plans.native import check_map, pack_map, pack_plan
from wszoo.plans.reused import restored_tree
from wszoo.plans.spliced import read_base, read_body, splice
from wszoo.publish import write_plan
from wszoo.schema.plan import NATIVE, REFIT, SPLICE, SPLICE_BASE, Kind
from wszoo.store.files import storage_errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wszoo.backends.protocol import Stripped
    from wszoo.progress import Progress
    from wszoo.schema.plan import PlanConfig
    from wszoo.store.documents import PlanDocument
    from wszoo.store.store import Store
    from wszoo.weights.apart import Graph


def strip(
    store: Store, graph: Graph, config: PlanConfig, plan: Path, *, known: Sequence[PlanDocument], progress: Progress
) -> PlanDocument:
    """Cut the weights out of a full plan, and write what is left.

    Args:
        store: where to.
        graph: what the plan was built from.
        config: of the plan, but for what is only known now: the full plan's digest and size.
        plan: the builder's file.
        known: plans of the same network in the store, of this version and of earlier ones. One for the same target may
            have the operations that restore this plan too; any may lend its base.
        progress: where to report.

    Raises:
        BuildError: the result does not assemble to the same bytes: a defect in wszoo, caught before publishing.
        StorageError: the disk is full or refuses.
    """
    mine = [other for other in known if other.config.kind == Kind.SPLICE and _is_sibling(other.config, config)]
    reused = _reused(store, graph, config, plan, known=mine, progress=progress)
    return reused or _spliced(store, graph, config, plan, known=mine, progress=progress)


def keep_native(store: Store, config: PlanConfig, plan: Path, stripped: Stripped, graph: Graph) -> PlanDocument:
    """Write a plan that its builder has stripped, and how to refit it.

    Args:
        store: where to.
        config: of the plan, but for what is only known now.
        plan: the builder's file.
        stripped: what the backend said about it.
        graph: what the plan was built from.

    Raises:
        IntegrityError: the refit map does not fit the graph's tensors: a defect of the backend, caught early.
        StorageError: the disk is full or refuses.
    """
    check_map(stripped.refit, graph.tensors)
    with storage_errors(f"read the plan {plan}"):
        data = plan.read_bytes()
    layers = [(REFIT, store.blobs.put(pack_map(stripped.refit))), (NATIVE, store.blobs.put(pack_plan(data)))]
    made = msgspec.structs.replace(
        config, kind=Kind.NATIVE.value, engine_digest=Digest.of(data), engine_bytes=stripped.engine_bytes
    )
    return write_plan(store, made, layers)


def _reused(
    store: Store, graph: Graph, config: PlanConfig, plan: Path, *, known: Sequence[PlanDocument], progress: Progress
) -> PlanDocument | None:
    for other in known:
        if (other.config.target.name, other.config.profiles) != (config.target.name, config.profiles):
            continue
        with progress.stage(f"compare {_label(config)} with an earlier plan"):
            try:
                tree = restored_tree(read_body(store, other.manifest, other.config), graph.tensors, plan)
            except (IntegrityError, NotFoundError):  # a damaged plan is no help, and no harm
                continue
        if tree is not None:
            layers = [(layer.media_type, layer.digest) for layer in other.manifest.layers]
            return write_plan(store, _finished(config, Digest.of_file(plan), tree, plan.stat().st_size), layers)
    return None


def _spliced(
    store: Store, graph: Graph, config: PlanConfig, plan: Path, *, known: Sequence[PlanDocument], progress: Progress
) -> PlanDocument:
    from wszoo.weights.graph import scalars

    sibling = _lender(config, known)
    parts = splice(
        plan,
        graph.tensors,
        scales=scalars(graph.proto),
        base=read_base(store, sibling.manifest) if sibling else None,
        progress=progress,
        label=_label(config),
    )
    base = store.blobs.put(parts.base) if parts.base is not None else _base_layer(sibling)
    layers = [(SPLICE_BASE, base)] if base is not None else []
    layers.append((SPLICE, store.blobs.put(parts.layer)))
    return write_plan(store, _finished(config, parts.engine_digest, parts.engine_tree, parts.engine_bytes), layers)


def _finished(config: PlanConfig, digest: Digest, tree: Digest, size: int) -> PlanConfig:
    return msgspec.structs.replace(config, engine_digest=digest, engine_tree=tree, engine_bytes=size)


def _is_sibling(other: PlanConfig, config: PlanConfig) -> bool:
    return other.component == config.component and other.target.backend == config.target.backend


def _lender(config: PlanConfig, known: Sequence[PlanDocument]) -> PlanDocument | None:
    """Whose base can serve: one with the same profiles before others."""
    lenders = [plan for plan in known if _base_layer(plan) is not None]
    return min(lenders, key=lambda plan: plan.config.profiles != config.profiles, default=None)


def _base_layer(plan: PlanDocument | None) -> Digest | None:
    layers = plan.manifest.layers if plan else ()
    return next((layer.digest for layer in layers if layer.media_type == SPLICE_BASE), None)


def _label(config: PlanConfig) -> str:
    return f"{config.component} for {config.target.name}"
