"""One plan, judged by itself: does it run on this GPU, this system, these runtimes, and how well does it fit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from wszoo.gpu.fit import Tier, carries_code, fit_gpu, fit_platform, fit_runtime, needed, version_key
from wszoo.gpu.request import How
from wszoo.schema.plan import HardwareCompatibility, Kind

if TYPE_CHECKING:
    from wszoo.digest import Digest
    from wszoo.gpu.machine import Gpu, Machine, Runtime
    from wszoo.schema.facts import PlanFacts
    from wszoo.schema.plan import Target

Rank = tuple[int, int, int, int, tuple[int, ...], int, str]
"""Lacks the profile; tier; tier by hardware alone; nothing here runs it; newest version first; bytes; digest."""

_VERSION_PARTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan on offer.

    Attributes:
        digest: of its manifest; two candidates with one digest are one plan.
        facts: from its descriptor's annotations, or from its config.
    """

    digest: Digest
    facts: PlanFacts

    @property
    def names(self) -> tuple[str, str]:
        """What users call it: the digest, and the target, which other plans may share."""
        return str(self.digest), self.facts.target.name

    def __str__(self) -> str:
        return f"{self.facts.target.name} ({self.digest.short})"


class Stage(IntEnum):
    """How far a plan came; the furthest of those refused is the nearest miss."""

    OPTIONS = 0
    GPU = 1
    PLATFORM = 2
    RUNTIME = 3
    ACCEPTED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What judging a plan came to.

    Attributes:
        candidate: the plan.
        stage: how far it came.
        reason: why it came no further, or why it fits; a clause for people.
        rank: smaller is better; None when refused.
        device: ``cuda`` or ``cpu``.
        runtime: what this machine would load it with; None when nothing here can.
    """

    candidate: Candidate
    stage: Stage
    reason: str
    rank: Rank | None = None
    device: str = "cuda"
    runtime: Runtime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What every plan is judged against: the request, on one GPU.

    Attributes:
        machine: the machine's facts.
        runtimes: what is installed on it.
        how: where the GPU comes from; of one that was named, the machine need not be this one.
        gpu: the GPU; None when there is none or it is not wanted.
        backend: the only backend wanted; None for any.
        profile: the profile wanted; None for any.
        avoid: names of plans not to take.
    """

    machine: Machine
    runtimes: tuple[Runtime, ...]
    how: How
    gpu: Gpu | None
    backend: str | None
    profile: str | None
    avoid: frozenset[str] = frozenset()


def judge(plan: Candidate, situation: Situation) -> Finding:
    """Judge one plan; the first check that fails gives the reason."""
    for stage, problem in _CHECKS:
        reason = problem(plan.facts, situation)
        if reason:
            return Finding(candidate=plan, stage=stage, reason=reason)
    tier = _tier(plan.facts, situation)
    runtime = _runtime(plan.facts.target, tier, situation)
    # TensorRT's documentation: such engines "can be slower than engines built for a specific runtime version".
    late = tier < Tier.VERSION_COMPATIBLE and plan.facts.target.version_compatible
    return Finding(
        candidate=plan,
        stage=Stage.ACCEPTED,
        reason=_why_accepted(plan.facts.target, Tier.VERSION_COMPATIBLE if late else tier, runtime, situation),
        rank=_rank(plan, (Tier.VERSION_COMPATIBLE if late else tier, tier), runtime, situation),
        device="cpu" if tier is Tier.PORTABLE_CPU else "cuda",
        runtime=runtime,
    )


def _option_problem(facts: PlanFacts, situation: Situation) -> str:
    if facts.kind not in set(Kind) or facts.target.hardware_compatibility not in set(HardwareCompatibility):
        return f"of kind {facts.kind}/{facts.target.hardware_compatibility}, which needs a later wszoo"
    if situation.backend not in {None, facts.target.backend}:
        return f"its backend is {facts.target.backend}, {situation.backend} was asked for"
    needs_profile = facts.kind != Kind.PORTABLE and facts.profiles
    if needs_profile and situation.profile is not None and situation.profile not in facts.profiles:
        return f"its profiles are {', '.join(facts.profiles)}; {situation.profile} was asked for"
    return ""


