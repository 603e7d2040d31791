"""Classic TensorRT's targets; building with a fake of its builder, parser and refitter (fake_tensorrt_builder.py)."""

import dataclasses
import logging

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper

from wszoo.backends import tensorrt
from wszoo.backends.protocol import Assembled
from wszoo.backends.trt_load import Loader
from wszoo.digest import Digest
from wszoo.errors import BuildError, IncompatibleError, MissingExtraError, NotFoundError, UsageError
from wszoo.gpu.machine import Gpu, Machine
from wszoo.names import TargetSpec
from wszoo.plans.source import FileSource, MemorySource
from wszoo.schema.plan import Kind, PlanConfig
from wszoo.schema.refit import Mode
from wszoo.weights.tensor import Tensor, dtype_of

BACKEND = tensorrt.TensorRTClassicBackend()
RTX_4090 = Gpu(name="NVIDIA GeForce RTX 4090", compute_capability="8.9", memory_bytes=24 << 30)
WIDTH = (1 << 18) + 64  # fp32 elements, over the size below which a plan's size says nothing


def _lost():
    raise NotFoundError("no blob of these weights")


_GONE = (Tensor("w", dtype_of("float32"), (WIDTH,), _lost),)


@pytest.fixture
def desktop(monkeypatch):
    """A machine with an RTX 4090 and TensorRT 11.4."""
    monkeypatch.setattr(tensorrt, "detect", lambda: Machine(os="linux", arch="x86_64", gpus=(RTX_4090,)))
    monkeypatch.setattr("wszoo.backends.trt_backend.installed_version", lambda *_: "11.4.0.106")


def target(text):
    return BACKEND.target(TargetSpec.parse(text))


@pytest.mark.parametrize(
    ("text", "sku", "level", "compatible"),
    [
        ("trt-sm89", RTX_4090.name, "none", False),
        ("trt-sm89.same-cc", "", "same_compute_capability", False),
        ("trt-sm80+", "", "ampere_plus", False),
        ("trt-sm89.version-compatible", RTX_4090.name, "none", True),
        ("trt-sm80+.refit.version-compatible", "", "ampere_plus", True),
    ],
)
def test_a_target_is_for_the_gpu_at_hand_unless_it_says_otherwise(desktop, text, sku, level, compatible):
    made = target(text)
    assert (made.name, made.sku, made.hardware_compatibility, made.version_compatible) == (text, sku, level, compatible)
    assert (made.lean_excluded is True) == compatible
    assert (made.backend, made.version) == ("tensorrt", "11.4.0.106")
    assert made.os
    assert made.arch


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("trt-sm86", "not for sm86"),
        ("trt-sm86+", "starts at Ampere"),
        ("trt-sm86-sm89", "one compute capability"),
        ("trt", "one compute capability"),
        ("trt-sm80+.same-cc", "two levels"),
        ("trt-sm89.fast", "no option 'fast' for trt targets"),
    ],
)
def test_an_impossible_target_is_refused(desktop, text, problem):
    with pytest.raises(UsageError, match=problem) as error:
        target(text)
    assert error.value.hint


def test_a_machine_without_a_gpu_builds_no_target(desktop, monkeypatch):
    bare = Machine(os="linux", arch="x86_64", problem="the NVIDIA driver is not installed")
    monkeypatch.setattr(tensorrt, "detect", lambda: bare)
    with pytest.raises(UsageError, match="only on such a GPU, and this machine has none: the NVIDIA driver"):
        target("trt-sm89")


def test_real_tensorrt_is_not_installed_here():
    """When this fails, TensorRT can be had: then run what only a fake has run."""
    with pytest.raises(MissingExtraError, match="'tensorrt' is not installed"):
        target("trt-sm89")


def test_the_lean_runtime_builds_nothing_and_says_what_to_build():
    lean = tensorrt.TensorRTLeanBackend()
    assert lean.runtime().version.startswith("11.")
    with pytest.raises(UsageError, match="builds no plans") as error:
        lean.target(TargetSpec.parse("lean-sm89"))
    assert "trt-smNN.version-compatible" in error.value.hint


@pytest.fixture
def scaled(graph_of):
    """``z = x * w`` over a quarter of a million channels with a dynamic batch."""
    weight = np.random.default_rng(0).standard_normal(WIDTH, np.float32)
    return graph_of(
        [helper.make_node("Mul", ["x", "w"], ["z"], name="scale")],
        {"x": (TensorProto.FLOAT, ["batch", WIDTH])},
        {"z": (TensorProto.FLOAT, ["batch", WIDTH])},
        [("w", weight)],
    )


@pytest.fixture
def build(desktop, fake_classic, job, profile, tmp_path):
    def run(graph, text="trt-sm89", cache=None):
        profiles = (profile("p", x=((1, WIDTH), (2, WIDTH), (4, WIDTH))),)
        made = job(graph, target(text), profiles, cache=cache)
        out = tmp_path / "plan"
        return made, BACKEND.build(made, out), out

    return run


