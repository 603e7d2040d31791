"""Assembling: a stripped plan and the store's weights become what a backend loads, verified before anyone sees it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from wszoo.backends.protocol import Assembled
from wszoo.codecs import zstd
from wszoo.digest import Digest
from wszoo.errors import IncompatibleError, MalformedError
from wszoo.plans.spliced import unsplice
from wszoo.schema.decode import MAX_DOCUMENT
from wszoo.schema.plan import Kind
from wszoo.store.engines import is_verified, stamp
from wszoo.store.files import check_room, place, storage_errors, sync_file, unique_name
from wszoo.weights.graph import Graph
from wszoo.weights.packs import PackReader, weights_digest

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.progress import Progress
    from wszoo.schema.model import Component
    from wszoo.store.documents import ModelDocument, PlanDocument
    from wszoo.store.store import Store

MAX_GRAPH = 1 << 30  # SDXL's unet takes 6 MB


def assemble(store: Store, model: ModelDocument, plan: PlanDocument, device: str, progress: Progress) -> Assembled:
    """Put a plan together, or take it from the cache.

    Args:
        store: holds the model's packs and the plan's layers.
        model: the model.
        plan: one of its plans.
        device: ``cuda`` or ``cpu``; where it will run.
        progress: where to report.

    Raises:
        IncompatibleError: the plan was cut from other weights, or is of a kind that this version does not know.
        IntegrityError: bytes are not what their digest says.
        StorageError: the disk is full or refuses.
    """
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
    portable = config.kind == Kind.PORTABLE
    graph = _graph(store, model, component, config.component, verify=portable)
    engine = None if portable else _engine(store, plan, graph, progress)
    cache = store.layout.runtime / config.engine_digest.hex
    return Assembled(config=config, device=device, engine=engine, graph=graph, cache=cache)


def _graph(store: Store, model: ModelDocument, component: Component, name: str, *, verify: bool) -> Graph:
    stored = component.graph
    if stored.size > MAX_GRAPH:
        raise MalformedError(f"the graph of {name} claims {stored.size} bytes")
    proto = zstd.decompress(store.blobs.read(stored.layer, limit=MAX_DOCUMENT), size=stored.size)
    stored.digest.check(Digest.of(proto), f"the graph of {name}")
    # An assembled plan is hashed as a whole; a portable one is only as good as each of its tensors.
    tensors = PackReader(store.blobs, model.config, verify=verify).component(name)
    return Graph(proto, tensors, component.inputs, component.outputs)


def _engine(store: Store, plan: PlanDocument, graph: Graph, progress: Progress) -> Path:
    config = plan.config
    if config.kind != Kind.SPLICE:
        raise IncompatibleError(f"plans of kind {config.kind!r} need a later wszoo", hint="pip install --upgrade wszoo")
    path = store.layout.engine(config.engine_digest)
    with storage_errors("look at"):
        if is_verified(store.layout, config.engine_digest, progress):
            return path
    with store.lease():  # else gc could take the unfinished file
        check_room(store.layout.root, config.engine_bytes, "assemble the plan")
        temporary = store.layout.tmp / unique_name()
        try:
            with progress.stage(f"assemble {config.component}", config.engine_bytes) as advance:
                unsplice(store, plan.manifest, config, graph.tensors, temporary)
                advance(config.engine_bytes)
            with storage_errors("keep the assembled plan as"):
                sync_file(temporary)
                place(temporary, path)
                stamp(store.layout, config.engine_digest)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    return path
