from __future__ import annotations

import pytest

from wszoo.gpu.fit import Tier, carries_code, fit_gpu, fit_platform, fit_runtime, version_key
from wszoo.gpu.machine import Gpu, Runtime
from wszoo.schema.plan import HardwareCompatibility, Target

LEVELS = HardwareCompatibility


def gpu(capability, name="NVIDIA GeForce RTX 4090"):
    return Gpu(name=name, compute_capability=capability)


def target(backend="tensorrt", version="11.4.1.20", **facts):
    return Target(name="a target", backend=backend, version=version, **facts)


@pytest.mark.parametrize(
    ("facts", "capability", "expected"),
    [
        ({"compute_capabilities": ("8.9",)}, "8.9", Tier.COMPUTE_CAPABILITY),
        ({"compute_capabilities": ("8.6",)}, "8.9", "built for compute capability 8.6, this GPU has 8.9"),
        ({"compute_capabilities": ("8.6", "8.9")}, "8.9", Tier.COMPUTE_CAPABILITY),
        ({"compute_capabilities": ("8.9",), "sku": "RTX 4090"}, "8.9", "built for RTX 4090 alone, this GPU is"),
        ({"compute_capabilities": ("8.9",), "sku": "GeForce RTX 4090"}, "8.9", Tier.EXACT_SKU),
        ({"sku": "GeForce RTX 4090"}, "8.9", Tier.EXACT_SKU),
        ({"compute_capabilities": ("8.6",), "sku": "GeForce RTX 4090"}, "8.9", "built for compute capability 8.6"),
        ({}, "8.9", "built for a compute capability that it does not name, this GPU has 8.9"),
        (
            {"compute_capabilities": ("8.9",), "hardware_compatibility": LEVELS.SAME_COMPUTE_CAPABILITY},
            "8.9",
            Tier.SAME_COMPUTE_CAPABILITY,
        ),
        (
            {"compute_capabilities": ("8.9",), "sku": "L40", "hardware_compatibility": LEVELS.SAME_COMPUTE_CAPABILITY},
            "8.9",
            Tier.SAME_COMPUTE_CAPABILITY,
        ),
        (
            {"compute_capabilities": ("8.6",), "hardware_compatibility": LEVELS.SAME_COMPUTE_CAPABILITY},
            "8.9",
            "built for compute capability 8.6, this GPU has 8.9",
        ),
        ({"hardware_compatibility": LEVELS.AMPERE_PLUS}, "8.0", Tier.AMPERE_PLUS),
        ({"compute_capabilities": ("8.6",), "hardware_compatibility": LEVELS.AMPERE_PLUS}, "12.0", Tier.AMPERE_PLUS),
        ({"hardware_compatibility": LEVELS.AMPERE_PLUS}, "10.0", Tier.AMPERE_PLUS),
        (
            {"hardware_compatibility": LEVELS.AMPERE_PLUS},
            "7.5",
            "built for compute capability 8.0 and later, this GPU has 7.5",
        ),
        ({"hardware_compatibility": LEVELS.AMPERE_PLUS}, "8.7", "built for Ampere and later but not for Jetson"),
        ({"backend": "tensorrt_rtx", "compute_capabilities": ("8.6", "8.9", "12.0")}, "8.9", Tier.RTX),
        ({"backend": "tensorrt_rtx", "compute_capabilities": ("8.9",)}, "9.0", "built for compute capability 8.9"),
        ({"backend": "tensorrt_rtx"}, "8.9", "built for a compute capability that it does not name"),
        (
            {"backend": "tensorrt_rtx", "hardware_compatibility": LEVELS.AMPERE_PLUS, "compute_capabilities": ("8.6",)},
            "8.9",
            "built for compute capability 8.6, this GPU has 8.9",
        ),
        ({"backend": "from_a_plugin"}, "8.9", Tier.RTX),
        ({"backend": "from_a_plugin", "compute_capabilities": ("9.0",)}, "8.9", "built for compute capability 9.0"),
    ],
)
def test_hardware_rules(facts, capability, expected):
    found = fit_gpu(target(**facts), gpu(capability))
    assert found is expected if isinstance(expected, Tier) else str(found).startswith(expected)


@pytest.mark.parametrize("compatible", [False, True])
@pytest.mark.parametrize(
    ("built", "installed", "runs"),
    [
        ("11.4.1.20", "11.4.1.20", True),
        ("11.4.1.20", "11.4.1.21", False),
        ("11.0.0.1", "11.4.1.20", False),
        ("11.4.1.20", "11.0.0.1", False),
        ("10.13.0.35", "11.4.1.20", False),
        ("", "11.4.1.20", True),
        ("nonsense", "11.4.1.20", False),
        ("11.4.1.20", "nonsense", False),
    ],
)
def test_a_plan_needs_the_version_that_built_it_also_when_its_lean_runtime_was_left_out(
    built, installed, runs, compatible
):
    lean = {"version_compatible": True, "lean_excluded": True} if compatible else {}
    plan = target(version=built, compute_capabilities=("8.9",), **lean)
    found = fit_runtime(plan, [Runtime(backend="tensorrt", version=installed)])
    if runs:
        assert found == Runtime(backend="tensorrt", version=installed)
    else:
        wanted = f"tensorrt_lean {built}, or tensorrt of that version" if compatible else f"tensorrt {built}"
        assert found == f"needs {wanted}, tensorrt {installed} is installed"