def _gpu_problem(facts: PlanFacts, situation: Situation) -> str:
    if facts.kind == Kind.PORTABLE:
        return ""
    if situation.gpu is None:
        return f"needs a GPU: {_why_no_gpu(situation)}"
    tier = fit_gpu(facts.target, situation.gpu)
    return tier if isinstance(tier, str) else ""


def _platform_problem(facts: PlanFacts, situation: Situation) -> str:
    machine = situation.machine
    return "" if situation.how is How.GIVEN else fit_platform(facts.target, machine.os, machine.arch)


def _code_problem(facts: PlanFacts, situation: Situation) -> str:  # noqa: ARG001 - as the other checks
    return carries_code(facts.target)


def _runtime_problem(facts: PlanFacts, situation: Situation) -> str:
    found = fit_runtime(facts.target, situation.runtimes)
    return found if isinstance(found, str) and situation.how is not How.GIVEN else ""


_CHECKS = (
    (Stage.OPTIONS, _option_problem),
    (Stage.GPU, _gpu_problem),
    (Stage.PLATFORM, _platform_problem),
    (Stage.RUNTIME, _code_problem),
    (Stage.RUNTIME, _runtime_problem),
)


def _tier(facts: PlanFacts, situation: Situation) -> Tier:
    """The tier by hardware alone, of a plan that passed the checks."""
    if facts.kind != Kind.PORTABLE and situation.gpu is not None:
        tier = fit_gpu(facts.target, situation.gpu)
        assert isinstance(tier, Tier)
        return tier
    found = fit_runtime(facts.target, situation.runtimes)
    usable = situation.gpu is not None and not isinstance(found, str) and "cuda" in found.devices
    return Tier.PORTABLE_CUDA if usable or situation.how is How.GIVEN else Tier.PORTABLE_CPU


def _runtime(target: Target, tier: Tier, situation: Situation) -> Runtime | None:
    """What this machine would load the plan with; None when it cannot, which matters only for a GPU that was named."""
    found = fit_runtime(target, situation.runtimes)
    if isinstance(found, str) or fit_platform(target, situation.machine.os, situation.machine.arch):
        return None
    return None if tier is Tier.PORTABLE_CUDA and "cuda" not in found.devices else found


def _rank(plan: Candidate, tiers: tuple[Tier, Tier], runtime: Runtime | None, situation: Situation) -> Rank:
    unnamed = situation.profile is not None and situation.profile not in plan.facts.profiles
    version = (*version_key(plan.facts.target.version), *(0,) * _VERSION_PARTS)[:_VERSION_PARTS]
    newest_first = tuple(-part for part in version)
    return int(unnamed), *tiers, int(runtime is None), newest_first, plan.facts.plan_bytes, plan.digest


def _why_accepted(target: Target, tier: Tier, runtime: Runtime | None, situation: Situation) -> str:
    gpu, label = situation.gpu, f"{runtime.backend} {runtime.version}" if runtime else ""
    clauses = {
        Tier.EXACT_SKU: f"built for exactly this GPU, {target.sku}",
        Tier.AMPERE_PLUS: "built for compute capability 8.0 and later",
        Tier.VERSION_COMPATIBLE: "version-compatible" + (f": runs on {label}" if label else ""),
        Tier.PORTABLE_CUDA: f"portable, {label} on CUDA" if label else "portable",
        Tier.PORTABLE_CPU: f"portable, {label} on the CPU: {_why_cpu(situation)}",
    }
    clause = (
        clauses.get(tier) or f"built for this GPU's compute capability{f', {gpu.compute_capability}' if gpu else ''}"
    )
    if situation.how is not How.GIVEN:
        return clause
    where = (" with CUDA" if tier is Tier.PORTABLE_CUDA else "") + (f" on {target.os}" if target.os else "")
    return f"{clause}; needs {needed(target)}{where}"


def _why_cpu(situation: Situation) -> str:
    return _why_no_gpu(situation) if situation.gpu is None else "the one installed cannot use CUDA"


def _why_no_gpu(situation: Situation) -> str:
    if situation.how is How.NONE:
        return "no GPU was asked for"
    return situation.machine.problem or "this machine has none"
