"""Properties of the resolver, against a second statement of NVIDIA's rules that shares no code with it."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from wszoo.digest import Digest
from wszoo.errors import IncompatibleError
from wszoo.gpu.machine import Gpu, Machine, Runtime
from wszoo.gpu.request import GpuRequest, How
from wszoo.resolver import Candidate, Resolution, resolve
from wszoo.schema.facts import PlanFacts
from wszoo.schema.plan import HardwareCompatibility, Kind, Target

COMPONENTS = ("unet", "vae")
BACKENDS = ("tensorrt", "tensorrt_rtx", "onnxruntime", "from_a_plugin")
VERSIONS = ("", "1.7.1.116", "1.8.0.1", "10.13.0.35", "11.0.0.1", "11.4.1.20")
CAPABILITIES = ("7.5", "8.6", "8.7", "8.9", "9.0", "12.0")
SKUS = ("", "GeForce RTX 4090", "GeForce RTX 3090", "H200")
PROFILES = ("sd", "hd")

GPUS = st.sampled_from([
    Gpu(name="NVIDIA GeForce RTX 4090", compute_capability="8.9", memory_bytes=24 << 30),
    Gpu(name="NVIDIA GeForce RTX 3090", compute_capability="8.6", memory_bytes=24 << 30),
    Gpu(name="Quadro RTX 8000", compute_capability="7.5", memory_bytes=48 << 30),
    Gpu(name="NVIDIA H200", compute_capability="9.0", memory_bytes=141 << 30),
    Gpu(name="sm89", compute_capability="8.9"),
])  # fmt: skip
MACHINES = st.builds(
    Machine,
    os=st.sampled_from(["linux", "windows"]),
    arch=st.sampled_from(["x86_64", "aarch64"]),
    gpus=st.lists(GPUS, max_size=3).map(tuple),
    problem=st.sampled_from(["", "the driver is gone"]),
)
RUNTIMES = st.lists(
    st.builds(
        Runtime,
        backend=st.sampled_from([*BACKENDS, "tensorrt_lean"]),
        version=st.sampled_from(VERSIONS[1:]),
        devices=st.sampled_from([("cuda",), ("cpu",), ("cuda", "cpu"), ()]),
    ),
    max_size=5,
)
REQUESTS = st.one_of(
    st.just(GpuRequest()), st.just(GpuRequest(how=How.NONE)), st.builds(GpuRequest, how=st.just(How.GIVEN), gpu=GPUS)
)


def facts(versions, capabilities, skus):
    targets = st.builds(
        Target,
        name=st.just("target"),
        backend=st.sampled_from(BACKENDS),
        version=versions,
        compute_capabilities=st.lists(capabilities, max_size=3, unique=True).map(tuple),
        sku=skus,
        os=st.sampled_from(["", "linux", "windows"]),
        arch=st.sampled_from(["", "x86_64"]),
        hardware_compatibility=st.sampled_from(HardwareCompatibility),
        version_compatible=st.booleans(),
        lean_excluded=st.sampled_from([True, msgspec.UNSET]),
    )
    return st.builds(
        PlanFacts,
        component=st.sampled_from(COMPONENTS),
        kind=st.sampled_from(Kind),
        target=targets,
        profiles=st.lists(st.sampled_from(PROFILES), max_size=2, unique=True).map(tuple),
        engine_digest=st.just(Digest.of(b"engine")),
        plan_digest=st.just(Digest.of(b"plan")),
        engine_bytes=st.just(1000),
        plan_bytes=st.integers(0, 3),
    )


def numbered(some_facts):
    return [Candidate(digest=Digest.of(b"%d" % number), facts=one) for number, one in enumerate(some_facts)]


FACTS = facts(st.sampled_from(VERSIONS), st.sampled_from(CAPABILITIES), st.sampled_from(SKUS))
PLANS = st.lists(FACTS, min_size=1, max_size=12).map(numbered)
HOSTILE = st.lists(facts(st.text(), st.text(), st.text()), max_size=5).map(numbered)
OPTIONS = st.fixed_dictionaries({
    "components": st.sampled_from([None, ("unet",), ("vae", "unet"), ("missing",)]),
    "backend": st.sampled_from([None, "tensorrt_rtx", "onnxruntime"]),
    "profile": st.sampled_from([None, *PROFILES]),
})  # fmt: skip


def outcome(*arguments, **options):
    """A resolution or the text of an IncompatibleError; any other exception fails the test."""
    try:
        return resolve(*arguments, **options)
    except IncompatibleError as error:
        return str(error)


def numbers(version):
    return [int(part) for part in version.split(".")]


def loads_no_code(target):
    return target.backend != "tensorrt" or not target.version_compatible or target.lean_excluded is True


def product(name):
    return name.removeprefix("NVIDIA ")


def classic_hardware_runs(target, gpu):
    exact = product(target.sku) == product(gpu.name)
    if exact and not target.compute_capabilities:
        return True
    if target.hardware_compatibility is HardwareCompatibility.AMPERE_PLUS:
        return gpu.compute_capability != "7.5"
    if gpu.compute_capability not in target.compute_capabilities:
        return False
    return exact or not target.sku or target.hardware_compatibility is HardwareCompatibility.SAME_COMPUTE_CAPABILITY


def platform_runs(target, machine):
    return target.arch in {"", machine.arch} and (target.backend == "tensorrt_rtx" or target.os in {"", machine.os})


def version_runs(target, runtimes):
    versions = [runtime.version for runtime in runtimes if runtime.backend == target.backend]
    if target.backend == "tensorrt" and target.version_compatible:
        versions += [runtime.version for runtime in runtimes if runtime.backend == "tensorrt_lean"]
    if target.backend == "onnxruntime":
        return any(not target.version or numbers(target.version) <= numbers(version) for version in versions)
    return any(target.version in {"", version} for version in versions)


def hardware_runs(target, gpu):
    if gpu is None:
        return False
    if target.backend == "tensorrt":
        return classic_hardware_runs(target, gpu)
    if product(target.sku) not in {"", product(gpu.name)}:
        return False
    unlimited = not target.compute_capabilities and (target.backend != "tensorrt_rtx" or bool(target.sku))
    return unlimited or gpu.compute_capability in target.compute_capabilities


def may_run(plan, machine, gpu, runtimes):
    """NVIDIA's and ONNX Runtime's rules, for this machine."""
    hardware = plan.kind is Kind.PORTABLE or hardware_runs(plan.target, gpu)
    fits = hardware and platform_runs(plan.target, machine) and version_runs(plan.target, runtimes)
    return fits and loads_no_code(plan.target)


@given(plans=PLANS, runtimes=RUNTIMES, case=st.tuples(MACHINES, REQUESTS, OPTIONS), data=st.data())
def test_the_order_of_plans_and_runtimes_changes_nothing(plans, runtimes, case, data):
    machine, request, options = case
    shuffled = data.draw(st.permutations(plans))
    others = data.draw(st.permutations(runtimes))
    expected = outcome(plans, machine, runtimes, request, **options)
    found = outcome(shuffled, machine, others, request, **options)
    assert isinstance(found, str) == isinstance(expected, str)
    if isinstance(expected, Resolution) and isinstance(found, Resolution):
        assert [v.candidate for v in found.verdicts] == [v.candidate for v in expected.verdicts]
        assert [v.rank for v in found.verdicts] == [v.rank for v in expected.verdicts]
    assert outcome(shuffled, machine, runtimes, request, **options) == expected


@given(plans=PLANS, machine=MACHINES, runtimes=RUNTIMES, how=st.sampled_from([How.AUTO, How.NONE]), options=OPTIONS)
def test_a_plan_is_accepted_exactly_when_it_may_run(plans, machine, runtimes, how, options):
    found = outcome(plans, machine, runtimes, GpuRequest(how=how), **options)
    if isinstance(found, str):
        return
    for verdict in found.verdicts:
        plan = verdict.candidate.facts
        wanted = options["components"] is None or plan.component in options["components"]
        profiled = plan.kind is Kind.PORTABLE or not plan.profiles or options["profile"] in {None, *plan.profiles}
        asked = wanted and profiled and options["backend"] in {None, plan.target.backend}
        assert verdict.accepted == (asked and may_run(plan, machine, found.gpu, runtimes))


@given(plans=PLANS, machine=MACHINES, runtimes=RUNTIMES, options=OPTIONS)
def test_it_fails_only_when_some_component_cannot_run_on_any_gpu(plans, machine, runtimes, options):
    found = outcome(plans, machine, runtimes, GpuRequest(), **options | {"backend": None, "profile": None})
    wanted = options["components"] or {plan.facts.component for plan in plans}
    gpus = machine.gpus or (None,)
    complete = any(
        all(
            any(may_run(plan.facts, machine, gpu, runtimes) for plan in plans if plan.facts.component == component)
            for component in wanted
        )
        for gpu in gpus
    )
    assert isinstance(found, Resolution) == complete


@given(plans=HOSTILE, machine=MACHINES, runtimes=RUNTIMES, request=REQUESTS, options=OPTIONS)
def test_any_facts_end_in_a_resolution_or_an_incompatible_error(plans, machine, runtimes, request, options):
    found = outcome(plans, machine, runtimes, request, **options)
    assert isinstance(found, Resolution | str)


@given(plans=PLANS, machine=MACHINES, runtimes=RUNTIMES, request=REQUESTS, options=OPTIONS)
def test_one_plan_of_each_component_is_taken_and_none_better_was_accepted(plans, machine, runtimes, request, options):
    found = outcome(plans, machine, runtimes, request, **options)
    if isinstance(found, str):
        return
    assert len(found.verdicts) == len(plans)
    assert all(verdict.reason for verdict in found.verdicts)
    taken = {verdict.candidate.facts.component: verdict for verdict in found.verdicts if verdict.taken}
    assert {component: verdict.candidate for component, verdict in taken.items()} == {
        component: choice.candidate for component, choice in found.choices.items()
    }
    for verdict in found.verdicts:
        if verdict.accepted and not verdict.taken:
            assert verdict.rank > taken[verdict.candidate.facts.component].rank


@given(plans=PLANS, machine=MACHINES, runtimes=RUNTIMES, request=REQUESTS, data=st.data())
def test_a_plan_that_is_refused_changes_no_choice(plans, machine, runtimes, request, data):
    found = outcome(plans, machine, runtimes, request, components=("unet",))
    if isinstance(found, str):
        return
    refused = [verdict.candidate for verdict in found.verdicts if not verdict.accepted]
    left_out = data.draw(st.lists(st.sampled_from(refused), unique_by=id) if refused else st.just([]))
    again = resolve([plan for plan in plans if plan not in left_out], machine, runtimes, request, components=("unet",))
    assert again.gpu == found.gpu
    for before, after in zip(found.choices.values(), again.choices.values(), strict=True):
        assert (before.candidate, before.device, before.runtime) == (after.candidate, after.device, after.runtime)


@given(plans=PLANS, machine=MACHINES, gpu=GPUS, runtimes=RUNTIMES)
def test_a_plan_for_the_exact_product_and_version_is_always_preferred(plans, machine, gpu, runtimes):
    machine = Machine(os=machine.os, arch=machine.arch, gpus=(gpu,))
    target = Target(
        name="exact",
        backend="tensorrt",
        version="10.9.0.34",
        compute_capabilities=(gpu.compute_capability,),
        sku=gpu.name,
    )
    facts_of_it = PlanFacts(
        component="unet",
        kind=Kind.NATIVE,
        target=target,
        engine_digest=Digest.of(b"engine"),
        plan_digest=Digest.of(b"plan"),
        engine_bytes=1000,
        plan_bytes=1 << 30,
    )
    exact = Candidate(digest=Digest.of(b"exact"), facts=facts_of_it)
    runtimes = [*runtimes, Runtime(backend="tensorrt", version="10.9.0.34", devices=("cuda",))]
    found = resolve([*plans, exact], machine, runtimes, GpuRequest(), components=("unet",))
    choice = found.choices["unet"].candidate.facts.target
    assert product(choice.sku) == product(gpu.name)
    assert choice.version in {"", *(runtime.version for runtime in runtimes)}
