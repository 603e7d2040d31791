"""Chooses a plan for each component, and says why: of every plan, why it was taken or why not.

Pure and total: facts in, a :class:`Resolution` or an :class:`~wszoo.errors.IncompatibleError` out, no I/O, and the order
of the candidates changes nothing. The rules stand in :mod:`wszoo.gpu.fit`; here they are put in order:

1. a plan that names the profile asked for goes before one whose shapes are fixed;
2. :class:`~wszoo.gpu.fit.Tier`: exact SKU, same compute capability, TensorRT's two levels of hardware compatibility,
   version-compatible, TensorRT-RTX, portable on CUDA, portable on the CPU;
3. what this machine can run as it is (only differs when a GPU was named with ``--gpu``), newer builder, fewer bytes to
   fetch, digest.

``auto`` with several GPUs takes the one on which most components resolve and their tiers are best, then the one with
most memory, then the driver's order.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from wszoo.errors import IncompatibleError
from wszoo.gpu.fit import Tier
from wszoo.gpu.request import How

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wszoo.digest import Digest
    from wszoo.gpu.machine import Gpu, Machine, Runtime
    from wszoo.gpu.request import GpuRequest
    from wszoo.schema.facts import PlanFacts

Rank = tuple[int, int, int, int, tuple[int, ...], int, str]

_WHY_PREFERRED = (
    "it has the profile asked for",
    "",  # the tier: _WHY_TIER
    "it was built for this GPU more closely",
    "this machine can run it as it is",
    "a newer version built it",
    "it is smaller",
    "of equal plans the first digest is taken",
)
_WHY_TIER = {
    Tier.EXACT_SKU: "it was built for exactly this GPU",
    Tier.COMPUTE_CAPABILITY: "it was built for this compute capability alone",
    Tier.SAME_COMPUTE_CAPABILITY: "it was built for every GPU of this compute capability",
    Tier.AMPERE_PLUS: "it was built with this very version",
    Tier.VERSION_COMPATIBLE: "TensorRT's own kernels come with it",
    Tier.RTX: "it is compiled for the GPU",
    Tier.PORTABLE_CUDA: "it runs on the GPU",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan on offer.

    Attributes:
        digest: of its manifest; two candidates with one digest are one plan.
        facts: from its descriptor's annotations, or from its config.
    """

    digest: Digest
    facts: PlanFacts

    def __str__(self) -> str:
        return f"{self.facts.target.name} ({self.digest.short})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found about one plan.

    Attributes:
        candidate: the plan.
        accepted: it would run.
        taken: it is the choice for its component.
        rank: smaller is better; None when not accepted.
        reason: a clause for people.
    """

    candidate: Candidate
    accepted: bool
    taken: bool
    rank: Rank | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The plan taken for one component.

    Attributes:
        component: its name.
        candidate: the plan.
        device: ``cuda`` or ``cpu``.
        runtime: what to load it with; None when a GPU was named and nothing fitting is installed here.
        reason: a clause for people.
    """

    component: str
    candidate: Candidate
    device: str
    runtime: Runtime | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """A choice for every component.

    Attributes:
        gpu: the GPU resolved for; None when there is none or it was not wanted.
        choices: by component, in the order asked for, else by name.
        verdicts: one for every plan: by component in that order, accepted ones first and best first.
    """

    gpu: Gpu | None
    choices: dict[str, Choice]
    verdicts: tuple[Verdict, ...]


class _Stage(IntEnum):
    """How far a plan came; the furthest of those refused is the nearest miss."""

    NOT_ASKED = 0
    GPU = 1
    PLATFORM = 2
    RUNTIME = 3
    ACCEPTED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """One plan judged by itself."""

    candidate: Candidate
    stage: _Stage
    reason: str
    rank: Rank | None = None
    device: str = "cuda"
    runtime: Runtime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Situation:
    """What every plan is judged against: the request, on one GPU."""

    machine: Machine
    runtimes: tuple[Runtime, ...]
    how: How
    gpu: Gpu | None
    backend: str | None
    profile: str | None


def resolve(
    candidates: Iterable[Candidate],
    machine: Machine,
    runtimes: Sequence[Runtime],
    request: GpuRequest,
    *,
    components: Sequence[str] | None = None,
    backend: str | None = None,
    profile: str | None = None,
) -> Resolution:
    """Choose a plan for each component.

    Args:
        candidates: every plan of the model.
        machine: this machine's facts.
        runtimes: what is installed on it.
        request: the GPU to resolve for. For one that was named, this machine's system and runtimes are not required.
        components: those wanted; None for all that have plans.
        backend: take this backend's plans only.
        profile: an optimization profile that the plan must have; plans of fixed shapes and portable plans need none.

    Raises:
        IncompatibleError: a component has no plan that fits; lists all of its plans, each with the reason against it.
    """
    plans = sorted({plan.digest: plan for plan in candidates}.values(), key=lambda plan: plan.digest)
    wanted = tuple(dict.fromkeys(components if components is not None else sorted({p.facts.component for p in plans})))
    if not plans or not wanted:
        raise IncompatibleError("there is no plan to choose from", hint="pull the model again, or build it")
    best = min(
        (_survey(plans, wanted, _Situation(
            machine=machine, runtimes=tuple(runtimes), how=request.how, gpu=gpu, backend=backend, profile=profile
        )) for gpu in _gpus(machine, request)),
        key=_Survey.score,
    )  # fmt: skip
    missing = [component for component in wanted if component not in best.taken]
    if missing:
        raise _incompatible(best, missing)
    return _resolution(best, wanted)


def _gpus(machine: Machine, request: GpuRequest) -> Sequence[Gpu | None]:
    if request.how is How.GIVEN:
        return [request.gpu]
    if request.how is How.NONE or not machine.gpus:
        return [None]
    return sorted(machine.gpus, key=lambda gpu: -(gpu.memory_bytes or 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Survey:
    """Every plan judged against one situation."""

    situation: _Situation
    wanted: tuple[str, ...]
    findings: dict[str, list[_Finding]]
    taken: dict[str, _Finding]

    def score(self) -> tuple[int, int]:
        """Components without a plan, then the sum of the tiers."""
        ranks = [finding.rank for finding in self.taken.values() if finding.rank]
        return len(self.wanted) - len(self.taken), sum(rank[1] for rank in ranks)


def _survey(plans: Sequence[Candidate], wanted: tuple[str, ...], situation: _Situation) -> _Survey:
    findings: dict[str, list[_Finding]] = defaultdict(list)
    for plan in plans:
        component = plan.facts.component
        if component in wanted:
            findings[component].append(_judge(plan, situation))
        else:
            reason = f"the component {component} was not asked for"
            findings[component].append(_Finding(candidate=plan, stage=_Stage.NOT_ASKED, reason=reason))
    for component in findings:
        findings[component].sort(key=lambda f: (f.rank is None, f.rank or -f.stage, f.candidate.digest))
    taken = {name: found[0] for name, found in findings.items() if found[0].rank is not None}
    return _Survey(situation=situation, wanted=wanted, findings=findings, taken=taken)
