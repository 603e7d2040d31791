"""Chooses a plan for each component, and says why: of every plan, why it was taken or why not.

Pure and total: facts in, a :class:`Resolution` or an :class:`~wszoo.errors.IncompatibleError` out; no I/O, and the
order of the candidates changes nothing. The rules stand in :mod:`wszoo.gpu.fit`; here they are put in order:

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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wszoo.errors import IncompatibleError, UsageError
from wszoo.gpu.fit import RTX_COMPUTE_CAPABILITIES, Tier
from wszoo.gpu.judge import Candidate, Finding, Rank, Situation, Stage, judge
from wszoo.gpu.request import How
from wszoo.names import sm_name
from wszoo.schema.plan import Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from wszoo.gpu.machine import Gpu, Machine, Runtime
    from wszoo.gpu.request import GpuRequest

__all__ = ["Candidate", "Choice", "Rank", "Resolution", "Verdict", "resolve"]

_NEAR_MISS = frozenset({Stage.GPU, Stage.PLATFORM, Stage.RUNTIME})
_WHY_PREFERRED = (
    "it has the profile asked for",
    "",  # the tier: _WHY_TIER
    "it was built for this GPU more closely",
    "this machine can run it as it is",
    "it was built with a newer version",
    "it is smaller",
    "of equal plans the first digest is taken",
)
_WHY_TIER = {
    Tier.EXACT_SKU: "it was built for exactly this GPU",
    Tier.COMPUTE_CAPABILITY: "TensorRT built it for this compute capability",
    Tier.SAME_COMPUTE_CAPABILITY: "TensorRT built it for every GPU of this compute capability",
    Tier.AMPERE_PLUS: "it is not version-compatible, which costs speed",
    Tier.VERSION_COMPATIBLE: "TensorRT compiled its kernels when it was built",
    Tier.RTX: "it is compiled for this GPU",
    Tier.PORTABLE_CUDA: "it runs on the GPU",
}


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


def resolve(
    candidates: Iterable[Candidate],
    machine: Machine,
    runtimes: Sequence[Runtime],
    request: GpuRequest,
    *,
    components: Sequence[str] | None = None,
    backend: str | None = None,
    profile: str | None = None,
    avoid: Collection[str] = (),
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
        avoid: digests or target names of plans not to take: those that a runtime refused, say.

    Raises:
        UsageError: no plan is called as one to avoid.
        IncompatibleError: a component has no plan that fits; lists all of its plans, each with the reason against it.
    """
    plans = sorted({plan.digest: plan for plan in candidates}.values(), key=lambda plan: plan.digest)
    wanted = tuple(dict.fromkeys(components if components is not None else sorted({p.facts.component for p in plans})))
    if not plans:
        raise IncompatibleError("there is no plan to choose from", hint="pull the model again, or build it")
    _check_avoided(plans, avoid)
    situation = Situation(
        machine=machine,
        runtimes=tuple(runtimes),
        how=request.how,
        gpu=None,
        backend=backend,
        profile=profile,
        avoid=frozenset(avoid),
    )
    gpus = _gpus(machine, request)
    best = min((_survey(plans, wanted, replace(situation, gpu=gpu)) for gpu in gpus), key=_Survey.score)
    missing = [component for component in wanted if component not in best.taken]
    if missing:
        raise _incompatible(best, missing)
    return _resolution(best)


def _check_avoided(plans: Sequence[Candidate], avoid: Collection[str]) -> None:
    known = {name for plan in plans for name in plan.names}
    for name in avoid:
        if name not in known:
            targets = dict.fromkeys(plan.facts.target.name for plan in plans)
            raise UsageError(f"there is no plan {name!r} to avoid", hint=f"there is: {', '.join(targets)}, or a digest")


