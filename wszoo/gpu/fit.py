"""Whether a GPU can run a target, and whether an installed runtime can load it: NVIDIA's compatibility rules.

Sources: TensorRT 11 "Engine Compatibility" and "Support Matrix" (a serialized engine needs the TensorRT it was built
with, to the build number, and the same platform; a version-compatible one needs the lean runtime of the version it was
built with, from inside of the plan or installed, see ADR 26), TensorRT-RTX 1.7 "Engine Compatibility" (the same
release; any operating system).
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING

from wszoo.gpu.machine import Gpu, Runtime, product_key
from wszoo.schema.plan import HardwareCompatibility, Target

if TYPE_CHECKING:
    from collections.abc import Iterable

RTX = "tensorrt_rtx"
TENSORRT = "tensorrt"
LEAN = "tensorrt_lean"
ONNXRUNTIME = "onnxruntime"

RTX_COMPUTE_CAPABILITIES = frozenset({"7.5", "8.0", "8.6", "8.9", "12.0", "12.1"})  # what TensorRT-RTX 1.7 builds for

_EXTRAS = {RTX: "rtx", TENSORRT: "tensorrt", LEAN: "lean", ONNXRUNTIME: "ort"}
_CLASSIC = frozenset({TENSORRT, LEAN})
_AMPERE = (8, 0)
_NUMBERS = re.compile(r"\d+(?:\.\d+)*", re.ASCII)
_JETSON = frozenset({"8.7", "10.1", "11.0"})  # Orin and Thor: TensorRT has no hardware compatibility on JetPack, DRIVE


class Tier(IntEnum):
    """How well a plan fits; smaller is better."""

    EXACT_SKU = 0
    COMPUTE_CAPABILITY = 1
    SAME_COMPUTE_CAPABILITY = 2
    AMPERE_PLUS = 3
    VERSION_COMPATIBLE = 4
    RTX = 5  # TensorRT-RTX compiles its kernels on the client; backends from plugins stand here too
    PORTABLE_CUDA = 6
    PORTABLE_CPU = 7


def fit_gpu(target: Target, gpu: Gpu) -> Tier | str:
    """The tier that a GPU reaches, whatever the versions, or the reason why it cannot run the target."""
    listed = gpu.compute_capability in target.compute_capabilities
    open_to_all = not target.compute_capabilities
    same_product = bool(target.sku) and product_key(target.sku) == product_key(gpu.name)
    if same_product and (listed or open_to_all):
        return Tier.EXACT_SKU
    if target.backend in _CLASSIC and target.hardware_compatibility == HardwareCompatibility.AMPERE_PLUS:
        return _fit_ampere_plus(gpu)
    if not listed and (not open_to_all or target.backend in {*_CLASSIC, RTX}):
        return f"built for {_built_for(target)}, this GPU has {gpu.compute_capability}"
    if target.backend in _CLASSIC and target.hardware_compatibility == HardwareCompatibility.SAME_COMPUTE_CAPABILITY:
        return Tier.SAME_COMPUTE_CAPABILITY
    if target.sku:
        return f"built for {target.sku} alone, this GPU is {gpu.name}"
    return Tier.COMPUTE_CAPABILITY if target.backend in _CLASSIC else Tier.RTX


def fit_runtime(target: Target, runtimes: Iterable[Runtime]) -> Runtime | str:
    """The runtime to load a target with, or the reason why none can.

    The one with the same version comes first, then the newest; the full TensorRT goes before the lean one.
    """
    names = {target.backend, LEAN} if target.backend == TENSORRT and target.version_compatible else {target.backend}
    installed = [runtime for runtime in runtimes if runtime.backend in names]
    if not installed:
        return f"{target.backend} is not installed{_how_to_install(target.backend)}"
    able = [runtime for runtime in installed if _loads(target, runtime.version)]
    if not able:
        versions = ", ".join(sorted({f"{runtime.backend} {runtime.version}" for runtime in installed}))
        return f"needs {needed(target)}, {versions} is installed"
    return max(able, key=lambda runtime: _preference(target, runtime))


def needed(target: Target) -> str:
    """The runtime that a target needs, in words: ``onnxruntime 1.32.0 or later``."""
    if target.lean_excluded is True:
        return f"{LEAN} {target.version}, or {target.backend} of that version"
    later = " or later" if target.backend == ONNXRUNTIME else ""
    return f"{target.backend} {target.version}{later}" if target.version else target.backend


def carries_code(target: Target) -> str:
    """Why wszoo never loads a target that brings code of its own; empty for those that bring none.

    A version-compatible plan holds the lean runtime of its version unless that was left out. No runtime loads such a
    plan, not even the very one that built it, before it is told that host code may run out of plans, which wszoo never
    does: the signature says who published a plan, and not what its libraries do.
    """
    if target.backend in _CLASSIC and target.version_compatible and target.lean_excluded is not True:
        return (
            "it carries its lean runtime as host code, which wszoo never lets run; built with EXCLUDE_LEAN_RUNTIME it "
            f"would run on an installed {LEAN} {target.version}"
        )
    return ""


def fit_platform(target: Target, os: str, arch: str) -> str:
    """Why this operating system and processor cannot run the target; empty when they can.

    Args:
        target: the target; TensorRT-RTX plans run on every operating system.
        os: the machine's, ``linux``.
        arch: the machine's, ``x86_64``.
    """
    if target.os and target.os != os and target.backend != RTX:
        return f"built for {target.os}, this machine runs {os}"
    if target.arch and target.arch != arch:
        return f"built for {target.arch}, this machine is {arch}"
    return ""


def version_key(version: str) -> tuple[int, ...]:
    """Orders versions: ``10.13.0.35`` -> (10, 13, 0, 35); a suffix is left out, and any text has a place."""
    leading = _NUMBERS.match(version)
    return tuple(int(number[:9]) for number in leading[0].split(".")) if leading else ()


def _fit_ampere_plus(gpu: Gpu) -> Tier | str:
    if gpu.compute_capability in _JETSON:
        return f"built for Ampere and later but not for Jetson, this GPU has {gpu.compute_capability}"
    if version_key(gpu.compute_capability) < _AMPERE:
        return f"built for compute capability 8.0 and later, this GPU has {gpu.compute_capability}"
    return Tier.AMPERE_PLUS


def _built_for(target: Target) -> str:
    if not target.compute_capabilities:
        return target.sku or "a compute capability that it does not name"
    return f"compute capability {', '.join(target.compute_capabilities)}"


def _preference(target: Target, runtime: Runtime) -> tuple[bool, bool, tuple[int, ...], str]:
    return (
        runtime.version == target.version,
        runtime.backend == target.backend,
        version_key(runtime.version),
        runtime.version,
    )


def _loads(target: Target, installed: str) -> bool:
    if target.version in {"", installed}:
        return True
    # ONNX Runtime loads every older model. TensorRT's plans need their own version; for version-compatible ones that is
    # the lean runtime's: "built with the same version of TensorRT as the loaded runtime library" (loadRuntime).
    return target.backend == ONNXRUNTIME and version_key(installed) >= version_key(target.version)


def _how_to_install(backend: str) -> str:
    return f': pip install "wszoo[{_EXTRAS[backend]}]"' if backend in _EXTRAS else ""
