"""TensorRT-RTX: plans for GeForce, RTX and their relatives, built without a GPU and compiled on the client.

Building has run on machines without a GPU; stripping, loading and running take an RTX GPU and have not run on one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wszoo.backends.trt_backend import TensorRTBackend
from wszoo.errors import BuildError, UsageError
from wszoo.gpu.machine import architecture
from wszoo.hookspecs import hookimpl
from wszoo.names import TargetSpec, capability_key, compute_capability, sm_name
from wszoo.schema.plan import Kind, Target
from wszoo.schema.refit import Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.backends.protocol import Backend
    from wszoo.gpu.machine import Gpu

STRIP = "strip"
REFIT = "refit"
_OPTIONS = frozenset({STRIP, REFIT})


class TensorRTRTXBackend(TensorRTBackend):
    """Plans are whole and wszoo cuts the weights out, unless TensorRT-RTX is asked to strip: ``rtx-sm89.strip``.

    TensorRT-RTX strips only beside a GPU that it supports, and for one compute capability at a time.
    """

    name = "tensorrt_rtx"
    prefix = "rtx"
    kind = Kind.SPLICE
    needs_profiles = True
    title = "TensorRT-RTX"
    distributions = ("tensorrt_rtx",)
    extra = "rtx"
    tag = b"vtrt"

    def target(self, spec: TargetSpec) -> Target:
        """One plan for one or several compute capabilities; it runs on Windows and Linux alike.

        Raises:
            UsageError: no capability, an unknown one, ``+``, an unknown option, or several capabilities to strip for.
            MissingExtraError: TensorRT-RTX is not installed.
        """
        spec.refuse_options(_OPTIONS)
        version = self.builder_version(f"building {spec}")
        known = _capabilities(self.module(f"building {spec}"))
        choice = f"there is {', '.join(map(sm_name, known))}; several make one plan, as in 'rtx-sm86-sm89'"
        if spec.plus:
            raise UsageError(
                f"TensorRT-RTX has no '+' plans: {str(spec)!r}", hint=f"name every compute capability: {choice}"
            )
        if not spec.compute_capabilities:
            raise UsageError(f"no compute capability in {str(spec)!r}", hint=choice)
        if spec.options and len(spec.compute_capabilities) > 1:
            raise UsageError(
                f"TensorRT-RTX strips for one compute capability at a time, {str(spec)!r} has several",
                hint=f"write one target each, or leave '.{STRIP}' out",
            )
        for capability in spec.compute_capabilities:
            if capability not in known:
                raise UsageError(f"TensorRT-RTX {version} does not build for {sm_name(capability)}", hint=choice)
        return Target(
            name=str(spec),
            backend=self.name,
            version=version,
            compute_capabilities=spec.compute_capabilities,
            arch=architecture(),
        )

    def needs_gpu(self, spec: TargetSpec) -> bool:
        """Only where TensorRT-RTX itself strips."""
        return bool(_OPTIONS.intersection(spec.options))

    def targets_for(self, gpu: Gpu) -> tuple[TargetSpec, ...]:
        """The stripped plan for its compute capability; whole ones are built anywhere."""
        if self.runtime() is None:
            return ()
        known = _capabilities(self.module(f"building for {gpu}"))
        named = (gpu.compute_capability,)
        return (TargetSpec(self.prefix, named, options=(STRIP,)),) if gpu.compute_capability in known else ()

    def mode(self, target: Target) -> Mode | None:
        """What the target's options ask for."""
        options = TargetSpec.parse(target.name).options
        if REFIT in options:
            return Mode.ANY
        return Mode.IDENTICAL if STRIP in options else None

    def configure(self, trt: Any, config: Any, target: Target) -> None:  # noqa: ANN401 - the module is untyped
        """Set the compute capabilities: always, because the default set leaves Turing out.

        Raises:
            BuildError: the builder does not take one of them.
        """
        config.num_compute_capabilities = len(target.compute_capabilities)
        for number, capability in enumerate(target.compute_capabilities):
            name = sm_name(capability).upper()
            if not config.set_compute_capability(getattr(trt.ComputeCapability, name), number):
                raise BuildError(f"TensorRT-RTX does not take {name} in {target.name}")


def _capabilities(trt: Any) -> list[str]:  # noqa: ANN401
    names = [name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    return sorted(map(compute_capability, names), key=capability_key)


@hookimpl
def wszoo_backends() -> Sequence[Backend]:
    """The TensorRT-RTX backend."""
    return [TensorRTRTXBackend()]
