from __future__ import annotations

import pytest

from wszoo.digest import Digest
from wszoo.errors import IncompatibleError, UsageError
from wszoo.gpu.machine import Gpu, Machine, Runtime
from wszoo.gpu.request import GpuRequest, parse_gpu
from wszoo.resolver import Candidate, resolve
from wszoo.schema.decode import encode
from wszoo.schema.facts import PlanFacts
from wszoo.schema.plan import HardwareCompatibility, Kind, Target

AUTO = GpuRequest()
NO_GPU = parse_gpu("none")
RTX_4090 = Gpu(name="NVIDIA GeForce RTX 4090", compute_capability="8.9", memory_bytes=24 << 30)
H200 = Gpu(name="NVIDIA H200", compute_capability="9.0", memory_bytes=141 << 30)
DESKTOP = Machine(os="windows", arch="x86_64", gpus=(RTX_4090,), driver="580.1", cuda_driver="13.0")
SERVER = Machine(os="linux", arch="x86_64", gpus=(H200,), driver="580.1", cuda_driver="13.0")
BARE = Machine(os="linux", arch="x86_64", problem="the NVIDIA driver is not installed (NVML library not found)")
RTX = Runtime(backend="tensorrt_rtx", version="1.7.1.116", devices=("cuda",))
TRT = Runtime(backend="tensorrt", version="11.4.1.20", devices=("cuda",))
LEAN = Runtime(backend="tensorrt_lean", version="11.4.1.20", devices=("cuda",))
ORT = Runtime(backend="onnxruntime", version="1.32.0", devices=("cpu",))
ORT_CUDA = Runtime(backend="onnxruntime", version="1.32.0", devices=("cuda", "cpu"))
EVERYTHING = (RTX, TRT, ORT_CUDA)


def plan(name, backend, component="unet", *, kind=Kind.SPLICE, profiles=(), size=1000, **target):
    facts = PlanFacts(
        component=component,
        kind=kind,
        target=Target(name=name, backend=backend, **target),
        profiles=profiles,
        engine_digest=Digest.of(b"engine"),
        plan_digest=Digest.of(b"plan"),
        engine_bytes=1 << 30,
        plan_bytes=size,
    )
    return Candidate(digest=Digest.of(f"{name} {component} {facts}".encode()), facts=facts)


def rtx(*capabilities, version="1.7.1.116", **facts):
    name = "-".join(["rtx", *("sm" + capability.replace(".", "") for capability in capabilities)])
    return plan(name, "tensorrt_rtx", version=version, compute_capabilities=capabilities, **facts)


def trt(*capabilities, name="trt", version="11.4.1.20", os="windows", arch="x86_64", **facts):
    return plan(name, "tensorrt", version=version, os=os, arch=arch, compute_capabilities=capabilities, **facts)


def portable(**facts):
    return plan("portable", "onnxruntime", kind=Kind.PORTABLE, **facts)


def name_taken(resolution, component="unet"):
    return resolution.choices[component].candidate.facts.target.name


EXACT = trt("8.9", name="exact", sku="GeForce RTX 4090")
SAME_CAPABILITY = trt("8.9", name="same capability")
SAME_LEVEL = trt("8.9", name="level", hardware_compatibility=HardwareCompatibility.SAME_COMPUTE_CAPABILITY)
AMPERE_PLUS = trt("8.6", name="ampere+", hardware_compatibility=HardwareCompatibility.AMPERE_PLUS)
LEANLY = trt("8.9", name="leanly", version_compatible=True, lean_excluded=True)
LADDER = [EXACT, SAME_CAPABILITY, SAME_LEVEL, AMPERE_PLUS, LEANLY, rtx("8.9"), portable()]