@pytest.mark.parametrize(
    ("backend", "built", "installed", "reason"),
    [
        ("tensorrt_rtx", "1.7.1.116", "1.7.1.116", ""),
        ("tensorrt_rtx", "1.7.1.116", "1.8.0.1", "needs tensorrt_rtx 1.7.1.116, tensorrt_rtx 1.8.0.1 is installed"),
        ("onnxruntime", "1.22.0", "1.32.0", ""),
        ("onnxruntime", "", "1.22.0", ""),
        ("onnxruntime", "1.32.0", "1.22.0", "needs onnxruntime 1.32.0 or later, onnxruntime 1.22.0 is installed"),
        ("from_a_plugin", "2", "2", ""),
        ("from_a_plugin", "2", "3", "needs from_a_plugin 2, from_a_plugin 3 is installed"),
    ],
)
def test_other_backends_versions(backend, built, installed, reason):
    found = fit_runtime(target(backend, built), [Runtime(backend=backend, version=installed)])
    assert found == (reason or Runtime(backend=backend, version=installed))


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("tensorrt_rtx", 'tensorrt_rtx is not installed: pip install "wszoo[rtx]"'),
        ("onnxruntime", 'onnxruntime is not installed: pip install "wszoo[ort]"'),
        ("tensorrt", 'tensorrt is not installed: pip install "wszoo[tensorrt]"'),
        ("from_a_plugin", "from_a_plugin is not installed"),
    ],
)
def test_a_missing_runtime_is_named_with_the_command_that_installs_it(backend, reason):
    assert fit_runtime(target(backend), [Runtime(backend="another", version="1")]) == reason


def test_the_lean_runtime_runs_version_compatible_plans_only():
    lean = Runtime(backend="tensorrt_lean", version="11.4.1.20")
    assert fit_runtime(target(version_compatible=True, lean_excluded=True), [lean]) == lean
    assert fit_runtime(target(), [lean]) == 'tensorrt is not installed: pip install "wszoo[tensorrt]"'


def test_a_later_tensorrt_beside_it_leaves_the_plan_to_the_lean_runtime_of_its_version():
    full, later, lean = (
        Runtime(backend="tensorrt", version="10.13.0.35"),
        Runtime(backend="tensorrt", version="11.4.1.20"),
        Runtime(backend="tensorrt_lean", version="10.13.0.35"),
    )
    plan = target(version="10.13.0.35", version_compatible=True, lean_excluded=True)
    assert fit_runtime(plan, [later, lean]) == lean
    assert fit_runtime(plan, [lean, later, full]) == full


@pytest.mark.parametrize(
    ("backend", "facts", "carries"),
    [
        ("tensorrt", {"version_compatible": True}, True),
        ("tensorrt", {"version_compatible": True, "lean_excluded": False}, True),
        ("tensorrt", {"version_compatible": True, "lean_excluded": True}, False),
        ("tensorrt", {}, False),
        ("from_a_plugin", {"version_compatible": True}, False),
    ],
)
def test_only_a_version_compatible_plan_of_tensorrt_can_carry_a_runtime(backend, facts, carries):
    assert bool(carries_code(target(backend, **facts))) == carries


@pytest.mark.parametrize(
    ("facts", "os", "arch", "reason"),
    [
        ({}, "linux", "x86_64", ""),
        ({"os": "linux", "arch": "x86_64"}, "linux", "x86_64", ""),
        ({"os": "windows"}, "linux", "x86_64", "built for windows, this machine runs linux"),
        ({"arch": "aarch64"}, "linux", "x86_64", "built for aarch64, this machine is x86_64"),
        ({"backend": "tensorrt_rtx", "os": "windows"}, "linux", "x86_64", ""),
    ],
)
def test_platform_rules(facts, os, arch, reason):
    assert fit_platform(target(**facts), os, arch) == reason


def test_versions_are_ordered_as_numbers():
    versions = ["", "rc1", "1.7", "1.7.1.116", "1.10.0rc2", "10.0.0", "10.0.1+cu13"]
    assert [version_key(v) for v in versions] == sorted(version_key(v) for v in versions)
    assert version_key("1.10.0rc2") == (1, 10, 0)
    assert version_key("9" * 5000) == (999_999_999,)
