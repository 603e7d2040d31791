"""One cell of the build matrix: a component of a model in the store, and a target. Whoever has both can build it.

The same function builds in this process, in a process of a pool, and on another machine: from the store, and into it.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from wszoo.assemble import read_graph
from wszoo.backends.protocol import BuildJob
from wszoo.building.strip import keep_native, strip
from wszoo.errors import IncompatibleError, NotFoundError
from wszoo.families.spool import Spool
from wszoo.names import TargetSpec
from wszoo.publish import write_plan
from wszoo.schema import model as model_schema
from wszoo.schema.oci import Descriptor
from wszoo.schema.plan import Kind, PlanConfig, Profile, Target
from wszoo.store.built import recall, remember
from wszoo.store.documents import read_model, read_plan
from wszoo.store.files import storage_errors
from wszoo.version import __version__
from wszoo.weights.apart import Graph
from wszoo.weights.packs import PackReader, weights_digest
from wszoo.weights.tensor import Tensor, dtype_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wszoo.backends.protocol import Backend
    from wszoo.plugins import Registry
    from wszoo.progress import Progress
    from wszoo.schema.model import Component
    from wszoo.store.documents import ModelDocument, PlanDocument
    from wszoo.store.store import Store

# Peak memory of a build by the size of its plan: 17.3 GB for SDXL's unet of 5.18 GB, 4.6 GB for 1.40 GB.
MEMORY_FACTOR = 3.5
IN_MEMORY = 256 << 20  # raw bytes of weights up to which they are decoded into memory, not into a file


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be built.

    Attributes:
        model: descriptor of the model's manifest.
        component: the network.
        target: as the builder that was chosen completes it.
        profiles: optimization profiles; empty when every shape is fixed.
        known: manifests of plans of the same network, which may lend what this one has in common with them.
    """

    model: Descriptor
    component: str
    target: Target
    profiles: tuple[Profile, ...] = ()
    known: tuple[Descriptor, ...] = ()

    def __str__(self) -> str:
        return f"{self.component} for {self.target.name}"


def wanted_plan(
    name: str, component: Component, backend: Backend, target: Target, profiles: tuple[Profile, ...]
) -> PlanConfig:
    """What a plan's config will be, but for what is only known when it was built; what builds are remembered by.

    Args:
        name: of the component.
        component: the network.
        backend: the target's.
        target: as the backend completed it.
        profiles: taken where the backend needs them.
    """
    return PlanConfig(
        component=name,
        target=target,
        kind=backend.kind.value,
        profiles=profiles if backend.needs_profiles else (),
        engine_digest=component.graph.digest,
        engine_bytes=component.graph.size + weight_bytes(component),
        graph=component.graph.digest,
        weights=weights_digest(component.tensors),
        provenance={"wszoo": __version__},
    )


def is_plan_for(there: PlanConfig, wanted: PlanConfig) -> bool:
    """True when a plan that is there is what building again would give."""
    # How a plan could be stripped is known only when it was built.
    engine = {"engine_digest": there.engine_digest, "engine_tree": there.engine_tree, "kind": there.kind}
    return msgspec.structs.replace(wanted, engine_bytes=there.engine_bytes, **engine) == there


def weight_bytes(component: Component) -> int:
    """Raw bytes of a component's tensors."""
    return sum(dtype_of(info.dtype).nbytes(info.shape) for info in component.tensors)


def memory_needed(component: Component) -> int:
    """Bytes that building a plan of a component is expected to take."""
    return int(MEMORY_FACTOR * (component.graph.size + weight_bytes(component)))


