"""Native plans written with their weights, with the fake of TensorRT of the backends' tests; the rest is real."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import plan_config, publish_model, scaling

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))  # the fakes are imported by file

import fake_tensorrt
from fake_tensorrt_builder import FakeClassic

from wszoo.api import Zoo
from wszoo.backends import tensorrt
from wszoo.building.build import BuildRequest, build
from wszoo.digest import Digest
from wszoo.errors import IncompatibleError, MissingExtraError
from wszoo.gpu.machine import Gpu, Machine
from wszoo.names import Ref, TargetSpec
from wszoo.plans.native import pack_map, pack_plan
from wszoo.plugins import registry
from wszoo.publish import publish, read_published, write_plan
from wszoo.schema.plan import NATIVE, REFIT, Kind, Target
from wszoo.schema.refit import RefitMap

WIDTH = 1 << 16
VERSION = "11.4.0.106"
RTX_4090 = Gpu(name="NVIDIA GeForce RTX 4090", compute_capability="8.9")


@pytest.fixture
def fake_classic(monkeypatch):
    module = FakeClassic(fake_tensorrt.FakeCuda())
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", module.cuda)
    monkeypatch.setattr("wszoo.backends.trt_log._LOGS", {})
    monkeypatch.setattr(tensorrt, "detect", lambda: Machine(os="linux", arch="x86_64", gpus=(RTX_4090,)))
    monkeypatch.setattr("wszoo.backends.trt_backend.installed_version", lambda *_: VERSION)
    return module


@pytest.fixture
def built(store, fake_classic, tmp_path):
    """Build ``z = x * w`` for a target of TensorRT, with weights of a seed; gives the weights."""

    def run(number, target):
        path = tmp_path / f"{number}.onnx"
        weight = scaling(path, number, WIDTH)
        request = BuildRequest(
            family="onnx", source=path, ref=Ref.parse(f"net:{number}"), targets=(TargetSpec.parse(target),)
        )
        build(store, registry(), request)
        return weight

    return run


@pytest.fixture
def export(store, tmp_path):
    def run(to, number=1, target="trt-sm89"):
        out = tmp_path / f"{to}-{number}"
        Zoo(store.layout.root).export(f"net:{number}", out, to=to, targets=[target])
        return out

    return run


def weights_in(plan):
    """The weights of a fake plan: JSON behind a header of 64 bytes."""
    ((_, _, data),) = json.loads(plan.read_bytes()[64:])["weights"].values()
    return np.frombuffer(bytes.fromhex(data), np.float32)


def test_an_engine_is_written_with_the_stores_weights_on_a_fake(built, export):
    weight = built(1, "trt-sm89")
    out = export("engine")
    np.testing.assert_array_equal(weights_in(out / "model.trt-sm89.plan"), weight)
    card = json.loads((out / "model.trt-sm89.json").read_bytes())
    assert card["digest"] == Digest.of_file(out / "model.trt-sm89.plan")
    assert card["size"] == (out / "model.trt-sm89.plan").stat().st_size
    assert card["target"]["sku"] == RTX_4090.name


def test_a_second_export_refits_nothing_on_a_fake(built, export, fake_classic):
    built(1, "trt-sm89")
    export("engine")
    before = fake_classic.refits
    export("triton")
    assert fake_classic.refits == before


def test_triton_gets_the_engine_with_its_weights_on_a_fake(built, export):
    weight = built(1, "trt-sm89")
    out = export("triton")
    np.testing.assert_array_equal(weights_in(out / "net" / "1" / "model.plan"), weight)
    assert 'default_model_filename: "model.plan"' in (out / "net" / "config.pbtxt").read_text()


def test_a_plan_that_takes_other_weights_is_written_with_those_of_the_new_version_on_a_fake(
    store, built, export, fake_classic
):
    built(1, "trt-sm89.refit")
    weight, plans = built(2, "portable"), len(fake_classic.built)
    Zoo(store.layout.root).refit("net:1", weights="net:2")
    out = export("engine", 2, "trt-sm89.refit")
    np.testing.assert_array_equal(weights_in(out / "model.trt-sm89.refit.plan"), weight)
    assert len(fake_classic.built) == plans, "nothing was built"
    flags = fake_classic.serialized[-1]
    assert fake_classic.SerializationFlag.INCLUDE_REFIT in flags, "it can be refitted once more"


def test_an_engine_that_takes_no_other_weights_cannot_be_refitted_again_on_a_fake(built, export, fake_classic):
    built(1, "trt-sm89")
    export("engine")
    assert fake_classic.serialized[-1] == frozenset()


@pytest.mark.parametrize("to", ["engine", "triton"])
def test_a_machine_without_a_gpu_is_told_what_needs_none_on_a_fake(built, export, fake_classic, to, tmp_path):
    built(1, "trt-sm89")
    fake_classic.cuda.devices = 0
    with pytest.raises(IncompatibleError, match=r"only a GPU of its target .*the driver reports none") as error:
        export(to)
    assert "--format ort-epcontext" in error.value.hint
    assert not (tmp_path / f"{to}-1").exists()


def test_a_gpu_of_another_product_is_named_on_a_fake(built, export, fake_classic):
    built(1, "trt-sm89")
    fake_classic.cuda.product = b"NVIDIA L40S"
    with pytest.raises(IncompatibleError, match=r"is for NVIDIA GeForce RTX 4090, this GPU is NVIDIA L40S"):
        export("engine")


def test_a_missing_runtime_names_the_extra(built, export, monkeypatch):
    built(1, "trt-sm89")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match="giving the plan for trt-sm89 its weights"):
        export("engine")


def test_stripped_is_how_onnx_runtime_gets_it_on_a_fake(built, export, fake_classic):
    weight = built(1, "trt-sm89")
    fake_classic.cuda.devices = 0
    out = export("ort-epcontext")
    ((_, _, data),) = json.loads((out / "model.trt-sm89.stripped.engine").read_bytes()[64:])["weights"].values()
    assert data is None
    model = onnx.load(out / "model.trt-sm89.onnx")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(model.graph.initializer[0]), weight)


def test_a_machine_without_a_gpu_is_refused_by_the_real_cuda_runtime(store, tmp_path, monkeypatch):
    """Real: the installed tensorrt_rtx and cuda-bindings without a driver, or with the GPUs hidden. The plan is not."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    publish_model(store, "net:1", targets=(), portable=False)
    published = read_published(store, Ref.parse("net:1"))
    data = b"vtrt".ljust(24, b"\0") + bytes((1, 7, 1, 116)) + bytes(100)
    target = Target(name="rtx-sm89.strip", backend="tensorrt_rtx", version="1.7.1.116", compute_capabilities=("8.9",))
    config = plan_config(published.model.config.components["net"], target, Kind.NATIVE, data)
    refit_map = RefitMap(mode="identical", plan_bytes=len(data), weights=())
    layers = [(REFIT, store.blobs.put(pack_map(refit_map))), (NATIVE, store.blobs.put(pack_plan(data)))]
    publish(store, Ref.parse("net:1"), published.model, [write_plan(store, config, layers)])
    with pytest.raises(IncompatibleError, match="its weights with TensorRT-RTX needs an NVIDIA GPU and its driver"):
        Zoo(store.layout.root).export("net:1", tmp_path / "out", to="engine", targets=["rtx-sm89.strip"])
    assert not (tmp_path / "out").exists()
