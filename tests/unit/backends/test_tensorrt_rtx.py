import platform
import subprocess
import sys

import numpy as np
import pytest
from fake_tensorrt_builder import FakeClassic
from onnx import TensorProto, helper

from wszoo.backends import trt_backend
from wszoo.backends.protocol import Assembled
from wszoo.backends.tensorrt_rtx import TensorRTRTXBackend, wszoo_backends
from wszoo.digest import Digest
from wszoo.errors import MissingExtraError, UsageError
from wszoo.names import TargetSpec
from wszoo.plans.source import MemorySource
from wszoo.schema.plan import Kind, PlanConfig
from wszoo.schema.refit import Mode

BACKEND = TensorRTRTXBackend()
WIDTH = (1 << 18) + 64  # fp32 elements, over the size below which a plan's size says nothing


def test_importing_the_backends_loads_no_heavy_library():
    code = (
        "import sys, wszoo.backends.tensorrt_rtx as r, wszoo.backends.onnxruntime as o;"
        "r.TensorRTRTXBackend().runtime(); o.OnnxRuntimeBackend().runtime();"
        "print({'tensorrt_rtx', 'onnx', 'onnxruntime', 'torch', 'cuda'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_runtime_is_the_installed_package():
    runtime = BACKEND.runtime()
    assert (runtime.backend, runtime.devices) == ("tensorrt_rtx", ("cuda",))
    assert runtime.version.count(".") == 3


def test_not_installed(monkeypatch):
    monkeypatch.setattr(trt_backend, "installed_version", lambda *_: "")
    assert BACKEND.runtime() is None
    with pytest.raises(MissingExtraError, match="'tensorrt_rtx' is not installed, and building rtx-sm89 needs it"):
        BACKEND.target(TargetSpec.parse("rtx-sm89"))


def test_target_has_the_builders_version_and_no_operating_system():
    target = BACKEND.target(TargetSpec.parse("rtx-sm120-sm86"))
    assert (target.name, target.backend, target.os) == ("rtx-sm86-sm120", "tensorrt_rtx", "")
    assert target.compute_capabilities == ("8.6", "12.0")
    assert target.version == BACKEND.runtime().version


@pytest.mark.parametrize(("machine", "arch"), [("AMD64", "x86_64"), ("x86_64", "x86_64"), ("arm64", "aarch64")])
def test_arch_is_spelled_alike_on_every_system(monkeypatch, machine, arch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert BACKEND.target(TargetSpec.parse("rtx-sm89")).arch == arch


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rtx-sm90", "does not build for sm90"),
        ("rtx-sm89-sm61", "does not build for sm61"),
        ("rtx", "no compute capability in 'rtx'"),
        ("rtx-sm80+", "has no '\\+' plans"),
    ],
)
def test_impossible_target_is_refused_with_those_that_exist(text, problem):
    with pytest.raises(UsageError, match=problem) as error:
        BACKEND.target(TargetSpec.parse(text))
    assert "sm75, sm80, sm86, sm89, sm120, sm121" in error.value.hint


def test_hook_gives_the_backend():
    assert [backend.prefix for backend in wszoo_backends()] == ["rtx"]


@pytest.mark.parametrize(
    ("text", "mode"), [("rtx-sm89", None), ("rtx-sm89.strip", Mode.IDENTICAL), ("rtx-sm89.refit", Mode.ANY)]
)
def test_plans_are_stripped_only_where_that_was_asked_for(text, mode):
    target = BACKEND.target(TargetSpec.parse(text))
    assert BACKEND.mode(target) == mode
    assert BACKEND.needs_gpu(TargetSpec.parse(text)) == (mode is not None)


@pytest.fixture
def fake_rtx(fake, monkeypatch):
    """A fake TensorRT-RTX with builder, parser and refitter, on a fake RTX 4090."""
    return fake.install(FakeClassic(fake.FakeCuda(), "tensorrt_rtx"), monkeypatch)


@pytest.fixture
def scale(graph_of, job, profile):
    """A job that builds ``z = x * w`` for a target."""

    def make(text):
        weight = np.random.default_rng(0).standard_normal(WIDTH, np.float32)
        values = {"x": (TensorProto.FLOAT, ["batch", WIDTH])}, {"z": (TensorProto.FLOAT, ["batch", WIDTH])}
        graph = graph_of([helper.make_node("Mul", ["x", "w"], ["z"])], *values, [("w", weight)])
        profiles = (profile("p", x=((1, WIDTH), (2, WIDTH), (4, WIDTH))),)
        return job(graph, BACKEND.target(TargetSpec.parse(text)), profiles)

    return make


@pytest.mark.parametrize(("text", "flag"), [("rtx-sm89.strip", "REFIT_IDENTICAL"), ("rtx-sm89.refit", "REFIT")])
def test_beside_an_rtx_gpu_a_plan_is_stripped_tried_and_refitted_on_a_fake(fake_rtx, scale, tmp_path, text, flag):
    made = scale(text)
    stripped = BACKEND.build(made, tmp_path / "plan")
    assert stripped.refit.plan_bytes < 1 << 12 < made.graph.weight_bytes < stripped.engine_bytes
    whole, small = fake_rtx.built
    assert (whole.flags, small.flags) == (set(), {fake_rtx.BuilderFlag.STRIP_PLAN, fake_rtx.BuilderFlag[flag]})
    assert whole.capabilities == small.capabilities == {0: "SM89"}
    assert fake_rtx.refits == 1, "tried before it is given to anyone"
    engine = BACKEND.load(_assembled(made, stripped, tmp_path))
    x = np.random.default_rng(1).standard_normal((2, WIDTH), np.float32)
    np.testing.assert_array_equal(engine(x=x)["z"], x * made.graph.tensors[0].array())


def _assembled(made, stripped, folder):
    data = (folder / "plan").read_bytes()
    config = PlanConfig(
        component="net",
        target=made.target,
        kind=Kind.NATIVE,
        profiles=made.profiles,
        engine_digest=Digest.of(data),
        engine_bytes=stripped.engine_bytes,
        graph=Digest.of(made.graph.proto),
        weights=Digest.of(b"weights"),
    )
    source = MemorySource(data, "plan")
    given = {"engine": None, "source": source, "refit": stripped.refit, "cache": folder / "cache"}
    return Assembled(config=config, device="cuda", graph=made.graph, **given)