@pytest.mark.parametrize("step", range(len(LADDER)))
def test_the_order_of_preference(step):
    resolution = resolve(LADDER[step:], DESKTOP, EVERYTHING, AUTO)
    assert resolution.choices["unet"].candidate == LADDER[step]
    assert [verdict.candidate for verdict in resolution.verdicts] == LADDER[step:]
    assert [verdict.taken for verdict in resolution.verdicts] == [True] + [False] * (len(LADDER) - step - 1)


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (EXACT, "built for exactly this GPU, GeForce RTX 4090"),
        (SAME_CAPABILITY, "built for this GPU's compute capability, 8.9"),
        (SAME_LEVEL, "built for this GPU's compute capability, 8.9"),
        (AMPERE_PLUS, "built for compute capability 8.0 and later"),
        (LEANLY, "version-compatible: runs on tensorrt 11.4.1.20"),
        (rtx("8.6", "8.9"), "built for this GPU's compute capability, 8.9"),
        (portable(), "portable, onnxruntime 1.32.0 on CUDA"),
    ],
)
def test_why_a_plan_was_taken(candidate, reason):
    choice = resolve([candidate], DESKTOP, EVERYTHING, AUTO).choices["unet"]
    assert (choice.reason, choice.device) == (reason, "cuda")


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (rtx("8.6"), "built for compute capability 8.6, this GPU has 8.9"),
        (rtx("8.9", version="1.8.0.2"), "needs tensorrt_rtx 1.8.0.2, tensorrt_rtx 1.7.1.116 is installed"),
        (trt("8.9", version="11.4.1.19"), "needs tensorrt 11.4.1.19, tensorrt 11.4.1.20 is installed"),
        (trt("8.9", os="linux"), "built for linux, this machine runs windows"),
        (trt("8.9", arch="aarch64"), "built for aarch64, this machine is x86_64"),
        (trt("8.9", sku="NVIDIA L40S"), "built for NVIDIA L40S alone, this GPU is NVIDIA GeForce RTX 4090"),
    ],
)
def test_why_a_plan_was_refused(candidate, reason):
    resolution = resolve([candidate, portable()], DESKTOP, EVERYTHING, AUTO)
    refused = resolution.verdicts[-1]
    assert (refused.candidate, refused.accepted, refused.taken, refused.rank) == (candidate, False, False, None)
    assert refused.reason == reason
    assert resolution.choices["unet"].reason == (
        f"portable, onnxruntime 1.32.0 on CUDA; the nearest better plan, {candidate}, does not run here: {reason}"
    )


@pytest.mark.parametrize(
    ("better", "worse", "why"),
    [
        (EXACT, rtx("8.9"), "it was built for exactly this GPU"),
        (rtx("8.9"), portable(), "it is compiled for this GPU"),
        (trt("8.9", version="", size=1), trt("8.9", version="", size=2), "it is smaller"),
        (SAME_LEVEL, LEANLY, "TensorRT built it for every GPU of this compute capability"),
        (AMPERE_PLUS, LEANLY, "it is not version-compatible, which costs speed"),
        (portable(version="1.32.0", size=9), portable(version="1.22.0"), "it was built with a newer version"),
        (
            trt("8.9", version_compatible=True, lean_excluded=True, sku="GeForce RTX 4090", size=9999),
            LEANLY,
            "it was built for this GPU more closely",
        ),
    ],
)
def test_why_a_plan_that_fits_was_not_taken(better, worse, why):
    resolution = resolve([worse, better], DESKTOP, EVERYTHING, AUTO)
    assert resolution.verdicts[1].accepted
    assert resolution.verdicts[1].reason == f"fits, but {better} is preferred: {why}"


def test_equal_plans_are_told_apart_by_digest():
    twins = sorted([rtx("8.9"), rtx("8.6", "8.9")], key=lambda candidate: candidate.digest)
    resolution = resolve(twins, DESKTOP, EVERYTHING, AUTO)
    assert resolution.choices["unet"].candidate == twins[0]
    assert resolution.verdicts[1].reason.endswith("of equal plans the first digest is taken")


def test_the_runtime_to_load_with_is_part_of_the_choice():
    assert resolve([LEANLY], DESKTOP, [LEAN], AUTO).choices["unet"].runtime == LEAN
    assert resolve([LEANLY], DESKTOP, [LEAN, TRT], AUTO).choices["unet"].runtime == TRT
    assert resolve([rtx("8.9")], DESKTOP, EVERYTHING, AUTO).choices["unet"].runtime == RTX


def test_a_machine_without_gpu_falls_back_to_the_cpu_and_says_why():
    resolution = resolve([rtx("8.9"), portable()], BARE, [RTX, ORT], AUTO)
    choice = resolution.choices["unet"]
    assert (choice.device, choice.runtime, resolution.gpu) == ("cpu", ORT, None)
    assert choice.reason == (
        "portable, onnxruntime 1.32.0 on the CPU: the NVIDIA driver is not installed (NVML library not found)"
    )
    assert resolution.verdicts[1].reason == ("needs a GPU: the NVIDIA driver is not installed (NVML library not found)")


