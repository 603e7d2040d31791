"""Assembling: a stripped plan and the store's weights become what a backend loads, verified before anyone sees it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from wszoo.backends.protocol import Assembled
from wszoo.codecs import zstd
from wszoo.digest import Digest
from wszoo.errors import IncompatibleError, MalformedError, UsageError, WszooError
from wszoo.schema.plan import Kind
from wszoo.settings import cache_limit
from wszoo.store.cache import shrink_cache
from wszoo.store.engines import is_verified, stamp
from wszoo.store.files import check_room, place, storage_errors, sync_file, unique_name

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.progress import Progress
    from wszoo.schema import model as model_schema
    from wszoo.store.documents import ModelDocument, PlanDocument
    from wszoo.store.store import Store
    from wszoo.weights.apart import Graph

# Reading plans and weights is imported where it is done: a pull would wait 0.2 s for it before it asks for anything.

MAX_GRAPH = 256 << 20  # bytes, without weights; SDXL's unet takes 6 MB
MAX_GRAPH_LAYER = 64 << 20  # compressed


class Keep(StrEnum):
    """What stays on the disk of a plan for TensorRT.

    ``both``: the weights in the store, and the plan with its weights beside them, which loads fastest. ``weights``:
    only the store; each load reads the plan out of it (and refits it, if it is a native one). ``engine``: only the plan
    with its weights; gc may delete the weights once it is complete (:mod:`wszoo.store.engine_only`).
    """

    BOTH = "both"
    WEIGHTS = "weights"
    ENGINE = "engine"


def parse_keep(text: str) -> Keep:
    """A :class:`Keep` by its value.

    Raises:
        UsageError: there is none.
    """
    try:
        return Keep(text)
    except ValueError:
        raise UsageError(f"cannot keep {text!r}", hint=f"there is: {', '.join(Keep)}") from None


def assemble(
    store: Store,
    model: ModelDocument,
    plan: PlanDocument,
    device: str,
    progress: Progress,
    *,
    keep: Keep = Keep.BOTH,
) -> Assembled:
    """Put a plan together, or take it from the cache.

    Args:
        store: holds the model's packs and the plan's layers.
        model: the model.
        plan: one of its plans.
        device: ``cuda`` or ``cpu``; where it will run.
        progress: where to report.
        keep: whether a plan with its weights is kept on the disk.

    Raises:
        IncompatibleError: the plan was cut from other weights, or is of a kind that this version does not know.
        IntegrityError: bytes are not what their digest says.
        StorageError: the disk is full or refuses.
    """
    from wszoo.weights.apart import Graph
    from wszoo.weights.packs import PackReader, weights_digest

    config = plan.config
    component = model.config.components.get(config.component)
    if component is None:
        raise MalformedError(
            f"plan {plan.descriptor.digest} is for {config.component!r}, which the model does not have"
        )
    if config.weights != weights_digest(component.tensors):
        raise IncompatibleError(
            f"plan {plan.descriptor.digest} was made from other weights than the model has",
            hint="pull the model again: its plans were replaced together with its weights",
        )
    # An assembled plan is hashed as a whole; elsewhere the result is only as good as each of its tensors.
    packs = PackReader(store.blobs, model.config, verify=config.kind != Kind.SPLICE)
    proto = read_graph(store, component.graph, config.component)
    graph = Graph(proto, packs.component(config.component), component.inputs, component.outputs)
    cache = store.layout.runtime / config.kept_as.hex
    made = Assembled(config=config, device=device, engine=None, graph=graph, cache=cache, keep=keep is not Keep.WEIGHTS)
    if config.kind == Kind.PORTABLE:
        return made
    if config.kind == Kind.NATIVE:
        return replace(made, **_native(store, plan, graph))
    if config.kind != Kind.SPLICE:
        raise IncompatibleError(f"plans of kind {config.kind!r} need a later wszoo", hint="pip install --upgrade wszoo")
    if keep is Keep.WEIGHTS and not is_verified(store.layout, config.kept_as, progress):
        from wszoo.plans.streamed import open_streamed

        return replace(made, source=open_streamed(store, plan, packs, cache, progress))
    return replace(made, engine=_engine(store, plan, graph, progress))


def _native(store: Store, plan: PlanDocument, graph: Graph) -> dict[str, Any]:
    from wszoo.plans.native import check_map, read_map, read_plan
    from wszoo.plans.source import MemorySource

    refit = read_map(store, plan.manifest)
    check_map(refit, graph.tensors)
    data = read_plan(store, plan.manifest, plan.config, refit)
    name = f"the plan of {plan.config.component} for {plan.config.target.name}"
    return {"refit": refit, "source": MemorySource(data, name)}


def read_graph(store: Store, stored: model_schema.Graph, name: str) -> bytes:
    """A component's serialized graph, without its weights.

    Args:
        store: holds it.
        stored: as the model's config names it.
        name: of the component, for messages.

    Raises:
        NotFoundError: it is not there.
        IntegrityError: it is damaged, or claims to be larger than any graph.
    """
    if stored.size > MAX_GRAPH:
        raise MalformedError(f"the graph of {name} claims {stored.size} bytes")
    proto = zstd.decompress(store.blobs.read(stored.layer, limit=MAX_GRAPH_LAYER), size=stored.size)
    stored.digest.check(Digest.of(proto), f"the graph of {name}")
    return proto


def _engine(store: Store, plan: PlanDocument, graph: Graph, progress: Progress) -> Path:
    from wszoo.plans.spliced import unsplice

    config = plan.config
    path = store.layout.engine(config.kept_as)
    with storage_errors("look at"):
        if is_verified(store.layout, config.kept_as, progress):
            return path
    with store.lease():  # else gc could take the unfinished file
        check_room(store.layout.root, config.engine_bytes, "assemble the plan")
        temporary = store.layout.tmp / unique_name()
        try:
            with progress.stage(f"assemble {config.component}", config.engine_bytes) as advance:
                unsplice(store, plan.manifest, config, graph.tensors, temporary, advance=advance)
            with storage_errors("keep the assembled plan as"):
                sync_file(temporary)
                place(temporary, path)
                stamp(store.layout, config.kept_as)
                _keep_within_limit(store, config.kept_as)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    return path


def _keep_within_limit(store: Store, digest: Digest) -> None:
    """Let go of other assembled plans where the user's settings ask for it; a plan that is here is worth more."""
    with suppress(WszooError):
        limit = cache_limit()
        if limit is not None:
            shrink_cache(store, limit, keep=digest)
