"""What a backend is: something that builds plans and runs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wszoo.backends.dlpack import Producer
    from wszoo.gpu.machine import Gpu, Runtime
    from wszoo.names import TargetSpec
    from wszoo.plans.source import PlanSource
    from wszoo.progress import Progress
    from wszoo.schema.model import Value
    from wszoo.schema.plan import Kind, PlanConfig, Profile, Target
    from wszoo.schema.refit import RefitMap
    from wszoo.weights.graph import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildJob:
    """One plan to build.

    Attributes:
        component: the network's name, for messages.
        graph: the network.
        target: from the backend's own :meth:`Backend.target`.
        profiles: optimization profiles; empty when every shape is fixed.
        progress: where to report.
        cache: an existing folder where a builder may keep what speeds up later builds; None keeps nothing.
    """

    component: str
    graph: Graph
    target: Target
    profiles: tuple[Profile, ...]
    progress: Progress
    cache: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stripped:
    """What a backend gives back when the plan it wrote has no weights.

    Attributes:
        refit: how to give it its weights.
        engine_bytes: size of the same plan with its weights.
    """

    refit: RefitMap
    engine_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """A plan put together and verified, ready to load.

    Attributes:
        config: the plan's own facts.
        device: ``cuda`` or ``cpu``.
        engine: the full plan's file; None for portable plans, for native ones, and when none is to be kept on disk.
        graph: the network with its weights from the store: a portable plan runs it, a native one is refitted with it.
        cache: a folder that the backend may keep things in that speed up the next load.
        source: where to read the plan from when there is no file of it; None for portable plans.
        refit: how to give the plan its weights; None for plans that have them.
        keep: a native plan may be kept with its weights in ``cache``.
        cuda_graphs: capture what runs on a GPU, and launch it as one.
    """

    config: PlanConfig
    device: str
    engine: Path | None
    graph: Graph
    cache: Path
    source: PlanSource | None = None
    refit: RefitMap | None = None
    keep: bool = True
    cuda_graphs: bool = False


class Engine(Protocol):
    """A loaded plan."""

    @property
    def inputs(self) -> Sequence[Value]:
        """What it takes."""
        ...

    @property
    def outputs(self) -> Sequence[Value]:
        """What it gives."""
        ...

    @property
    def raw(self) -> Any:  # noqa: ANN401 - whichever class the backend has
        """The backend's own object: an ``ICudaEngine`` or an ``InferenceSession``."""
        ...

    def __call__(self, **arrays: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401 - see Args
        """Run once.

        Args:
            **arrays: for each input a NumPy array, or any that speaks DLPack (on the GPU where the backend runs there).

        Raises:
            UsageError: an input is missing, unknown, or of another element type.
            IncompatibleError: a shape is outside every profile.
        """
        ...


@runtime_checkable
class RunsOnGpu(Protocol):
    """A loaded plan that can leave its outputs on the GPU."""

    def on_gpu(self, **arrays: Any) -> Mapping[str, Producer]:  # noqa: ANN401 - as for calls
        """Start a run; gives, for each output, an array on the GPU that speaks DLPack. Errors as for calls."""
        ...


class Backend(Protocol):
    """Builds and runs plans for one kind of runtime.

    Attributes:
        name: as in plans' targets: ``tensorrt_rtx``.
        prefix: as users type it in targets: ``rtx``.
        kind: how the plans it builds are stripped, unless :meth:`build` decides otherwise.
        needs_profiles: it cannot build for dynamic inputs without optimization profiles.
    """

    name: str
    prefix: str
    kind: Kind
    needs_profiles: bool

    def runtime(self) -> Runtime | None:
        """What is installed, without importing it; None when it is not."""
        ...

    def target(self, spec: TargetSpec) -> Target:
        """Complete what the user asked for with the builder's version.

        Raises:
            UsageError: this backend cannot build for it.
            MissingExtraError: the builder is not installed.
        """
        ...

    def build(self, job: BuildJob, out: Path) -> Stripped | None:
        """Write the plan to ``out`` (nothing, for portable plans), after checking that it is a real one.

        Returns:
            None when it is whole; how to refit it when it was written without its weights.

        Raises:
            BuildError: the parser or the builder refused; the message names the node and the reason.
            UsageError: profiles and dynamic inputs do not fit.
            IncompatibleError: an input or output has a type that cannot be given as an array.
            MissingExtraError: the builder is not installed.
            StorageError: the file cannot be written.
        """
        ...

    def load(self, assembled: Assembled) -> Engine:
        """Load a verified plan.

        Raises:
            MissingExtraError: the runtime is not installed.
            IncompatibleError: the runtime or GPU refuses the plan.
            MalformedError: the graph and its tensors do not belong together, or the file is no plan.
        """
        ...


@runtime_checkable
class BuildsOnGpu(Protocol):
    """A backend some of whose plans are built only beside a GPU that they are for."""

    def needs_gpu(self, spec: TargetSpec) -> bool:
        """True when a target is built only there."""
        ...

    def targets_for(self, gpu: Gpu) -> tuple[TargetSpec, ...]:
        """What to build on a GPU for exactly its product, and only there; empty when nothing is installed or fits."""
        ...


@runtime_checkable
class RefitsPlans(Protocol):
    """A backend whose native plans can be written out with their weights, beside a GPU that they are for."""

    def refitted(self, assembled: Assembled) -> Path:
        """The file of a native plan with its weights, which stays the backend's.

        Raises:
            MissingExtraError: the runtime is not installed.
            IncompatibleError: there is no GPU of its target, or the runtime refuses.
            StorageError: the disk is full or refuses.
        """
        ...