def test_a_missing_rtx_runtime_is_named_with_the_command_that_installs_it():
    choice = resolve([rtx("8.9"), portable()], DESKTOP, [ORT_CUDA], AUTO).choices["unet"]
    assert choice.device == "cuda"
    assert choice.reason.endswith('does not run here: tensorrt_rtx is not installed: pip install "wszoo[rtx]"')


def test_the_nearest_miss_is_the_plan_that_came_furthest():
    misses = [rtx("8.6"), rtx("8.9"), trt("8.9", os="linux"), rtx("7.5"), rtx("8.0"), rtx("12.0"), rtx("12.1")]
    choice = resolve([*misses, portable()], DESKTOP, [ORT], AUTO).choices["unet"]
    assert f"the nearest better plan, {misses[1]}, does not run here" in choice.reason


def test_an_onnxruntime_without_cuda_runs_on_the_cpu():
    choice = resolve([portable()], DESKTOP, [ORT], AUTO).choices["unet"]
    assert choice.device == "cpu"
    assert choice.reason == "portable, onnxruntime 1.32.0 on the CPU: the one installed cannot use CUDA"


def test_rtx_plans_do_not_fit_an_h200_unless_they_list_it():
    resolution = resolve([rtx("8.0", "8.6", "8.9", "12.0"), portable()], SERVER, EVERYTHING, AUTO)
    assert name_taken(resolution) == "portable"
    assert name_taken(resolve([rtx("8.9", "9.0"), portable()], SERVER, EVERYTHING, AUTO)) == "rtx-sm89-sm90"


def test_asking_for_no_gpu_ignores_the_one_there_is():
    resolution = resolve([rtx("8.9"), portable()], DESKTOP, EVERYTHING, NO_GPU)
    choice = resolution.choices["unet"]
    assert (choice.device, resolution.gpu) == ("cpu", None)
    assert choice.reason == "portable, onnxruntime 1.32.0 on the CPU: no GPU was asked for"
    assert resolution.verdicts[1].reason == "needs a GPU: no GPU was asked for"


def test_a_named_gpu_needs_nothing_of_this_machine():
    candidates = [trt("8.9", sku="GeForce RTX 4090"), rtx("8.9"), portable()]
    resolution = resolve(candidates, BARE, [], parse_gpu("RTX 4090"))
    choice = resolution.choices["unet"]
    assert (choice.candidate, choice.device, choice.runtime) == (candidates[0], "cuda", None)
    assert choice.reason == "built for exactly this GPU, GeForce RTX 4090; needs tensorrt 11.4.1.20 on windows"
    assert [verdict.candidate for verdict in resolution.verdicts] == candidates


def test_a_named_gpu_without_a_plan_of_its_own_gets_the_portable_one():
    choice = resolve([rtx("8.9"), portable()], BARE, [], parse_gpu("sm90")).choices["unet"]
    assert choice.device == "cuda"
    assert choice.reason.startswith("portable; needs onnxruntime with CUDA; the nearest better plan, rtx-sm89")


def test_a_version_compatible_plan_for_a_named_gpu_says_the_version_that_it_needs():
    plan = trt("8.9", version="10.13.0.35", version_compatible=True, lean_excluded=True)
    choice = resolve([plan], DESKTOP, EVERYTHING, parse_gpu("RTX 4090")).choices["unet"]
    assert choice.reason == (
        "version-compatible; needs tensorrt_lean 10.13.0.35, or tensorrt of that version on windows"
    )
    assert choice.runtime is None


def test_a_portable_plan_for_a_named_gpu_is_not_loaded_without_cuda():
    assert resolve([portable()], DESKTOP, [ORT], parse_gpu("RTX 4090")).choices["unet"].runtime is None
    assert resolve([portable()], DESKTOP, [ORT_CUDA], parse_gpu("RTX 4090")).choices["unet"].runtime == ORT_CUDA


def test_a_compute_capability_is_no_exact_product():
    candidates = [EXACT, rtx("8.9")]
    resolution = resolve(candidates, BARE, [], parse_gpu("sm89"))
    assert name_taken(resolution) == "rtx-sm89"
    assert resolution.verdicts[1].reason == "built for GeForce RTX 4090 alone, this GPU is sm89"


