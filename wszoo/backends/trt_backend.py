"""What every backend of the TensorRT family shares; a product is a module and a few facts about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from wszoo.backends.installed import installed_version, load_module
from wszoo.backends.trt_timing import TimingCache
from wszoo.errors import MissingExtraError
from wszoo.gpu.machine import Runtime

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.backends.protocol import Assembled, BuildJob, Stripped
    from wszoo.backends.trt_engine import TrtEngine
    from wszoo.names import TargetSpec
    from wszoo.schema.plan import Kind, Target
    from wszoo.schema.refit import Mode


class TensorRTBackend(ABC):
    """Builds and runs plans with ``tensorrt``, ``tensorrt_rtx`` or a sibling: their Python modules are near identical.

    Attributes:
        name: as in plans' targets; also the module's name.
        prefix: as users type it.
        kind: how its plans are stripped.
        title: the product's name for people.
        distributions: the packages that may bring the module, the plain name first.
        extra: the extra of wszoo that brings the package.
        tag: what this product's plans begin with.
        measures: it times kernels while it builds.
    """

    name: str
    prefix: str
    kind: Kind
    title: ClassVar[str]
    distributions: ClassVar[tuple[str, ...]]
    extra: ClassVar[str]
    tag: ClassVar[bytes]
    measures: ClassVar[bool] = False

    def runtime(self) -> Runtime | None:
        """What is installed, without importing it."""
        version = installed_version(*self.distributions)
        return Runtime(backend=self.name, version=version, devices=("cuda",)) if version else None

    @abstractmethod
    def target(self, spec: TargetSpec) -> Target:
        """Complete what the user asked for with the builder's version."""

    @abstractmethod
    def configure(self, trt: Any, config: Any, target: Target) -> None:  # noqa: ANN401 - the module is untyped
        """Set what only this product has on an ``IBuilderConfig``."""

    def mode(self, target: Target) -> Mode | None:  # noqa: ARG002 - siblings look at it
        """How to strip plans for a target; None builds them whole."""
        return None

    def build(self, job: BuildJob, out: Path) -> Stripped | None:
        """Write the plan to ``out`` after checking that it is one. No GPU is needed where the product needs none.

        Returns:
            How to refit it when it was stripped, which takes a GPU; None when it is whole.

        Raises:
            UsageError: profiles and dynamic inputs do not fit.
            BuildError: the parser or builder refuses; the message names the node and the reason. Or a stripped plan
                kept its weights, or computes something else when it is refitted.
            IncompatibleError: an input or output has elements that no array can hold.
            MissingExtraError: the builder is not installed.
            StorageError: the plan cannot be written.
        """
        trt = self.module(f"building {job.target.name}")
        mode = self.mode(job.target)
        if mode is None:
            from wszoo.backends.trt_build import build_plan

            build_plan(trt, job, lambda config: self.configure(trt, config, job.target), self.tag, out)
            return None
        from wszoo.backends.trt_native import build_native
        from wszoo.backends.trt_product import Product

        timing = TimingCache(job.cache if self.measures else None, self.name, job.target.version, job.target.sku)

        def configure(config: Any) -> None:  # noqa: ANN401
            self.configure(trt, config, job.target)
            timing.attach(config)

        product = Product(title=self.title, tag=self.tag, extra=self.extra, configure=configure)
        try:
            return build_native(trt, job, product, mode, out)
        finally:
            timing.save()

    def load(self, assembled: Assembled) -> TrtEngine:
        """Load a verified plan onto the first GPU.

        Raises:
            MissingExtraError: the runtime is not installed.
            IncompatibleError: another release wrote the plan, there is no GPU, or the runtime refuses.
            MalformedError: the file is no plan of this product.
        """
        trt = self.module(f"running {assembled.config.target.name}")
        from wszoo.backends.trt_load import load_engine

        return load_engine(trt, assembled, title=self.title, tag=self.tag, extra=self.extra)

    def refitted(self, assembled: Assembled) -> Path:
        """A native plan with its weights, as a file.

        Raises:
            MissingExtraError: the runtime is not installed.
            IncompatibleError: another release wrote the plan, there is no GPU of its target, or the runtime refuses.
            MalformedError: it is no plan of this product.
            StorageError: the disk is full or refuses.
        """
        trt = self.module(f"giving the plan for {assembled.config.target.name} its weights")
        from wszoo.backends.trt_load import refitted_plan

        return refitted_plan(trt, assembled, title=self.title, tag=self.tag, extra=self.extra)

    def module(self, purpose: str) -> Any:  # noqa: ANN401 - the module has no type information
        """Import the product's module.

        Raises:
            MissingExtraError: it is not installed.
            IncompatibleError: it is installed and fails to load.
        """
        return load_module(self.name, extra=self.extra, purpose=purpose)

    def builder_version(self, purpose: str) -> str:
        """The installed version.

        Raises:
            MissingExtraError: it is not installed.
        """
        version = installed_version(*self.distributions)
        if not version:
            raise MissingExtraError(self.name, self.extra, purpose)
        return version
