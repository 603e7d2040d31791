"""Classic TensorRT, 10.x and 11.x: plans with compiled kernels, stripped by TensorRT itself and refitted on the client.

Targets, each built on a GPU that it is for:

    trt-sm89                       this machine's very product, whose kernels were measured
    trt-sm89.same-cc               every GPU of this compute capability
    trt-sm80+                      Ampere and later (slower, larger)
    trt-sm89.version-compatible    the lean runtime of this version, whatever TensorRT is there; goes with all of these
    trt-sm89.refit                 other weights of the same shapes may be put in later

TensorRT's builder is on no machine at hand, so nothing here has run but what it shares with TensorRT-RTX; the calls are
checked against the type stubs of 10.13 and the bindings of tensorrt_rtx 1.7.1 and tensorrt_lean 11.4.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

import msgspec

from wszoo.backends.trt_backend import TensorRTBackend
from wszoo.errors import BuildError, IncompatibleError, UsageError
from wszoo.gpu.machine import architecture
from wszoo.gpu.nvml import detect
from wszoo.hookspecs import hookimpl
from wszoo.names import TargetSpec, sm_name
from wszoo.schema.plan import HardwareCompatibility, Kind, Target
from wszoo.schema.refit import Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.backends.protocol import Backend
    from wszoo.gpu.machine import Gpu

SAME_CAPABILITY = "same-cc"
VERSION_COMPATIBLE = "version-compatible"
REFIT = "refit"
TAG = b"ftrt"  # kPLAN_FILE_TAG of trtexec
_OPTIONS = frozenset({SAME_CAPABILITY, VERSION_COMPATIBLE, REFIT})
_PLUS = "8.0"  # AMPERE_PLUS is the one level that reaches over architectures


class TensorRTClassicBackend(TensorRTBackend):
    """Builds and runs plans of ``tensorrt``."""

    name = "tensorrt"
    prefix = "trt"
    kind = Kind.NATIVE
    needs_profiles = True
    title = "TensorRT"
    distributions = ("tensorrt", "tensorrt_cu13", "tensorrt_cu12")
    extra = "tensorrt"
    tag = TAG
    measures = True

    def target(self, spec: TargetSpec) -> Target:
        """A target for the GPU of this machine: TensorRT builds for no other.

        Raises:
            UsageError: options contradict each other, or this machine has no such GPU.
            MissingExtraError: TensorRT is not installed.
        """
        _check(spec)
        version = self.builder_version(f"building {spec}")
        gpu = _gpu_for(spec)
        plus, same = spec.plus, SAME_CAPABILITY in spec.options
        compatible = VERSION_COMPATIBLE in spec.options
        level = HardwareCompatibility.NONE
        if plus or same:
            level = HardwareCompatibility.AMPERE_PLUS if plus else HardwareCompatibility.SAME_COMPUTE_CAPABILITY
        return Target(
            name=str(spec),
            backend=self.name,
            version=version,
            compute_capabilities=spec.compute_capabilities,
            sku="" if plus or same else gpu.name,
            os=platform.system().lower(),
            arch=architecture(),
            hardware_compatibility=level.value,
            version_compatible=compatible,
            lean_excluded=True if compatible else msgspec.UNSET,
        )

    def needs_gpu(self, spec: TargetSpec) -> bool:  # noqa: ARG002 - no target does without
        """Always: TensorRT builds for the GPU at hand."""
        return True

    def targets_for(self, gpu: Gpu) -> tuple[TargetSpec, ...]:
        """The plan for this very product, whose kernels are measured here."""
        return (TargetSpec(self.prefix, (gpu.compute_capability,)),) if self.runtime() is not None else ()

    def mode(self, target: Target) -> Mode:
        """Always stripped: its kernels' weight layouts are many, and splice knows few of them."""
        return Mode.ANY if REFIT in TargetSpec.parse(target.name).options else Mode.IDENTICAL

    def configure(self, trt: Any, config: Any, target: Target) -> None:  # noqa: ANN401 - the module is untyped
        """Set hardware and version compatibility.

        Raises:
            BuildError: this version of TensorRT does not know a level.
        """
        levels = {
            HardwareCompatibility.AMPERE_PLUS.value: "AMPERE_PLUS",
            HardwareCompatibility.SAME_COMPUTE_CAPABILITY.value: "SAME_COMPUTE_CAPABILITY",
        }
        wanted = levels.get(target.hardware_compatibility)
        if wanted is not None:
            level = getattr(trt.HardwareCompatibilityLevel, wanted, None)
            if level is None:
                raise BuildError(
                    f"TensorRT {target.version} has no hardware compatibility level {wanted}",
                    hint="install a later one",
                )
            config.hardware_compatibility_level = level
        if target.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
            # Inside of the plan it takes 105 MB, and running it would mean to let plans carry host code.
            config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)


