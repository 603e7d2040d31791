"""Whether a runtime would take a plan, asked before native code sees more than its header; refusals in plain words."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from wszoo.backends.trt_plan import HEADER, read_header, release_of
from wszoo.errors import IncompatibleError, MalformedError
from wszoo.gpu.fit import carries_code, needed

if TYPE_CHECKING:
    from wszoo.backends.trt_log import Log
    from wszoo.plans.source import PlanSource
    from wszoo.schema.plan import Target

_LOG = logging.getLogger(__name__)
_OTHER_PLAN = "'wszoo resolve REF --explain' lists the other plans, 'wszoo pull REF --avoid PLAN' takes the next best"

# TensorRT's EngineInvalidityDiagnostics: what it means, and what to do.
_DIAGNOSTICS = {
    "VERSION_MISMATCH": ("another release wrote it", "install the release that wrote it, or pull again"),
    "UNSUPPORTED_CC": ("it is for another compute capability", "pull it again with --gpu auto on this machine"),
    "OLD_CUDA_DRIVER": ("the NVIDIA driver is too old for it", "install a newer NVIDIA driver"),
    "OLD_CUDA_RUNTIME": ("the CUDA runtime is too old for it", "upgrade the package nvidia-cuda-runtime"),
    "INSUFFICIENT_GPU_MEMORY": ("the GPU has too little free memory for it", "close what else uses the GPU"),
    "MALFORMED_ENGINE": ("it is damaged", "'wszoo verify' finds damaged files; pull it again"),
    "CUDA_ERROR": ("CUDA fails", "see 'nvidia-smi' and 'wszoo doctor'"),
}

# What TensorRT logs when it refuses a plan, and what to do about it.
_REASONS = (
    (
        r"engine.?host.?code|host code",
        "it carries compiled host code, which wszoo never lets run: build it without plugins",
    ),
    (r"plugin", "it needs a TensorRT plugin, which wszoo does not load from a plan: build it from standard operators"),
    (r"out of memory|OutOfMemory|MemoryAllocation|insufficient.*memory", "close what else uses the GPU"),
    (r"version tag|serializ\w+ version|different version", "install the release that wrote it, or pull it again"),
    (r"driver version is insufficient|old.*driver", "install a newer NVIDIA driver"),
    (r"compute capability|platform", "pull it again with --gpu auto on this machine"),
)


def check_header(source: PlanSource, target: Target, *, title: str, tag: bytes, installed: str) -> bytes:
    """Check what stands in a plan's header, and return the header.

    Args:
        source: the plan.
        target: what it was built for.
        title: the product's name.
        tag: what its plans begin with.
        installed: version of its runtime.

    Raises:
        MalformedError: it is no plan of this product.
        IncompatibleError: another release wrote it.
    """
    header = bytes(source.read(0, HEADER))
    written, have = read_header(header, tag, source.name).release, release_of(installed)
    if code := carries_code(target):
        raise IncompatibleError(f"{source.name} cannot be loaded: {code}", hint=_OTHER_PLAN)
    if written != have:
        raise IncompatibleError(
            f"{title} {written} wrote this plan, and {have} is installed",
            hint=f"it needs {needed(target)}; {_OTHER_PLAN}",
        )
    return header


def check_validity(trt: Any, runtime: Any, header: bytes, what: str, log: Log) -> None:  # noqa: ANN401 - untyped module
    """Ask the runtime about a plan's header, where it can be asked: from 10.13 on, not in the lean runtime.

    Args:
        trt: the module.
        runtime: its ``Runtime``.
        header: the plan's first bytes.
        what: subject and verb of the refusal: ``TensorRT-RTX 1.7.1 refuses the plan for rtx-sm89``.
        log: where the module logs.

    Raises:
        MalformedError: it says that the plan is damaged.
        IncompatibleError: it says that the plan cannot run here.
    """
    if not hasattr(runtime, "get_engine_validity"):
        return
    mark = log.mark()
    validity, diagnostics = runtime.get_engine_validity(header)
    if validity == trt.EngineValidity.SUBOPTIMAL:
        _LOG.warning(
            "the plan is not the best one for this GPU: %s", ", ".join(_names(trt, diagnostics)) or "no reason"
        )
    if validity != trt.EngineValidity.INVALID:
        return
    names = _names(trt, diagnostics)
    known = [_DIAGNOSTICS[name] for name in names if name in _DIAGNOSTICS]
    unknown = [name.lower().replace("_", " ") for name in names if name not in _DIAGNOSTICS]
    reason = ", ".join([meaning for meaning, _ in known] + unknown) or log.reason(mark)
    kind = MalformedError if "MALFORMED_ENGINE" in names else IncompatibleError
    raise kind(f"{what}: {reason}", hint="; ".join([*(advice for _, advice in known), _OTHER_PLAN]))


def refusal(what: str, reason: str) -> IncompatibleError:
    """The error for a plan that the runtime does not deserialize.

    Args:
        what: subject and verb, as for :func:`check_validity`.
        reason: TensorRT's own words.
    """
    found = next((advice for pattern, advice in _REASONS if re.search(pattern, reason, re.IGNORECASE)), "")
    return IncompatibleError(f"{what}: {reason}", hint="; ".join(filter(None, (found, _OTHER_PLAN))))


def _names(trt: Any, diagnostics: Any) -> list[str]:  # noqa: ANN401
    members = trt.EngineInvalidityDiagnostics.__members__.items()
    return [name for name, flag in members if int(diagnostics) & int(flag)]
