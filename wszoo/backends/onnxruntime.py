"""The portable backend: the graph and the weights in ONNX Runtime. It needs no plan, and no GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.backends.installed import installed_version, load_module
from wszoo.errors import BuildError, IncompatibleError, UsageError
from wszoo.gpu.machine import Runtime
from wszoo.hookspecs import hookimpl
from wszoo.schema.plan import Kind, Target

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wszoo.backends.ort_session import OrtEngine
    from wszoo.backends.protocol import Assembled, Backend, BuildJob
    from wszoo.names import TargetSpec
    from wszoo.weights.graph import Graph

_GPU_PACKAGE = "onnxruntime-gpu"
_PACKAGES = (_GPU_PACKAGE, "onnxruntime")


class OnnxRuntimeBackend:
    """Runs a model wherever ONNX Runtime does; the reference that every other plan is compared with.

    A portable plan accepts every shape that the graph accepts: profiles steer TensorRT's kernels, and ONNX Runtime has
    no use for them.
    """

    name = "onnxruntime"
    prefix = "portable"
    kind = Kind.PORTABLE
    needs_profiles = False

    def runtime(self) -> Runtime | None:
        """What is installed; ``cuda`` is among its devices when the GPU package is."""
        version = installed_version(*_PACKAGES)
        if not version:
            return None
        devices = ("cuda", "cpu") if installed_version(_GPU_PACKAGE) else ("cpu",)
        return Runtime(backend=self.name, version=version, devices=devices)

    def target(self, spec: TargetSpec) -> Target:
        """The one target there is: any machine, any version.

        Raises:
            UsageError: a compute capability or ``+`` was given.
        """
        spec.refuse_options()
        if spec.compute_capabilities or spec.plus:
            raise UsageError(
                f"a portable plan is for every machine, and {str(spec)!r} names some", hint="write 'portable'"
            )
        return Target(name=str(spec), backend=self.name)

    def build(self, job: BuildJob, out: Path) -> None:  # noqa: ARG002 - a portable plan has no file
        """Check that ONNX Runtime takes the graph with its weights. Nothing is run and nothing is written.

        Raises:
            BuildError: it refuses; the message has its reason, which names the node.
            MalformedError: the graph and its tensors do not belong together.
            MissingExtraError: ONNX Runtime is not installed.
        """
        ort = _ort("building a portable plan")
        from wszoo.backends.ort_session import check_graph

        with job.progress.stage(f"check {job.component} in ONNX Runtime"):
            check_graph(ort, job.component, job.graph)

    def load(self, assembled: Assembled) -> OrtEngine:
        """Load the graph with its weights mapped from the store; no weight is written to disk.

        Raises:
            MissingExtraError: ONNX Runtime is not installed.
            IncompatibleError: this version of it refuses the graph.
            MalformedError: the graph and its tensors do not belong together.
        """
        if assembled.device not in {"cuda", "cpu"}:
            raise IncompatibleError(f"ONNX Runtime runs on 'cuda' or 'cpu' here, not on {assembled.device!r}")
        ort = _ort("running a portable plan")
        from wszoo.backends.ort_session import OrtEngine

        return OrtEngine(ort, assembled.config.component, assembled.graph, assembled.device)


def _ort(purpose: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - a module without type information
    return load_module("onnxruntime", extra="ort", purpose=purpose)


def reference(graph: Graph, name: str = "model", *, frugal: bool = False) -> OrtEngine:
    """A graph on the CPU, straight from where its weights lie: what exports are compared with their originals by.

    Args:
        graph: the network; its tensors' memory is used for as long as the engine lives.
        name: for messages.
        frugal: for large networks in fp16: compute in as little memory as there is a way to, and slower. Otherwise ONNX
            Runtime, which computes fp16 in fp32 on a CPU, makes an fp32 copy of every weight.

    Raises:
        BuildError: ONNX Runtime refuses the graph.
        MissingExtraError: ONNX Runtime is not installed.
    """
    ort = _ort("comparing an export with its original")
    from wszoo.backends.ort_session import OrtEngine

    try:
        return OrtEngine(ort, name, graph, "cpu", frugal=frugal)
    except IncompatibleError as error:
        raise BuildError(error.message, hint="change the export so that every node is standard ONNX") from error


@hookimpl
def wszoo_backends() -> Sequence[Backend]:
    """The portable backend."""
    return [OnnxRuntimeBackend()]
