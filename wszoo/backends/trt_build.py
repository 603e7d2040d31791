"""From a parsed network to a checked plan in a file: the same for every module of the TensorRT family."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from wszoo.backends.inputs import check_values
from wszoo.backends.interrupts import deferred_interrupt
from wszoo.backends.trt_log import logger
from wszoo.backends.trt_parse import parse
from wszoo.backends.trt_plan import read_header
from wszoo.backends.trt_profiles import add_profiles
from wszoo.backends.trt_progress import TOTAL, UNIT, monitor
from wszoo.errors import BuildError, MalformedError
from wszoo.store.files import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wszoo.backends.protocol import BuildJob

_CHUNK = 16 << 20
# A full plan holds its weights, but builders fold, quantize (fp32 to fp4 leaves an eighth) and drop unused ones. The
# largest stripped plan that is known has 4.5 % of its full size (ResNet-50, 2.3 of 51 MB).
_LEAST_SHARE = 0.1
_SMALL = 1 << 20  # below this, a plan is mostly kernel descriptions, and its size says nothing


def build_plan(
    trt: Any,  # noqa: ANN401 - the module has no type information
    job: BuildJob,
    configure: Callable[[Any], None],
    tag: bytes,
    out: Path,
) -> None:
    """Build a full plan and write it.

    Args:
        trt: ``tensorrt_rtx`` or a sibling.
        job: what to build.
        configure: sets what only this product has on an ``IBuilderConfig``.
        tag: what this product's plans begin with.
        out: the plan's file; it does not exist after an error.

    Raises:
        UsageError: profiles and dynamic inputs do not fit.
        BuildError: the parser or builder refuses, or what comes out is no full plan.
        IncompatibleError: an input or output has 4-bit elements.
        StorageError: the file cannot be written.
    """
    plan = serialized_plan(trt, job, configure)
    with memoryview(plan) as data:
        check_full(job, data, tag)
        write_plan(job, data, out)


def serialized_plan(trt: Any, job: BuildJob, configure: Callable[[Any], None]) -> Any:  # noqa: ANN401
    """Build a plan in memory; what came out is not looked at.

    Args:
        trt: ``tensorrt_rtx`` or a sibling.
        job: what to build.
        configure: sets what is special on an ``IBuilderConfig``.

    Returns:
        An ``IHostMemory``.

    Raises:
        UsageError: profiles and dynamic inputs do not fit.
        BuildError: the parser or builder refuses.
        IncompatibleError: an input or output has 4-bit elements.
    """
    check_values(job.component, job.graph)
    with deferred_interrupt() as interrupted:
        return _build(trt, job, configure, interrupted)


def _build(trt: Any, job: BuildJob, configure: Callable[[Any], None], interrupted: list[int]) -> Any:  # noqa: ANN401
    log, theirs = logger(trt)
    builder = trt.Builder(theirs)
    parsed = parse(trt, builder, job.graph, job.component, log)
    config = builder.create_builder_config()
    configure(config)
    add_profiles(builder, parsed.network, config, job.profiles)
    mark = log.mark()
    with job.progress.stage(f"build {job.component} for {job.target.name}", TOTAL, UNIT) as advance:
        watch = monitor(trt, advance, interrupted)
        config.progress_monitor = watch
        plan = builder.build_serialized_network(parsed.network, config)
    if watch.error is not None:
        raise watch.error
    if plan is None:
        reason = log.reason(mark)
        raise BuildError(f"the builder refuses {job.component!r} for {job.target.name}: {reason}", hint=_hint(reason))
    return plan


def check_full(job: BuildJob, plan: memoryview, tag: bytes) -> None:
    """Check that what the builder made is a plan with weights.

    Raises:
        BuildError: it is not.
    """
    try:
        read_header(plan, tag, f"what the builder made of {job.component!r}")
    except MalformedError as error:
        raise BuildError(error.message) from error
    weights = job.graph.weight_bytes
    if weights > _SMALL and plan.nbytes < weights * _LEAST_SHARE:
        raise BuildError(
            f"the plan of {job.component!r} has {plan.nbytes} bytes and cannot hold its {weights} bytes of weights",
            hint="remove initializers that no node uses from the graph",
        )


def write_plan(job: BuildJob, plan: memoryview, out: Path) -> None:
    """Write a plan; ``out`` does not exist after an error.

    Raises:
        StorageError: the file system refuses.
    """
    try:
        with (
            storage_errors(f"write a plan of {plan.nbytes} bytes to {out}"),
            out.open("wb") as file,
            job.progress.stage(f"write {job.component}", plan.nbytes) as advance,
        ):
            for start in range(0, plan.nbytes, _CHUNK):
                advance(file.write(plan[start : start + _CHUNK]))
    except BaseException:
        with suppress(OSError):
            out.unlink(missing_ok=True)
        raise


def _hint(reason: str) -> str:
    if "graph_jit" in reason and "CUDA_SUCCESS" in reason:
        return (
            "stripping takes a GPU that this product runs on: leave '.strip' out, wszoo cuts the weights out by itself"
        )
    if "SM75" in reason:
        return "Turing has kernels for few element types: export in fp16, or leave sm75 out"
    return "see the builder's log with --debug; the target 'portable' runs any graph that ONNX Runtime takes"