def _check(spec: TargetSpec) -> None:
    spec.refuse_options(_OPTIONS)
    if spec.plus and spec.compute_capabilities != (_PLUS,):
        raise UsageError(f"{str(spec)!r}: TensorRT's hardware compatibility starts at Ampere", hint="write 'trt-sm80+'")
    if spec.plus and SAME_CAPABILITY in spec.options:
        raise UsageError(f"{str(spec)!r} asks for two levels of hardware compatibility", hint="leave one out")
    if len(spec.compute_capabilities) != 1:
        raise UsageError(
            f"a TensorRT plan is for one compute capability, {str(spec)!r} has {len(spec.compute_capabilities)}",
            hint="write one target each, as in 'trt-sm86,trt-sm89', or 'trt-sm80+'",
        )


def _gpu_for(spec: TargetSpec) -> Gpu:
    machine = detect()
    if not machine.gpus:
        raise UsageError(
            f"TensorRT builds {str(spec)!r} only on such a GPU, and this machine has none: {machine.problem}",
            hint="build there, or build 'rtx-smNN' targets, which need no GPU",
        )
    gpu = machine.gpus[0]  # the one that CUDA calls 0, on which everything here runs
    (wanted,) = spec.compute_capabilities
    if spec.plus:
        if int(gpu.compute_capability.partition(".")[0]) < int(_PLUS.partition(".")[0]):
            raise UsageError(f"{str(spec)!r} has to be built on Ampere or later, this machine has {gpu}")
    elif gpu.compute_capability != wanted:
        raise UsageError(
            f"TensorRT builds for the GPU at hand, {gpu}, and not for {sm_name(wanted)}",
            hint=f"write 'trt-{sm_name(gpu.compute_capability)}', or build on the other GPU",
        )
    return gpu


class TensorRTLeanBackend(TensorRTBackend):
    """Runs version-compatible plans of TensorRT with its lean runtime, a tenth of its size."""

    name = "tensorrt_lean"
    prefix = "lean"
    kind = Kind.NATIVE
    needs_profiles = True
    title = "TensorRT's lean runtime"
    distributions = ("tensorrt_lean", "tensorrt_lean_cu13", "tensorrt_lean_cu12")
    extra = "lean"
    tag = TAG

    def target(self, spec: TargetSpec) -> Target:
        """There is none: the lean runtime does not build.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"the lean runtime builds no plans, as {str(spec)!r} asks for",
            hint=f"build 'trt-smNN.{VERSION_COMPATIBLE}' with TensorRT: the lean runtime runs those",
        )

    def configure(self, trt: Any, config: Any, target: Target) -> None:  # noqa: ANN401, ARG002 - never builds
        """Never gets this far.

        Raises:
            IncompatibleError: always.
        """
        raise IncompatibleError(f"the lean runtime does not build {target.name}")


@hookimpl
def wszoo_backends() -> Sequence[Backend]:
    """TensorRT and its lean runtime."""
    return [TensorRTClassicBackend(), TensorRTLeanBackend()]
