"""Running a freshly built plan on the building GPU: refitted, whole, and in ONNX Runtime must give the same.

Has run only with a fake of the runtime.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.backends.cuda_memory import Cuda
from wszoo.backends.onnxruntime import reference
from wszoo.backends.protocol import Assembled
from wszoo.backends.trt_load import Loader, load_engine
from wszoo.digest import Digest
from wszoo.errors import BuildError
from wszoo.plans.source import MemorySource
from wszoo.schema.plan import Kind, PlanConfig
from wszoo.weights.tensor import dtype_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from wszoo.backends.protocol import BuildJob
    from wszoo.backends.trt_product import Product
    from wszoo.schema.model import Value
    from wszoo.schema.refit import RefitMap

    Arrays = Mapping[str, NDArray[Any]]

_SEED = 20
# Greatest difference over the output's greatest number. TensorRT computes fp32 products with TF32's 10-bit mantissas
# unless told otherwise, hence as much for fp32 as for fp16; bf16 has 8 bits less.
_TOLERANCE = {"bfloat16": 1e-1}
_DEFAULT_TOLERANCE = 2e-2
_FLOOR = 1e-5


class Trial:
    """Loads a plan that was built a moment ago, the way a client would.

    Args:
        trt: the module that built it.
        job: what was built.
        product: facts about it.
    """

    def __init__(self, trt: Any, job: BuildJob, product: Product) -> None:  # noqa: ANN401 - untyped module
        self._trt = trt
        self._job = job
        self._product = product

    def engine(self, plan: bytes) -> Any:  # noqa: ANN401 - the class belongs to TensorRT
        """An ``ICudaEngine`` of a plan, without weights if it has none.

        Raises:
            IncompatibleError: there is no GPU, or the plan does not load on it.
        """
        cuda = Cuda.open(extra=self._product.extra, purpose=f"trying a plan for {self._job.target.name}")
        loader = Loader(self._trt, cuda, f"{self._product.title} refuses the plan that it built")
        return loader.engine(MemorySource(plan, "the plan just built"))

    def compare(self, full: bytes, stripped: bytes, refit_map: RefitMap) -> None:
        """Run the refitted plan, the whole one and ONNX Runtime on the same inputs, for every profile.

        Raises:
            BuildError: they differ by more than rounding, or the inputs make no difference to the outputs.
            IncompatibleError: a plan does not load or run.
            MissingExtraError: ONNX Runtime is not installed.
        """
        job = self._job
        with job.progress.stage(f"try {job.component} for {job.target.name}"), tempfile.TemporaryDirectory() as folder:
            refitted = self._load(stripped, Path(folder), refit_map)
            whole = self._load(full, Path(folder), None)
            original = reference(job.graph, job.component)
            for inputs in example_inputs(job):
                ours = refitted(**inputs)
                require_close(ours, whole(**inputs), f"the refitted and the whole plan of {job.component!r}")
                require_close(ours, original(**inputs), f"the refitted plan of {job.component!r} and ONNX Runtime")

    def _load(self, plan: bytes, folder: Path, refit_map: RefitMap | None) -> Any:  # noqa: ANN401
        job, digest = self._job, Digest.of(plan)
        config = PlanConfig(
            component=job.component,
            target=job.target,
            kind=(Kind.NATIVE if refit_map else Kind.SPLICE).value,
            profiles=job.profiles,
            engine_digest=digest,
            engine_bytes=len(plan),
            graph=Digest.of(job.graph.proto),
            weights=digest,  # nothing is kept, so nothing is looked up by it
        )
        assembled = Assembled(
            config=config,
            device="cuda",
            engine=None,
            graph=job.graph,
            cache=folder,
            source=MemorySource(plan, "the plan just built"),
            refit=refit_map,
            keep=False,
        )
        product = self._product
        return load_engine(self._trt, assembled, title=product.title, tag=product.tag, extra=product.extra)


def example_inputs(job: BuildJob) -> Iterator[dict[str, NDArray[Any]]]:
    """Random inputs of each profile's smallest and best shapes, or of the fixed shapes; the same in every run."""
    rng = np.random.default_rng(_SEED)
    for ranges in _shapes(job):
        yield {value.name: _random(rng, value, ranges.get(value.name)) for value in job.graph.inputs}


def _shapes(job: BuildJob) -> list[dict[str, tuple[int, ...]]]:
    if not job.profiles:
        return [{}]
    smallest = [{name: limits.min for name, limits in profile.inputs.items()} for profile in job.profiles]
    return smallest + [{name: limits.opt for name, limits in profile.inputs.items()} for profile in job.profiles]


def _random(rng: np.random.Generator, value: Value, shape: tuple[int, ...] | None) -> NDArray[Any]:
    dtype = dtype_of(value.dtype)
    wanted = shape if shape is not None else tuple(int(size) for size in value.shape)
    # Small whole numbers are valid as token numbers, positions and masks alike.
    return (rng.standard_normal(wanted) if dtype.is_float else rng.integers(0, 2, wanted)).astype(dtype.numpy)


def require_close(ours: Arrays, theirs: Arrays, what: str) -> None:
    """Raise when outputs differ by more than rounding.

    Args:
        ours: by output.
        theirs: the same outputs.
        what: the two, for the message.

    Raises:
        BuildError: with the output and by how much it differs.
    """
    for name, mine in ours.items():
        mine64, their64 = mine.astype(np.float64), theirs[name].astype(np.float64)
        if mine64.shape != their64.shape or not np.array_equal(np.isfinite(mine64), np.isfinite(their64)):
            raise BuildError(f"{what} differ in {name!r}: other shapes, or infinite in other places")
        finite = np.isfinite(mine64)
        worst = float(np.max(np.abs(mine64 - their64)[finite], initial=0.0))
        scale = float(np.max(np.abs(their64)[finite], initial=0.0))
        if worst > _FLOOR + _TOLERANCE.get(str(mine.dtype), _DEFAULT_TOLERANCE) * scale:
            raise BuildError(
                f"{what} differ in {name!r} by {worst:g}, where the greatest number is {scale:g}",
                hint="the weights did not reach the engine as they should: please report the model's graph",
            )