def _gpus(machine: Machine, request: GpuRequest) -> Sequence[Gpu | None]:
    if request.how is How.GIVEN:
        return [request.gpu]
    if request.how is How.NONE or not machine.gpus:
        return [None]
    distinct: dict[tuple[str, str], Gpu] = {}  # eight equal GPUs are surveyed once
    for gpu in sorted(machine.gpus, key=lambda gpu: -(gpu.memory_bytes or 0)):
        distinct.setdefault((gpu.name, gpu.compute_capability), gpu)
    return list(distinct.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Survey:
    """Every plan judged against one situation."""

    situation: Situation
    wanted: tuple[str, ...]
    findings: dict[str, list[Finding]]
    taken: dict[str, Finding]

    def score(self) -> tuple[int, int]:
        """Components without a plan, then the sum of the tiers."""
        ranks = [finding.rank for finding in self.taken.values() if finding.rank]
        return len(self.wanted) - len(self.taken), sum(rank[1] for rank in ranks)


def _survey(plans: Sequence[Candidate], wanted: tuple[str, ...], situation: Situation) -> _Survey:
    findings: dict[str, list[Finding]] = defaultdict(list)
    for plan in plans:
        component = plan.facts.component
        if component in wanted and not situation.avoid.isdisjoint(plan.names):
            findings[component].append(Finding(candidate=plan, stage=Stage.OPTIONS, reason="it is to be avoided"))
        elif component in wanted:
            findings[component].append(judge(plan, situation))
        else:
            reason = f"the component {component} was not asked for"
            findings[component].append(Finding(candidate=plan, stage=Stage.OPTIONS, reason=reason))
    for found in findings.values():
        found.sort(key=lambda f: (f.rank is None, f.rank or (), -f.stage, f.candidate.digest))
    taken = {name: found[0] for name, found in findings.items() if found[0].rank is not None}
    return _Survey(situation=situation, wanted=wanted, findings=findings, taken=taken)


def _resolution(survey: _Survey) -> Resolution:
    choices = {component: _choice(component, survey) for component in survey.wanted}
    order = [*survey.wanted, *sorted(survey.findings.keys() - set(survey.wanted))]
    verdicts = [
        _verdict(finding, survey.taken.get(component)) for component in order for finding in survey.findings[component]
    ]
    return Resolution(gpu=survey.situation.gpu, choices=choices, verdicts=tuple(verdicts))


def _choice(component: str, survey: _Survey) -> Choice:
    taken = survey.taken[component]
    refused = [finding for finding in survey.findings[component] if finding.stage in _NEAR_MISS]
    reason = taken.reason
    if taken.candidate.facts.kind == Kind.PORTABLE and survey.situation.gpu is not None and refused:
        reason += f"; the nearest better plan, {refused[0].candidate}, does not run here: {refused[0].reason}"
    return Choice(
        component=component, candidate=taken.candidate, device=taken.device, runtime=taken.runtime, reason=reason
    )


def _verdict(finding: Finding, taken: Finding | None) -> Verdict:
    reason = finding.reason
    if finding.rank is not None and taken is not None and taken.rank is not None and finding is not taken:
        pairs = zip(taken.rank, finding.rank, strict=True)
        first = next(place for place, (best, mine) in enumerate(pairs) if best != mine)
        why = _WHY_PREFERRED[first] or _WHY_TIER[Tier(taken.rank[1])]
        reason = f"fits, but {taken.candidate} is preferred: {why}"
    return Verdict(
        candidate=finding.candidate,
        accepted=finding.rank is not None,
        taken=finding is taken,
        rank=finding.rank,
        reason=reason,
    )


def _incompatible(survey: _Survey, missing: Sequence[str]) -> IncompatibleError:
    situation = survey.situation
    where = str(situation.gpu) if situation.gpu else f"this machine ({situation.machine.os} {situation.machine.arch})"
    lines = []
    for component in missing:
        found = survey.findings.get(component, [])
        lines.append(f"no plan of {component} fits {where}:" if found else f"there is no plan of {component}")
        lines += [f"  {finding.candidate}: {finding.reason}" for finding in found]
    return IncompatibleError("\n".join(lines), hint=_hint(survey, missing))


def _hint(survey: _Survey, missing: Sequence[str]) -> str:
    found = [finding for component in missing for finding in survey.findings.get(component, [])]
    if not found:
        return f"the model has plans of {', '.join(sorted(survey.findings))}"
    nearest = max(found, key=lambda finding: finding.stage)
    hints = [f"nearest is {nearest.candidate}: {nearest.reason}"]
    if survey.situation.gpu is not None and nearest.stage is Stage.GPU:
        hints.append(f"a plan for this GPU is built with --target {_target_for(survey.situation.gpu)}")
    if all(finding.candidate.facts.kind != Kind.PORTABLE for finding in found):
        hints.append("a plan that runs on any machine is built with --target portable")
    return "; ".join(hints)


def _target_for(gpu: Gpu) -> str:
    prefix = "rtx" if gpu.compute_capability in RTX_COMPUTE_CAPABILITIES else "trt"
    return f"{prefix}-{sm_name(gpu.compute_capability)}"
