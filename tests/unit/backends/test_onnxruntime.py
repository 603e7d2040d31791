import dataclasses
import sys

import ml_dtypes
import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from wszoo.backends import onnxruntime as portable_backend
from wszoo.backends.onnxruntime import OnnxRuntimeBackend
from wszoo.errors import BuildError, IncompatibleError, MalformedError, MissingExtraError, UsageError
from wszoo.names import TargetSpec
from wszoo.schema.model import Value
from wszoo.schema.plan import Kind

BACKEND = OnnxRuntimeBackend()
PORTABLE = BACKEND.target(TargetSpec.parse("portable"))
RNG = np.random.default_rng(3)


def _node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs, outputs, name=f"{kind}_{outputs[0]}", **attributes)


def test_target_is_for_every_machine_and_version():
    assert (PORTABLE.name, PORTABLE.backend, PORTABLE.version, PORTABLE.compute_capabilities, BACKEND.kind) == (
        "portable",
        "onnxruntime",
        "",
        (),
        Kind.PORTABLE,
    )


@pytest.mark.parametrize("text", ["portable-sm89", "portable+"])
def test_target_that_names_machines_is_refused(text):
    with pytest.raises(UsageError, match="a portable plan is for every machine"):
        BACKEND.target(TargetSpec.parse(text))


@pytest.mark.parametrize(
    ("installed", "devices"),
    [({"onnxruntime"}, ("cpu",)), ({"onnxruntime-gpu"}, ("cuda", "cpu")), (set(), None)],
)
def test_runtime_tells_devices_from_the_installed_package(monkeypatch, installed, devices):
    def version(*names):
        return "1.32.0" if installed & set(names) else ""

    monkeypatch.setattr(portable_backend, "installed_version", version)
    runtime = BACKEND.runtime()
    assert (runtime and runtime.devices) == devices


def test_missing_onnxruntime_names_the_extra(monkeypatch, job, linear, portable, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="building a portable plan") as error:
        BACKEND.build(job(linear, PORTABLE), tmp_path / "plan")
    assert "wszoo[ort]" in error.value.hint
    with pytest.raises(MissingExtraError, match="running a portable plan"):
        BACKEND.load(portable(linear))


def test_build_writes_nothing(job, linear, tmp_path):
    BACKEND.build(job(linear, PORTABLE), tmp_path / "plan")
    assert list(tmp_path.iterdir()) == []


def test_build_refuses_mixed_element_types_and_names_the_node(graph_of, job, tmp_path):
    graph = graph_of(
        [helper.make_node("Concat", ["x", "y"], ["z"], name="join", axis=0)],
        {"x": (TensorProto.FLOAT, [1, 4]), "y": (TensorProto.FLOAT16, [1, 4])},
        {"z": (TensorProto.FLOAT, [2, 4])},
    )
    with pytest.raises(BuildError, match=r"refuses the network 'net': Type Error.*node \(join\)") as error:
        BACKEND.build(job(graph, PORTABLE), tmp_path / "plan")
    assert "ONNXRuntimeError" not in error.value.message
    assert "Fail" in type(error.value.__cause__).__name__


def test_build_refuses_an_unknown_operator_and_names_the_node(graph_of, job, tmp_path):
    graph = graph_of(
        [helper.make_node("NoSuch", ["x"], ["z"], name="odd")],
        {"x": (TensorProto.FLOAT, [4])},
        {"z": (TensorProto.FLOAT, [4])},
    )
    with pytest.raises(BuildError, match='"odd", NoSuch'):
        BACKEND.build(job(graph, PORTABLE), tmp_path / "plan")


def test_4_bit_inputs_and_complex_weights_are_refused(graph_of, job, tmp_path):
    nodes = [_node("Cast", ["x"], ["z"], to=TensorProto.FLOAT)]
    four = graph_of(nodes, {"x": (TensorProto.INT4, [4])}, {"z": (TensorProto.FLOAT, [4])})
    with pytest.raises(IncompatibleError, match=r"x int4 \[4\]"):
        BACKEND.build(job(four, PORTABLE), tmp_path / "plan")
    weight = ("w", np.ones(64, np.complex128))
    numbers = graph_of([_node("Shape", ["w"], ["z"])], {}, {"z": (TensorProto.INT64, [1])}, [weight])
    with pytest.raises(BuildError, match="'w' is complex128"):
        BACKEND.build(job(numbers, PORTABLE), tmp_path / "plan")


