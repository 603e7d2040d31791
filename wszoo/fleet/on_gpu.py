"""A build farm of one: add the plans for this machine's GPU to a model that others have published.

No source is needed, and no family: graph and weights come from the model itself, so that a zoo grows product by product
from machines that have nothing but a GPU, a builder and wszoo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.backends.protocol import BuildsOnGpu
from wszoo.errors import IncompatibleError, NotFoundError, UsageError
from wszoo.families.profiles import profiles_for_components
from wszoo.fleet.matrix import plan_cells
from wszoo.fleet.placing import Unserved, place
from wszoo.fleet.publishing import Model, Settings
from wszoo.fleet.run import Matrix, shared_of
from wszoo.gpu.nvml import detect
from wszoo.publish import read_published

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.fleet.report import MatrixReport
    from wszoo.gpu.machine import Gpu
    from wszoo.names import Ref, TargetSpec
    from wszoo.plugins import Registry
    from wszoo.progress import Progress
    from wszoo.publish import Published
    from wszoo.schema.plan import Profile
    from wszoo.store.store import Store


def build_on_this_gpu(
    store: Store,
    registry: Registry,
    ref: Ref,
    settings: Settings,
    progress: Progress,
    *,
    targets: Sequence[TargetSpec] = (),
    profiles: Sequence[str] = (),
) -> MatrixReport:
    """Build a published model's plans for this machine's GPU, and append them to its index by compare-and-swap.

    Args:
        store: gets the model, if it does not have it.
        registry: all plugins.
        ref: what is in the store, or at ``settings.remote``.
        settings: how; without a remote the index in the store is appended to.
        progress: where to report.
        targets: what to build; none for what every installed builder makes for exactly this product.
        profiles: as given with ``--profile``; none for those that the model's other plans have.

    Raises:
        NotFoundError: no such ref.
        IncompatibleError: there is no GPU, or no builder for it.
        UsageError: a target is not for this machine; or the profiles do not fit.
    """
    gpu = this_gpu()
    specs = tuple(targets) or targets_here(registry, gpu)
    executor = registry.executor(settings.executor)
    with store.lease(), executor.open(settings.address, settings.jobs) as crew:
        if not crew.shares_store:
            raise UsageError(f"--on-this-gpu builds here, not on {settings.executor!r}", hint="leave --executor out")
        shared = shared_of(store, settings, progress)
        if shared is not None:
            shared.adopt(ref)
        published = _published(store, ref)
        assert published.model is not None
        answers = [place(crew, registry, spec) for spec in specs]
        places = [each for answer in answers if not isinstance(answer, Unserved) for each in answer]
        model = Model(ref, document=published.model)
        model.planned = plan_cells(store, ref, published.model, places, _profiles(published, profiles))
        return Matrix(store, registry, settings, crew, progress).finish([model])


def this_gpu() -> Gpu:
    """The GPU that builders use here.

    Raises:
        IncompatibleError: there is none.
    """
    machine = detect()
    if not machine.gpus:
        raise IncompatibleError(
            f"there is no GPU to build on: {machine.problem}", hint="without one, build 'rtx-smNN' with 'wszoo build'"
        )
    return machine.gpus[0]


def targets_here(registry: Registry, gpu: Gpu) -> tuple[TargetSpec, ...]:
    """What the installed builders make for a GPU, and only beside it.

    Raises:
        IncompatibleError: nothing.
    """
    able = [backend for backend in registry.backends.values() if isinstance(backend, BuildsOnGpu)]
    found = tuple(spec for backend in able for spec in backend.targets_for(gpu))
    if not found:
        raise IncompatibleError(
            f"no builder here makes plans for {gpu}: tried {', '.join(backend.name for backend in able)}",
            hint='pip install "wszoo[tensorrt]" for data centre GPUs, "wszoo[rtx]" for GeForce and RTX',
        )
    return found


def _published(store: Store, ref: Ref) -> Published:
    found = read_published(store, ref)
    if found.model is None:
        raise NotFoundError(
            f"{ref.tagged} is not here as a whole, so nothing can be added to it",
            hint="name the remote that has it with --to, or build it first",
        )
    return found


def _profiles(published: Published, given: Sequence[str]) -> dict[str, list[tuple[Profile, ...]]]:
    """For each component the sets of profiles to build for: those given, or those of the plans that there are."""
    assert published.model is not None
    inputs = {name: component.inputs for name, component in published.model.config.components.items()}
    found: dict[str, list[tuple[Profile, ...]]] = {name: [] for name in inputs}
    for plan in published.plans:
        sets = found.get(plan.config.component, [])
        if not given and plan.config.profiles and plan.config.profiles not in sets:
            sets.append(plan.config.profiles)
    bare = {name: values for name, values in inputs.items() if not found[name]}
    return found | {name: [chosen] for name, chosen in profiles_for_components(bare, given).items()}