def test_a_named_gpu_prefers_what_this_machine_can_run():
    windows, linux = trt("8.9", name="for windows", version="11.5.0.1"), trt("8.9", name="for linux", os="linux")
    resolution = resolve([windows, linux], SERVER, EVERYTHING, parse_gpu("sm89"))
    assert name_taken(resolution) == "for linux"
    assert resolution.verdicts[1].reason.endswith("is preferred: this machine can run it as it is")


def test_with_several_gpus_the_one_with_the_better_plans_is_taken():
    machine = Machine(os="linux", arch="x86_64", gpus=(H200, RTX_4090, RTX_4090))
    assert resolve([rtx("8.9"), portable()], machine, EVERYTHING, AUTO).gpu == RTX_4090
    assert resolve([portable()], machine, EVERYTHING, AUTO).gpu == H200


def test_a_backend_may_be_insisted_on():
    resolution = resolve([EXACT, rtx("8.9")], DESKTOP, EVERYTHING, AUTO, backend="tensorrt_rtx")
    assert name_taken(resolution) == "rtx-sm89"
    assert resolution.verdicts[1].reason == "its backend is tensorrt, tensorrt_rtx was asked for"


def test_a_profile_may_be_insisted_on():
    small, large = rtx("8.9", profiles=("sd",)), rtx("8.9", profiles=("sd", "hd"), size=9000)
    resolution = resolve([small, large], DESKTOP, EVERYTHING, AUTO, profile="hd")
    assert resolution.choices["unet"].candidate == large
    assert resolution.verdicts[1].reason == "its profiles are sd; hd was asked for"


def test_plans_of_fixed_shapes_and_portable_ones_serve_any_profile_but_come_later():
    named, fixed = rtx("8.9", profiles=("hd",)), trt("8.9", name="fixed shapes")
    resolution = resolve([portable(), fixed, named], DESKTOP, EVERYTHING, AUTO, profile="hd")
    assert [verdict.candidate for verdict in resolution.verdicts] == [named, fixed, portable()]
    assert resolution.verdicts[1].reason.endswith("is preferred: it has the profile asked for")
    assert name_taken(resolve([portable(profiles=("sd",))], DESKTOP, EVERYTHING, AUTO, profile="hd")) == "portable"


def test_every_component_gets_a_plan_of_its_own():
    candidates = [rtx("8.9"), portable(), portable(component="vae")]
    resolution = resolve(candidates, DESKTOP, EVERYTHING, AUTO)
    assert list(resolution.choices) == ["unet", "vae"]
    assert (name_taken(resolution), name_taken(resolution, "vae")) == ("rtx-sm89", "portable")


def test_only_the_components_asked_for_must_resolve():
    candidates = [rtx("8.6"), portable(component="vae")]
    resolution = resolve(candidates, DESKTOP, EVERYTHING, AUTO, components=["vae"])
    assert list(resolution.choices) == ["vae"]
    assert resolution.verdicts[1].reason == "the component unet was not asked for"


def test_components_are_given_in_the_order_asked_for():
    candidates = [portable(), portable(component="vae")]
    assert list(resolve(candidates, DESKTOP, [ORT], AUTO, components=["vae", "unet", "vae"]).choices) == ["vae", "unet"]


def test_a_component_without_a_fitting_plan_lists_them_all_with_reasons():
    candidates = [rtx("8.6"), rtx("7.5"), portable(component="vae")]
    with pytest.raises(IncompatibleError) as raised:
        resolve(candidates, SERVER, EVERYTHING, AUTO)
    lines = raised.value.message.splitlines()
    assert lines[0] == "no plan of unet fits NVIDIA H200 (compute capability 9.0):"
    assert sorted(lines[1:]) == sorted(
        f"  {candidate}: built for compute capability {capability}, this GPU has 9.0"
        for candidate, capability in zip(candidates, ("8.6", "7.5"), strict=False)
    )
    assert "--target trt-sm90" in raised.value.hint
    assert "--target portable" in raised.value.hint