def test_a_plan_is_stripped_tried_and_described_on_a_fake(build, scaled, fake_classic):
    _, stripped, out = build(scaled)
    assert stripped.refit.mode == Mode.IDENTICAL
    assert stripped.refit.plan_bytes == out.stat().st_size < 1 << 12
    assert stripped.engine_bytes > scaled.weight_bytes
    assert [(weights.name, weights.count) for weights in stripped.refit.weights] == [("w", WIDTH)]
    assert fake_classic.refits == 1


def test_flags_follow_the_target_on_a_fake(build, scaled, fake_classic):
    build(scaled, "trt-sm80+.version-compatible.refit")
    whole, stripped = fake_classic.built
    flags = fake_classic.BuilderFlag
    compatible = {flags.VERSION_COMPATIBLE, flags.EXCLUDE_LEAN_RUNTIME}
    assert (whole.flags, stripped.flags) == (compatible, compatible | {flags.STRIP_PLAN, flags.REFIT})
    assert {c.hardware_compatibility_level.name for c in fake_classic.built} == {"AMPERE_PLUS"}


def test_a_plan_that_keeps_its_weights_is_refused_on_a_fake(build, scaled, fake_classic):
    fake_classic.keeps_weights = True
    with pytest.raises(BuildError, match=rf"stripped 0 of {WIDTH * 4} bytes of weights"):
        build(scaled)


def test_a_plan_that_computes_something_else_when_refitted_is_refused_on_a_fake(build, scaled, fake_classic):
    fake_classic.wrong = 1.5
    with pytest.raises(BuildError, match="the refitted and the whole plan of 'net' differ in 'z' by"):
        build(scaled)


def test_made_up_weights_leave_the_plan_whole_on_a_fake(build, scaled, fake_classic, caplog):
    caplog.set_level(logging.WARNING)
    fake_classic.made_up = "tmp_weight_7"
    _, stripped, out = build(scaled)
    assert stripped is None
    assert out.stat().st_size > scaled.weight_bytes
    assert "published whole: the engine wants weights named 'tmp_weight_7'" in caplog.text


def test_another_gpu_in_front_of_cuda_is_told_on_a_fake(build, scaled, fake_classic):
    fake_classic.cuda.product = b"NVIDIA GeForce RTX 5090"
    with pytest.raises(BuildError, match="and CUDA's first GPU is NVIDIA GeForce RTX 5090"):
        build(scaled)
    assert fake_classic.built == []


def test_timings_are_kept_for_the_next_build_on_a_fake(build, scaled, fake_classic, tmp_path):
    build(scaled, cache=tmp_path / "timing")
    (path,) = (tmp_path / "timing").iterdir()
    assert path.name == "tensorrt-11.4.0.106-geforcertx4090.timing"
    build(scaled, cache=tmp_path / "timing")
    assert [config.timing.data for config in fake_classic.built] == [b"", b"", *[b"timing of kernels"] * 2]


def test_a_damaged_timing_cache_is_begun_anew_on_a_fake(build, scaled, fake_classic, tmp_path):
    build(scaled, cache=tmp_path)
    (path,) = tmp_path.glob("*.timing")
    path.write_bytes(b"garbage")
    build(scaled, cache=tmp_path)
    assert path.read_bytes() == b"timing of kernels"


@pytest.fixture
def assembled(build, scaled, tmp_path):
    """A stripped plan as a client has it."""

    def make(text="trt-sm89", graph=scaled, **changes):
        made, stripped, out = build(scaled, text)
        data = out.read_bytes()
        config = PlanConfig(
            component="net",
            target=made.target,
            kind=Kind.NATIVE,
            profiles=made.profiles,
            engine_digest=Digest.of(data),
            engine_bytes=stripped.engine_bytes,
            graph=Digest.of(scaled.proto),
            weights=Digest.of(b"weights"),
        )
        given = {"engine": None, "source": MemorySource(data, "plan"), "refit": stripped.refit, **changes}
        return Assembled(config=config, device="cuda", graph=graph, cache=tmp_path / "cache", **given)

    return make


def test_a_native_plan_runs_with_the_stores_weights_on_a_fake(assembled, scaled):
    engine = BACKEND.load(assembled())
    x = np.random.default_rng(1).standard_normal((2, WIDTH), np.float32)
    np.testing.assert_array_equal(engine(x=x)["z"], x * scaled.tensors[0].array())


def test_the_second_start_does_no_refit_on_a_fake(assembled, fake_classic):
    plan = assembled()
    before = fake_classic.refits
    BACKEND.load(plan)
    BACKEND.load(plan)
    assert fake_classic.refits == before + 1
    assert sorted(path.suffix for path in plan.cache.iterdir()) == [".plan", ".stamp"]


def test_kernels_compiled_on_the_client_are_named_after_the_gpu_on_a_fake(assembled):
    """So that a folder that several machines share, or that is copied, has those of each."""
    plan = assembled(keep=False)
    BACKEND.load(plan)(x=np.ones((1, WIDTH), np.float32))
    assert [path.name for path in plan.cache.iterdir()] == ["geforcertx4090-11.4.0.106.runtime"]