def make_plan(
    store: Store,
    backend: Backend,
    graph: Graph,
    wanted: PlanConfig,
    layer: model_schema.Graph,
    *,
    known: Sequence[PlanDocument],
    scratch: Path,
    progress: Progress,
) -> PlanDocument:
    """Build one plan, strip it, and write it into the store, where the build is remembered.

    Args:
        store: where to.
        backend: builds it.
        graph: with its weights.
        wanted: from :func:`wanted_plan`.
        layer: the graph as the store has it: all that a portable plan consists of.
        known: plans of the same network that are in the store, earlier versions' too.
        scratch: an existing folder for the full plan.
        progress: where to report.

    Raises:
        BuildError: the builder refuses.
        StorageError: the disk is full or refuses.
    """
    out = scratch / "engine.plan"
    job = BuildJob(
        component=wanted.component,
        graph=graph,
        target=wanted.target,
        profiles=wanted.profiles,
        progress=progress,
        cache=store.layout.timing,
    )
    stripped = backend.build(job, out)
    if stripped is not None:
        plan = keep_native(store, wanted, out, stripped, graph)
    elif wanted.kind == Kind.PORTABLE:
        plan = write_plan(store, wanted, [(model_schema.GRAPH, layer.layer)])
    else:
        whole = Kind.SPLICE.value if wanted.kind == Kind.NATIVE else wanted.kind
        config = msgspec.structs.replace(wanted, kind=whole)
        plan = strip(store, graph, config, out, known=known, progress=progress)
    remember(store, wanted, plan)
    out.unlink(missing_ok=True)
    return plan


def build_cell(store: Store, registry: Registry, cell: Cell, progress: Progress) -> PlanDocument:
    """Build a cell from what is in the store, unless that has been done.

    Args:
        store: has the model's manifest, its graph and the packs of the component, and the plans in ``cell.known``.
        registry: has the backend.
        cell: what.
        progress: where to report.

    Raises:
        IncompatibleError: this machine has another builder, or another GPU, than the cell is for.
        NotFoundError: the model has no such component, or a blob is missing.
        BuildError: the builder refuses.
        MissingExtraError: the builder is not installed here.
        StorageError: the disk is full or refuses.
    """
    model = read_model(store, cell.model)
    component = model.config.components.get(cell.component)
    if component is None:
        raise NotFoundError(f"the model {cell.model.digest} has no component {cell.component!r}")
    backend = registry.backend(cell.target.backend)
    _check_builder(backend, cell.target)
    wanted = wanted_plan(cell.component, component, backend, cell.target, cell.profiles)
    if (there := recall(store, wanted)) is not None:
        return there
    known = [read_plan(store, each) for each in cell.known]
    with store.lease(), scratch_folder(store) as scratch:
        graph = _loaded(store, model, cell.component, scratch / "weights")
        return make_plan(
            store, backend, graph, wanted, component.graph, known=known, scratch=scratch, progress=progress
        )


@contextmanager
def scratch_folder(store: Store) -> Iterator[Path]:
    """A folder in the store, where plans of gigabytes have room; cleaned up as far as Windows lets mapped files go."""
    store.layout.create()
    with storage_errors("make a folder for the build in"):
        folder = tempfile.TemporaryDirectory(dir=store.layout.tmp, prefix="build-", ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)


def _check_builder(backend: Backend, wanted: Target) -> None:
    """Raise unless the builder that is here would complete the target in the same way."""
    found = backend.target(TargetSpec.parse(wanted.name))
    if found == wanted:
        return
    names = {"version": backend.name, "sku": "GPU", "os": "system", "arch": "processor"}
    differing = [
        f"{word} {getattr(found, field) or 'of any kind'} instead of {getattr(wanted, field) or 'any'}"
        for field, word in names.items()
        if getattr(found, field) != getattr(wanted, field)
    ]
    raise IncompatibleError(
        f"this node was chosen for {wanted.name} and has {', '.join(differing) or 'another builder'}",
        hint="its labels are out of date: start it again with what 'wszoo ray-labels' prints there",
    )


def _loaded(store: Store, model: ModelDocument, name: str, path: Path) -> Graph:
    """A component with its weights decoded once: builders and the splice search read them again and again."""
    component = model.config.components[name]
    packed = PackReader(store.blobs, model.config).component(name)
    if weight_bytes(component) > IN_MEMORY:
        spool = Spool(path)
        tensors = tuple(spool.add(each.name, each.dtype, each.shape, each.load()) for each in packed)
    else:
        tensors = tuple(_held(each) for each in packed)
    return Graph(read_graph(store, component.graph, name), tensors, component.inputs, component.outputs)


def _held(tensor: Tensor) -> Tensor:
    data = tensor.load()
    return Tensor(tensor.name, tensor.dtype, tensor.shape, lambda: data)
