"""Building a plan without its weights, and trying it on the building GPU before anyone else gets it.

The builder's part up to its refusal to strip without a GPU has run for real; the rest only with a fake.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from wszoo.backends.cuda_memory import Cuda
from wszoo.backends.protocol import Stripped
from wszoo.backends.trt_build import check_full, serialized_plan, write_plan
from wszoo.backends.trt_refit import wanted_weights
from wszoo.backends.trt_smoke import Trial
from wszoo.errors import BuildError, IncompatibleError
from wszoo.gpu.machine import product_key
from wszoo.plans.native_map import make_weights
from wszoo.schema.refit import Mode, RefitMap

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.backends.protocol import BuildJob
    from wszoo.backends.trt_product import Product

_LOG = logging.getLogger(__name__)
# Builders fold, pad and quantize weights, so what stripping takes away is not exactly their size; but a plan that kept
# half of them is not stripped (STRIP_PLAN | REFIT_INDIVIDUAL with nothing marked keeps all of them without a word).
_LEAST_CUT = 0.5
_SMALL = 1 << 20  # below this, a plan is mostly kernels, and its size says nothing


def build_native(trt: Any, job: BuildJob, product: Product, mode: Mode, out: Path) -> Stripped | None:  # noqa: ANN401
    """Build a plan with and without its weights, and prove on this GPU that refitting makes one out of the other.

    Args:
        trt: ``tensorrt`` or ``tensorrt_rtx``.
        job: what to build.
        product: facts about it.
        mode: whether other weights may be put in later.
        out: the plan's file.

    Returns:
        How to refit what was written; None when the engine wants weights that TensorRT's parser made up, which nobody
        could supply: then the plan was written whole. Not for :attr:`Mode.ANY`: a whole plan never takes other weights.

    Raises:
        UsageError: profiles and dynamic inputs do not fit.
        BuildError: the builder refuses, the plan kept its weights, it computes something else when refitted, or it was
            to take other weights and nobody could supply all of them.
        IncompatibleError: the plan does not run on this GPU.
        MissingExtraError: ONNX Runtime or ``cuda-bindings`` is missing.
        StorageError: the file cannot be written.
    """
    _check_gpu(job, product)
    whole = serialized_plan(trt, job, product.configure)
    stripped = serialized_plan(trt, job, lambda config: _strip(trt, product, config, mode))
    with memoryview(whole) as full, memoryview(stripped) as small:
        check_full(job, full, product.tag)
        _check_small(job, full.nbytes, small.nbytes)
        refit_map = _map(trt, job, product, bytes(small), mode)
        if refit_map is None:
            write_plan(job, full, out)
            return None
        Trial(trt, job, product).compare(bytes(full), bytes(small), refit_map)
        write_plan(job, small, out)
        return Stripped(refit=refit_map, engine_bytes=full.nbytes)


def _check_gpu(job: BuildJob, product: Product) -> None:
    """NVML numbers GPUs by their slots and CUDA the fastest first: the target's must be the one that kernels run on."""
    if not job.target.sku:
        return
    cuda = Cuda.open(extra=product.extra, purpose=f"building {job.target.name}")
    if product_key(cuda.product()) != product_key(job.target.sku):
        raise BuildError(
            f"{job.target.name} is for {job.target.sku}, and CUDA's first GPU is {cuda.product()}",
            hint="set CUDA_DEVICE_ORDER=PCI_BUS_ID, or CUDA_VISIBLE_DEVICES to the one that is meant",
        )


def _strip(trt: Any, product: Product, config: Any, mode: Mode) -> None:  # noqa: ANN401
    product.configure(config)
    flags = trt.BuilderFlag
    config.set_flag(flags.STRIP_PLAN)
    # STRIP_PLAN alone implies REFIT_IDENTICAL; both are set because a reader should see it, and excludes REFIT.
    config.set_flag(flags.REFIT_IDENTICAL if mode is Mode.IDENTICAL else flags.REFIT)


def _check_small(job: BuildJob, full: int, stripped: int) -> None:
    weights = job.graph.weight_bytes
    if weights > _SMALL and full - stripped < weights * _LEAST_CUT:
        raise BuildError(
            f"the builder stripped {max(full - stripped, 0)} of {weights} bytes of weights from the plan of "
            f"{job.component!r}, which still has {stripped} bytes",
            hint="build it whole, without '.strip' or with another backend: wszoo cuts the weights out by itself",
        )


def _map(trt: Any, job: BuildJob, product: Product, plan: bytes, mode: Mode) -> RefitMap | None:  # noqa: ANN401
    engine = Trial(trt, job, product).engine(plan)
    try:
        weights = make_weights(job.graph, wanted_weights(trt, engine))
    except (BuildError, IncompatibleError) as error:
        if mode is Mode.ANY:
            raise
        _LOG.warning("the plan of %s is published whole: %s", job.component, error.message)
        return None
    return RefitMap(mode=mode.value, plan_bytes=len(plan), weights=weights)
