"""Triton's model repositories, their configuration read with the server's own schema. No server has loaded one here."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import msgspec
import numpy as np
import onnxruntime
import pytest
from builders import network, onnx_model, publish_model, replace_in_index
from google.protobuf import text_format
from onnx import helper

from wszoo.errors import IncompatibleError, UsageError
from wszoo.export.job import Options
from wszoo.export.triton import DATA_TYPES
from wszoo.schema.plan import Kind, Profile, ShapeRange
from wszoo.weights.tensor import DTYPES


def _schema():
    """``model_config.proto`` from the tritonclient package, whose other modules want gRPC."""
    files = importlib.metadata.files("tritonclient")
    path = next(file for file in files if file.name == "model_config_pb2.py" and "tritonclient" in file.parts)
    spec = importlib.util.spec_from_file_location("model_config_pb2", path.locate())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCHEMA = _schema()


def config(out, name="net"):
    return text_format.Parse((out / name / "config.pbtxt").read_text(), SCHEMA.ModelConfig())


def tensors(side):
    return [(each.name, SCHEMA.DataType.Name(each.data_type), list(each.dims)) for each in side]


def with_profiles(store, *largest):
    """Give every plan optimization profiles that reach these batch sizes."""

    def change(plan):
        ranges = [{"x": ShapeRange(min=(1, 64), opt=(1, 64), max=(size, 64))} for size in largest]
        profiles = tuple(Profile(name=f"p{number}", inputs=each) for number, each in enumerate(ranges))
        return msgspec.structs.replace(plan, profiles=profiles)

    replace_in_index(store, "net:1", plan_config=change)


def test_one_plan_is_the_models_default(export):
    out = export("triton", targets=["rtx-sm89"])
    found = config(out)
    assert (found.name, found.backend, found.max_batch_size) == ("net", "tensorrt", 0)
    assert found.default_model_filename == "model.plan"
    assert tensors(found.input) == [("x", "TYPE_FP32", [-1, 64])]
    assert tensors(found.output) == [("z", "TYPE_FP32", [-1, 32])]
    assert not found.HasField("dynamic_batching")
    assert [path.name for path in (out / "net" / "1").iterdir()] == ["model.plan"]


def test_several_plans_are_told_apart_by_compute_capability(export):
    out = export("triton", targets=["rtx-sm86", "rtx-sm89"])
    found = config(out)
    assert dict(found.cc_model_filenames) == {"8.6": "model.rtx-sm86.plan", "8.9": "model.rtx-sm89.plan"}
    assert found.default_model_filename == ""
    assert {path.name for path in (out / "net" / "1").iterdir()} == set(found.cc_model_filenames.values())


def test_a_portable_plan_is_an_onnx_file(export):
    out = export("triton", targets=["portable"])
    assert config(out).backend == "onnxruntime"
    session = onnxruntime.InferenceSession(str(out / "net" / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.ones((2, 64), np.float32)})[0].shape == (2, 32)


def test_a_model_has_one_backend(export):
    with pytest.raises(UsageError, match="a Triton model has one backend"):
        export("triton", targets=["portable", "rtx-sm89"])


def test_two_plans_for_one_compute_capability_are_refused(export, origin):
    def change(plan):
        target = msgspec.structs.replace(plan.target, compute_capabilities=("8.9",))
        return plan if plan.kind == Kind.PORTABLE else msgspec.structs.replace(plan, target=target)

    replace_in_index(origin, "net:1", plan_config=change)
    with pytest.raises(UsageError, match=r"both for compute capability 8\.9"):
        export("triton", targets=["rtx-sm86", "rtx-sm89"])


def test_a_plan_of_several_compute_capabilities_serves_each(export, origin):
    def change(plan):
        target = msgspec.structs.replace(plan.target, compute_capabilities=("8.9", "12.0"))
        return msgspec.structs.replace(plan, target=target) if plan.target.name == "rtx-sm89" else plan

    replace_in_index(origin, "net:1", plan_config=change)
    found = dict(config(export("triton", targets=["rtx-sm86", "rtx-sm89"])).cc_model_filenames)
    assert found == {"8.6": "model.rtx-sm86.plan", "8.9": "model.rtx-sm89.plan", "12.0": "model.rtx-sm89.plan"}


def test_every_profile_is_open_to_an_instance(export, origin):
    with_profiles(origin, 4, 16)
    (group,) = config(export("triton", targets=["rtx-sm89"])).instance_group
    assert list(group.profile) == ["0", "1"]
    assert SCHEMA.ModelInstanceGroup.Kind.Name(group.kind) == "KIND_GPU"


def test_batching_takes_the_first_dimension_away(export, origin):
    with_profiles(origin, 4, 16)
    found = config(export("triton", targets=["rtx-sm89"], options=Options(max_batch=4)))
    assert found.max_batch_size == 4
    assert found.HasField("dynamic_batching")
    assert tensors(found.input) == [("x", "TYPE_FP32", [64])]


def test_a_batch_over_a_profile_is_refused(export, origin):
    with_profiles(origin, 4, 16)
    with pytest.raises(UsageError, match="a batch of 5 is over the 4 of a profile"):
        export("triton", targets=["rtx-sm89"], options=Options(max_batch=5))


def test_a_network_without_a_batch_dimension_is_not_batched(store, export):
    model = onnx_model([helper.make_node("Neg", ["x"], ["y"])], [("x", 1, [4])], [("y", 1, [4])])
    publish_model(store, "net:1", targets=(), model=model)
    with pytest.raises(UsageError, match="cannot be batched"):
        export("triton", store=store, targets=["portable"], options=Options(max_batch=4))


def test_a_scalar_is_one_element_that_the_server_reshapes(store, export):
    model = onnx_model([helper.make_node("Neg", ["x"], ["y"])], [("x", 1, [])], [("y", 1, [])])
    publish_model(store, "net:1", targets=(), model=model)
    (found,) = config(export("triton", store=store, targets=["portable"])).input
    assert list(found.dims) == [1]
    assert found.HasField("reshape")
    assert list(found.reshape.shape) == []


def test_every_type_that_triton_knows_and_arrays_can_hold_is_mapped():
    assert {*DATA_TYPES.values(), "TYPE_STRING", "TYPE_INVALID"} == set(SCHEMA.DataType.keys())
    assert set(DATA_TYPES) <= set(DTYPES)


@pytest.mark.parametrize("dtype", ["int4", "float8e4m3fn", "complex64"])
def test_a_type_that_triton_does_not_know_is_named(dtype, store, export):
    publish_model(store, "net:1", targets=())

    def change(model):
        component = model.components["net"]
        inputs = (msgspec.structs.replace(component.inputs[0], dtype=dtype),)
        return msgspec.structs.replace(model, components={"net": msgspec.structs.replace(component, inputs=inputs)})

    replace_in_index(store, "net:1", model_config=change)
    with pytest.raises(IncompatibleError, match=f"has 'x' of type {dtype}"):
        export("triton", store=store, targets=["portable"])


def test_a_name_with_slashes_becomes_one_folder(store, export):
    publish_model(store, "acme/net:1", targets=())
    out = export("triton", store=store, ref="acme/net:1", targets=["portable"])
    assert config(out, "acme-net").name == "acme-net"


def test_an_input_whose_name_is_hostile_stays_a_name(store, export):
    name = 'x" } backend: "evil\n'
    model = network()
    model.graph.input[0].name = model.graph.node[0].input[0] = name
    publish_model(store, "net:1", targets=(), model=model)
    found = config(export("triton", store=store, targets=["portable"]))
    assert found.input[0].name == name
    assert found.backend == "onnxruntime"
