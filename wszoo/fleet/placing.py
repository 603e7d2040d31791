"""Which nodes can build a target, asked before anything is exported."""

from __future__ import annotations

import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wszoo.backends.protocol import BuildsOnGpu
from wszoo.errors import IncompatibleError
from wszoo.executors.labels import CAPABILITY, PRODUCT, builder_label, label_value, newest, seen
from wszoo.executors.protocol import Lost, Need
from wszoo.fleet.work import Problem, complete_target
from wszoo.names import capability_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.backends.protocol import Backend
    from wszoo.executors.protocol import Crew, Node
    from wszoo.names import TargetSpec
    from wszoo.plugins import Registry
    from wszoo.schema.plan import Target

PATIENCE = 600.0  # seconds for a node to say what it has; it may be in the middle of another driver's build
TICK = 2.0  # seconds between looks whether it is still there


@dataclass(frozen=True, slots=True)
class Place:
    """A target, and what a node must have to build it.

    Attributes:
        target: as a node's builder completed it.
        backend: the target's.
        need: without memory, which depends on the component.
    """

    target: Target
    backend: Backend
    need: Need


@dataclass(frozen=True, slots=True)
class Unserved:
    """A target that no node can build.

    Attributes:
        target: as the user wrote it.
        why: with the labels that were seen.
    """

    target: str
    why: str


def place(crew: Crew, registry: Registry, spec: TargetSpec) -> list[Place] | Unserved:
    """Where a target can be built: one place, or one for each product that it has to be built on.

    Args:
        crew: with its nodes.
        registry: has the backend.
        spec: the target.

    Raises:
        UsageError: no such target, or the builder does not build for it.
        MissingExtraError: on this machine, its builder is not installed.
        IncompatibleError: a node has something else than its labels say.
    """
    backend = registry.backend_for(spec.prefix)
    if crew.shares_store:
        return [Place(backend.target(spec), backend, Need())]
    while needs := _needs(crew.nodes(), backend, spec):
        first = _asked(crew, backend, spec, needs[0])
        if first is None:  # it has just gone
            continue
        others = needs[1:] if first.target.sku else []  # kernels measured on one product are for that one
        answers = [first, *(_asked(crew, backend, spec, need) for need in others)]
        return [answer for answer in answers if answer is not None]
    gpu = " beside such a GPU" if _needs_gpu(backend, spec) else ""
    return Unserved(str(spec), f"no node can build {spec}{gpu}; there is: {seen(crew.nodes())}")


def _needs(nodes: Sequence[Node], backend: Backend, spec: TargetSpec) -> list[Need]:
    label = builder_label(backend.prefix)
    gpu = _needs_gpu(backend, spec)
    able = [node for node in nodes if label in node.labels and (not gpu or _has_gpu(node, spec))]
    if not able:
        return []
    # One version for all: plans of different versions of a builder do not replace each other.
    version = newest(node.labels[label] for node in able)
    need = Need(labels={label: (version,)}, gpu=gpu)
    if not gpu:
        return [need]
    able = [node for node in able if node.labels[label] == version and PRODUCT in node.labels]
    products = sorted({node.labels[PRODUCT] for node in able})
    return [replace(need, labels={**need.labels, PRODUCT: (product,)}) for product in products]


def _needs_gpu(backend: Backend, spec: TargetSpec) -> bool:
    return isinstance(backend, BuildsOnGpu) and backend.needs_gpu(spec)


def _has_gpu(node: Node, spec: TargetSpec) -> bool:
    capability = node.labels.get(CAPABILITY)
    if capability is None or not node.gpus:
        return False
    if spec.plus:
        return capability_key(capability) >= capability_key(spec.compute_capabilities[0])
    return capability in spec.compute_capabilities


def _asked(crew: Crew, backend: Backend, spec: TargetSpec, need: Need) -> Place | None:
    """Ask a node what its builder makes of the target, and compare with what its labels say; None when it went away."""
    try:
        found = _answer(crew, spec, need)
    except Lost as error:
        raise IncompatibleError(f"the node with {_words(need)} that was asked for {spec} died: {error}") from error
    if found is None:
        return None
    if isinstance(found, Problem):
        raise found.error()
    label = builder_label(backend.prefix)
    (said,) = need.labels[label]
    if found.version and label_value(found.version) != said:
        raise IncompatibleError(
            f"a node is labelled {label}={said} and has {backend.name} {found.version}",
            hint="start it again with the labels that 'wszoo ray-labels' prints there",
        )
    return Place(found, backend, need)


def _answer(crew: Crew, spec: TargetSpec, need: Need) -> Target | Problem | None:
    future, end = crew.submit(complete_target, str(spec), need), time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(FutureTimeoutError):
            return future.result(TICK)
        if not any(node.serves(need) for node in crew.nodes()):
            crew.cancel(future)
            return None
    crew.cancel(future)
    raise IncompatibleError(
        f"no node with {_words(need)} has answered for {spec} in {PATIENCE:.0f} s",
        hint="are its CPUs and GPUs taken by other work? see 'ray status'",
    )


def _words(need: Need) -> str:
    return ", ".join(f"{name}={'|'.join(values)}" for name, values in need.labels.items())