def test_only_weights_are_kept_when_asked_on_a_fake(assembled, fake_classic):
    plan = assembled(keep=False)
    before = fake_classic.refits
    BACKEND.load(plan)
    BACKEND.load(plan)
    assert fake_classic.refits == before + 2
    assert not plan.cache.exists()


def test_a_kept_plan_that_was_damaged_is_made_again_on_a_fake(assembled, fake_classic):
    plan = assembled()
    BACKEND.load(plan)
    before = fake_classic.refits
    (kept,) = plan.cache.glob("*.plan")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-1] + b"?")
    BACKEND.load(plan)
    assert (fake_classic.refits, kept.read_bytes()) == (before + 1, whole)


def test_a_kept_plan_is_for_one_gpu_product_on_a_fake(assembled, fake_classic):
    plan = assembled()
    BACKEND.load(plan)
    fake_classic.cuda.product = b"NVIDIA GeForce RTX 4080"
    BACKEND.load(plan)
    assert len(list(plan.cache.glob("*.plan"))) == 2


def test_a_kept_plan_that_the_runtime_refuses_is_made_again_on_a_fake(assembled, fake_classic, monkeypatch):
    """As after another driver was installed."""
    plan = assembled()
    BACKEND.load(plan)
    (kept,) = plan.cache.glob("*.plan")
    refused, before = kept.stat().st_mtime_ns, fake_classic.refits
    load = Loader.engine
    monkeypatch.setattr(Loader, "engine", lambda self, source: _refusing(load, self, source))
    x = np.ones((1, WIDTH), np.float32)
    np.testing.assert_array_equal(BACKEND.load(plan)(x=x)["z"][0], plan.graph.tensors[0].array())
    assert (fake_classic.refits, kept.stat().st_mtime_ns != refused) == (before + 1, True)


def _refusing(load, loader, source):
    if isinstance(source, FileSource):
        raise IncompatibleError("the runtime refuses the kept plan")
    return load(loader, source)


def test_a_kept_plan_runs_without_the_weights_that_it_was_made_of_on_a_fake(assembled):
    plan = assembled()
    expected = BACKEND.load(plan)(x=np.ones((1, WIDTH), np.float32))["z"]
    gone = dataclasses.replace(plan, graph=dataclasses.replace(plan.graph, tensors=_GONE))
    np.testing.assert_array_equal(BACKEND.load(gone)(x=np.ones((1, WIDTH), np.float32))["z"], expected)
    for path in plan.cache.iterdir():
        path.unlink()
    with pytest.raises(NotFoundError, match="no blob"):
        BACKEND.load(gone)


@pytest.mark.parametrize("text", ["trt-sm89", "trt-sm89.version-compatible"])
def test_a_plan_of_another_release_is_refused_on_a_fake(assembled, fake_classic, text):
    """Version-compatible plans too: the lean runtime that makes them so was left out of them."""
    plan = assembled(text)
    fake_classic.__version__ = "11.5.0.1"
    with pytest.raises(
        IncompatibleError, match=r"TensorRT 11\.4\.0 wrote this plan, and 11\.5\.0 is installed"
    ) as error:
        BACKEND.load(plan)
    assert "11.4.0.106" in error.value.hint


def test_an_engine_that_does_not_serialize_is_refitted_at_each_start_on_a_fake(assembled, fake_classic, monkeypatch):
    monkeypatch.setattr("fake_tensorrt.Engine.serialize_with_config", lambda *_: None)
    plan = assembled()
    x = np.ones((1, WIDTH), np.float32)
    np.testing.assert_array_equal(BACKEND.load(plan)(x=x)["z"][0], plan.graph.tensors[0].array())
    assert list(plan.cache.glob("*.plan")) == []


def test_the_lean_runtime_refits_by_name_on_a_fake(assembled, fake, monkeypatch):
    plan = assembled("trt-sm89.version-compatible")
    from fake_tensorrt_builder import FakeClassic

    lean = fake.install(FakeClassic(fake.FakeCuda(), "tensorrt_lean"), monkeypatch)
    monkeypatch.delattr(FakeClassic, "OnnxParserRefitter")
    monkeypatch.setattr(fake.Runtime, "get_engine_validity", None)
    monkeypatch.delattr(fake.Runtime, "get_engine_validity")
    x = np.ones((1, WIDTH), np.float32)
    engine = tensorrt.TensorRTLeanBackend().load(plan)
    np.testing.assert_array_equal(engine(x=x)["z"][0], plan.graph.tensors[0].array())
    assert lean.refits == 1


def test_a_plan_whose_map_has_a_later_rule_is_refitted_through_the_parser_on_a_fake(assembled, fake_classic):
    plan = assembled()
    later = tuple(msgspec.structs.replace(weights, rule="magic") for weights in plan.refit.weights)
    plan = dataclasses.replace(plan, refit=msgspec.structs.replace(plan.refit, weights=later))
    x = np.ones((1, WIDTH), np.float32)
    np.testing.assert_array_equal(BACKEND.load(plan)(x=x)["z"][0], plan.graph.tensors[0].array())
