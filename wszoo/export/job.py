"""What is exported, and how: the nouns that the formats share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wszoo.assemble import assemble, read_graph
from wszoo.backends.protocol import RefitsPlans
from wszoo.digest import Digest
from wszoo.errors import IncompatibleError, MalformedError, UsageError
from wszoo.plugins import registry
from wszoo.schema.plan import Kind
from wszoo.store.documents import read_asset
from wszoo.weights.apart import Graph
from wszoo.weights.packs import PackReader
from wszoo.weights.tensor import dtype_of

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.backends.protocol import Assembled
    from wszoo.export.folder import ExportFolder
    from wszoo.names import Ref
    from wszoo.progress import Progress
    from wszoo.schema.model import Component, TensorInfo
    from wszoo.store.documents import ModelDocument, PlanDocument
    from wszoo.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a user may ask of a format.

    Attributes:
        inline: ``onnx``: weights in the ONNX file itself, which protobuf limits to 2 GiB.
        ep: ``ort-epcontext``: ``tensorrt`` or ``nv-tensorrt-rtx``; empty for the one that runs the plan's backend.
        max_batch: ``triton``: let it batch requests up to this size; 0 leaves batching off.
    """

    inline: bool = False
    ep: str = ""
    max_batch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What is exported.

    Attributes:
        ref: pinned.
        model: its manifest and config.
        components: those wanted, in the model's order.
        plans: of these components.
    """

    ref: Ref
    model: ModelDocument
    components: tuple[str, ...]
    plans: tuple[PlanDocument, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One export.

    Attributes:
        store: holds everything.
        ref: pinned.
        model: its manifest and config.
        components: those to export.
        plans: those to export, of these components; a format that writes graphs alone has none.
        options: what the user asked of the format.
        progress: where to report.
        notes: what formats want the user to know.
    """

    store: Store
    ref: Ref
    model: ModelDocument
    components: tuple[str, ...]
    plans: tuple[PlanDocument, ...]
    options: Options
    progress: Progress
    notes: dict[str, None] = field(default_factory=dict)

    def component(self, name: str) -> Component:
        """A component's record in the model's config."""
        return self.model.config.components[name]

    def graph(self, name: str) -> Graph:
        """A component's graph and tensors; each tensor is hashed when it is loaded.

        Raises:
            NotFoundError: a blob is not in the store.
            IntegrityError: one is damaged.
        """
        part = self.component(name)
        proto = read_graph(self.store, part.graph, name)
        tensors = PackReader(self.store.blobs, self.model.config, verify=True).component(name)
        return Graph(proto, tensors, part.inputs, part.outputs)

    def plans_of(self, component: str) -> tuple[PlanDocument, ...]:
        """The plans of one component."""
        return tuple(plan for plan in self.plans if plan.config.component == component)

    def engine_plans(self) -> tuple[PlanDocument, ...]:
        """The plans that have an engine.

        Raises:
            IncompatibleError: all of them are portable.
        """
        found = tuple(plan for plan in self.plans if not is_portable(plan))
        if not found:
            raise IncompatibleError(
                f"only portable plans of {self.ref.tagged} were chosen, and those have no engine",
                hint="choose others with --target or --gpu, or write what portable plans run with --format onnx",
            )
        return found

    def engine(self, plan: PlanDocument) -> Path:
        """The full plan's file, assembled and verified.

        Raises:
            IncompatibleError: the plan has none, or it is a native one and this machine has no GPU of its target.
            MissingExtraError: a native plan's runtime is not installed.
            IntegrityError: bytes are not what their digest says.
            StorageError: the disk is full or refuses.
        """
        assembled = assemble(self.store, self.model, plan, "cuda", self.progress)
        if plan.config.kind == Kind.NATIVE:
            return self._refitted(plan, assembled)
        if assembled.engine is None:
            raise IncompatibleError(f"the plan {plan_name(plan)} is portable: there is no engine to export")
        return assembled.engine

    def _refitted(self, plan: PlanDocument, assembled: Assembled) -> Path:
        backend = registry().backend(plan.config.target.backend)
        elsewhere = "--format ort-epcontext hands it over stripped, with the weights beside it, and needs no GPU"
        if not isinstance(backend, RefitsPlans):
            raise IncompatibleError(f"{backend.name} does not write {plan_name(plan)} with its weights", hint=elsewhere)
        try:
            return backend.refitted(assembled)
        except IncompatibleError as error:
            raise IncompatibleError(
                f"{plan_name(plan)} is a native plan, and only a GPU of its target can give it its weights back: "
                f"{error.message}",
                hint="; ".join(filter(None, (error.hint, elsewhere))),
            ) from error

    def copy_engine(self, folder: ExportFolder, plan: PlanDocument, name: str) -> None:
        """Write the full plan as a file. Errors as for :meth:`engine`."""
        source, config = self.engine(plan), plan.config
        expected = Digest.of_file(source) if config.kind == Kind.NATIVE else config.engine_digest
        with self.progress.stage(f"write {plan_name(plan)}", config.engine_bytes) as advance:
            folder.copy(source, name, expected, advance)

    def write_assets(self, folder: ExportFolder, place: str) -> bool:
        """Write the files that travel with the model; False when there are none.

        Raises:
            IntegrityError: one is damaged, or has a name that no file can have.
        """
        for name in self.model.config.assets:
            folder.write(f"{place}/{name}", read_asset(self.store, self.model, name))
        return bool(self.model.config.assets)

    def note(self, text: str) -> None:
        """Tell the user something about this export, once."""
        self.notes[text] = None


def ambiguous(ref: Ref, component: str, target: str, count: int) -> UsageError:
    """What is said when a name stands for several plans."""
    return UsageError(
        f"{ref.tagged} has {count} plans of {component} for {target}, with other profiles or versions",
        hint="let --gpu choose one",
    )


def is_portable(plan: PlanDocument) -> bool:
    """True for a plan that is the graph and the weights."""
    return plan.config.kind == Kind.PORTABLE


def plan_name(plan: PlanDocument) -> str:
    """``unet rtx-sm89``, for messages."""
    return f"{plan.config.component} {plan.config.target.name}"


def stem(plan: PlanDocument) -> str:
    """``unet.rtx-sm89``, for file names; checked where a file is opened."""
    return f"{plan.config.component}.{plan.config.target.name}"


def weight_bytes(tensors: tuple[TensorInfo, ...]) -> int:
    """Raw bytes of a component's distinct tensors.

    Raises:
        MalformedError: an element type that does not exist.
    """
    return sum({info.digest: dtype_of(info.dtype).nbytes(info.shape) for info in tensors}.values())


def required_component(job: Job, name: str) -> Component:
    """The component that a plan is for.

    Raises:
        MalformedError: the model has none of that name.
    """
    if name not in job.model.config.components:
        raise MalformedError(f"a plan is for {name!r}, which the model does not have")
    return job.component(name)