@pytest.mark.parametrize("batch", [1, 5])
def test_output_equals_the_reference_for_any_batch(linear, portable, reference, batch):
    engine = BACKEND.load(portable(linear))
    x = RNG.standard_normal((batch, 64), np.float32)
    out = engine(x=x)
    np.testing.assert_allclose(out["z"], reference(linear, {"x": x})["z"], rtol=1e-5, atol=1e-5)
    out["z"][:] = 0  # the caller owns it
    assert engine.raw.get_providers()[0] == "CPUExecutionProvider"
    assert (engine.inputs, engine.outputs) == (linear.inputs, linear.outputs)


def test_torch_tensor_is_an_input(linear, portable):
    engine = BACKEND.load(portable(linear))
    x = torch.randn(2, 64)
    np.testing.assert_allclose(engine(x=x)["z"], engine(x=x.numpy())["z"])


def test_strided_array_is_an_input(linear, portable, reference):
    x = RNG.standard_normal((128, 3), np.float32)[::2].T
    out = BACKEND.load(portable(linear))(x=x)
    np.testing.assert_allclose(out["z"], reference(linear, {"x": x})["z"], rtol=1e-5, atol=1e-5)


def test_weights_in_bodies_run(in_bodies, portable, job, tmp_path):
    graph, outer, first, second = in_bodies
    BACKEND.build(job(graph, PORTABLE), tmp_path / "plan")
    engine = BACKEND.load(portable(graph))
    x = RNG.standard_normal((1, 64), np.float32)
    for choice, weight in ((True, first), (False, second)):
        np.testing.assert_allclose(engine(x=x, c=np.asarray(choice))["z"], x @ outer @ weight, rtol=1e-3, atol=1e-3)