def test_a_portable_plan_without_onnxruntime_names_the_command_that_installs_it():
    with pytest.raises(IncompatibleError) as raised:
        resolve([portable()], BARE, [], AUTO)
    assert raised.value.message.startswith("no plan of unet fits this machine (linux x86_64):")
    assert raised.value.hint.endswith('onnxruntime is not installed: pip install "wszoo[ort]"')


def test_an_unknown_component_lists_those_there_are():
    with pytest.raises(IncompatibleError, match="there is no plan of unett") as raised:
        resolve([portable(), portable(component="vae")], BARE, [ORT], AUTO, components=["unett"])
    assert raised.value.hint == "the model has plans of unet, vae"


def test_a_model_without_plans_cannot_be_resolved():
    with pytest.raises(IncompatibleError, match="there is no plan to choose from"):
        resolve([], BARE, [ORT], AUTO)


def test_a_plan_that_is_offered_twice_is_judged_once():
    assert len(resolve([portable(), portable()], BARE, [ORT], AUTO).verdicts) == 1


@pytest.mark.parametrize("how", ["digest", "target"])
def test_a_plan_to_avoid_makes_room_for_the_next_best(how):
    best, next_best = rtx("8.9"), portable()
    name = str(best.digest) if how == "digest" else best.facts.target.name
    resolution = resolve([best, next_best], DESKTOP, EVERYTHING, AUTO, avoid=[name])
    assert resolution.choices["unet"].candidate == next_best
    assert [verdict.reason for verdict in resolution.verdicts if verdict.candidate == best] == ["it is to be avoided"]


def test_avoiding_every_plan_says_so():
    with pytest.raises(IncompatibleError, match="it is to be avoided"):
        resolve([portable()], DESKTOP, EVERYTHING, AUTO, avoid=["portable"])


def test_a_misspelt_plan_to_avoid_lists_those_that_there_are():
    with pytest.raises(UsageError, match="no plan 'rtx-sm98' to avoid") as raised:
        resolve([rtx("8.9"), portable()], DESKTOP, EVERYTHING, AUTO, avoid=["rtx-sm98"])
    assert "rtx-sm89" in raised.value.hint


def test_a_native_plan_is_ranked_like_any_other_of_its_target():
    native = trt("8.9", name="native", kind=Kind.NATIVE, sku="GeForce RTX 4090")
    assert name_taken(resolve([native, rtx("8.9"), portable()], DESKTOP, EVERYTHING, AUTO)) == "native"


@pytest.mark.parametrize(
    ("runtimes", "taken"),
    [
        ([Runtime(backend="tensorrt_lean", version="10.13.0.35", devices=("cuda",)), TRT, ORT], "lean excluded"),
        ([Runtime(backend="tensorrt", version="10.13.0.35", devices=("cuda",)), ORT], "lean excluded"),
        ([LEAN, TRT, ORT], "portable"),
    ],
)
def test_a_plan_without_its_lean_runtime_needs_the_one_of_its_version(runtimes, taken):
    compatible = {"version_compatible": True, "lean_excluded": True}
    native = trt("8.9", name="lean excluded", version="10.13.0.35", kind=Kind.NATIVE, **compatible)
    resolution = resolve([native, portable()], DESKTOP, runtimes, AUTO)
    assert name_taken(resolution) == taken
    if taken == "portable":
        assert "needs tensorrt_lean 10.13.0.35, or tensorrt of that version" in resolution.verdicts[-1].reason


@pytest.mark.parametrize("gpu", ["auto", "RTX 4090"])
def test_a_plan_with_its_lean_runtime_inside_is_never_offered_and_the_reason_says_why(gpu):
    """No runtime loads it, its builder's own neither, before it may run host code; wszoo never lets it."""
    carrying = trt("8.9", name="carrying", version=TRT.version, version_compatible=True)
    resolution = resolve([carrying, portable()], DESKTOP, EVERYTHING, parse_gpu(gpu))
    assert name_taken(resolution) == "portable"
    assert resolution.verdicts[-1].reason == (
        "it carries its lean runtime as host code, which wszoo never lets run; built with EXCLUDE_LEAN_RUNTIME it "
        f"would run on an installed tensorrt_lean {TRT.version}"
    )


def test_what_a_target_does_not_say_is_not_encoded():
    """Else every plan that was published before would have another digest."""
    assert b"lean_excluded" not in encode(Target(name="rtx-sm89", backend="tensorrt_rtx"))