def test_loop_with_a_weight_runs(graph_of, portable):
    weight = (np.eye(64) * 2).astype(np.float32)
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [_node("MatMul", ["s", "w"], ["t"]), _node("Identity", ["go"], ["on"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("s", TensorProto.FLOAT, [1, 64])],
        [value("on", TensorProto.BOOL, []), value("t", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor("w", TensorProto.FLOAT, [64, 64], weight.tobytes(), raw=True)],
    )
    graph = graph_of(
        [_node("Loop", ["n", "", "x"], ["z"], body=body)],
        {"x": (TensorProto.FLOAT, [1, 64])},
        {"z": (TensorProto.FLOAT, [1, 64])},
        [("n", np.int64(3))],
    )
    assert (BACKEND.load(portable(graph))(x=np.ones((1, 64), np.float32))["z"] == 8).all()


def _quantized(graph_of, kind, bits, block, scale_shape):
    packed = RNG.integers(0, 256, 64 * 48 * bits // 8, np.uint8)
    weight = TensorProto(name="q", data_type=kind, dims=[64, 48], raw_data=packed.tobytes())
    scale = RNG.random(scale_shape, np.float32)
    blocks = {"block_size": block} if block else {}
    axis = {"axis": 0} if scale_shape else {}
    nodes = [_node("DequantizeLinear", ["q", "s"], ["w"], **blocks, **axis), _node("MatMul", ["x", "w"], ["z"])]
    return graph_of(
        nodes,
        {"x": (TensorProto.FLOAT, [1, 64])},
        {"z": (TensorProto.FLOAT, [1, 48])},
        [weight, ("s", scale)],
    )


@pytest.mark.parametrize(
    "form",
    [
        (TensorProto.INT4, 4, 32, (2, 48)),
        (TensorProto.UINT4, 4, 32, (2, 48)),
        (TensorProto.INT8, 8, 0, (64,)),
    ],
)
def test_quantized_weights_equal_the_reference(graph_of, portable, reference, form):
    graph = _quantized(graph_of, *form)
    assert graph.tensors[0].dtype.onnx == form[0]
    x = RNG.standard_normal((1, 64), np.float32)
    want = reference(graph, {"x": x})["z"]
    np.testing.assert_allclose(BACKEND.load(portable(graph))(x=x)["z"], want, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "numpy"),
    [
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
        (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.UINT64, np.uint64),
        (TensorProto.BOOL, np.bool_),
    ],
)
def test_every_element_type_goes_in_and_comes_out_and_can_be_a_weight(graph_of, portable, kind, numpy):
    weight = RNG.integers(0, 2, (40, 40)).astype(numpy)
    tensor = TensorProto(name="w", data_type=kind, dims=[40, 40], raw_data=weight.tobytes())
    graph = graph_of(
        [
            _node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
            _node("Cast", ["w"], ["wider"], to=TensorProto.FLOAT),
            _node("Mul", ["wide", "wider"], ["y"]),
            _node("Cast", ["y"], ["z"], to=kind),
        ],
        {"x": (kind, [40, 40])},
        {"z": (kind, [40, 40])},
        [tensor],
    )
    x = RNG.integers(0, 2, (40, 40)).astype(numpy)
    out = BACKEND.load(portable(graph))(x=x)["z"]
    assert out.dtype == np.dtype(numpy)
    np.testing.assert_array_equal(out.astype(np.float64), x.astype(np.float64) * weight.astype(np.float64))


def test_weight_at_an_odd_offset_of_a_pack_is_taken(linear, portable, reference):
    raw = linear.tensors[0].load()
    room = np.zeros(len(raw) + 1, np.uint8)
    room[1:] = raw
    odd = dataclasses.replace(linear, tensors=(dataclasses.replace(linear.tensors[0], load=lambda: room[1:]),))
    x = RNG.standard_normal((1, 64), np.float32)
    np.testing.assert_allclose(BACKEND.load(portable(odd))(x=x)["z"], reference(linear, {"x": x})["z"], rtol=1e-4)


def test_failure_while_running_is_wrapped(graph_of, portable):
    graph = graph_of(
        [_node("Add", ["x", "y"], ["z"])],
        {"x": (TensorProto.FLOAT, ["a"]), "y": (TensorProto.FLOAT, ["b"])},
        {"z": (TensorProto.FLOAT, ["c"])},
    )
    engine = BACKEND.load(portable(graph))
    with pytest.raises(IncompatibleError, match=r"failed to run 'net' on x \[2\], y \[3\].*Add_z") as error:
        engine(x=np.zeros(2, np.float32), y=np.zeros(3, np.float32))
    assert error.value.__cause__ is not None


def test_wrong_inputs_are_refused(linear, portable):
    engine = BACKEND.load(portable(linear))
    with pytest.raises(UsageError, match="unknown input 'y'"):
        engine(y=np.zeros((1, 64), np.float32))
    with pytest.raises(UsageError, match="missing input: x"):
        engine()
    with pytest.raises(UsageError, match="takes float32, not float64"):
        engine(x=np.zeros((1, 64)))
    with pytest.raises(IncompatibleError, match="1x65"):
        engine(x=np.zeros((1, 65), np.float32))


def test_graph_that_the_installed_version_refuses_is_incompatible(linear, portable):
    old = dataclasses.replace(linear, proto=linear.proto.replace(b"MatMul", b"NatNul"))
    with pytest.raises(IncompatibleError, match=r"ONNX Runtime 1\..* refuses the network 'net'.*NatNul"):
        BACKEND.load(portable(old))


def test_graph_whose_weights_are_missing_is_malformed(linear, portable):
    with pytest.raises(MalformedError):
        BACKEND.load(portable(dataclasses.replace(linear, tensors=())))


def test_cuda_without_cuda_falls_back_to_the_cpu(linear, portable):
    engine = BACKEND.load(portable(linear, "cuda"))
    assert engine.raw.get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(IncompatibleError, match="not on 'tpu'"):
        BACKEND.load(portable(linear, "tpu"))


def test_optional_scalar_input(graph_of, portable):
    graph = graph_of(
        [_node("Add", ["x", "y"], ["z"])],
        {"x": (TensorProto.FLOAT, []), "y": (TensorProto.FLOAT, [0])},
        {"z": (TensorProto.FLOAT, [0])},
    )
    assert graph.inputs[0] == Value(name="x", dtype="float32", shape=())
    out = BACKEND.load(portable(graph))(x=np.float32(1), y=np.zeros(0, np.float32))
    assert out["z"].shape == (0,)
