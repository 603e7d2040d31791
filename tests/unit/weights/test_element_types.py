"""Element types: every one that ONNX has comes out of a graph and goes back, whichever field holds it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from builders import onnx_model
from onnx import TensorProto, helper, numpy_helper

from wszoo.errors import MalformedError
from wszoo.weights.graph import attach, graph_from_model
from wszoo.weights.tensor import DTYPES, dtype_from_onnx, dtype_of, tensor_from_array

FLOAT = TensorProto.FLOAT


def names(graph):
    return [tensor.name for tensor in graph.tensors]


def put_back(graph):
    return attach(graph.proto, {tensor.name: tensor for tensor in graph.tensors})


def holding(tensor, **kwargs):
    """A model in which ``tensor`` (named w) is looked at and x passed through."""
    nodes = [helper.make_node("Shape", ["w"], ["s"]), helper.make_node("Identity", ["x"], ["z"])]
    return onnx_model(
        nodes, [("x", FLOAT, [1])], [("z", FLOAT, [1]), ("s", TensorProto.INT64, [None])], [tensor], **kwargs
    )


def raw_of(name, count):
    """Bytes of ``count`` elements that are valid for every type."""
    return bytes((i * 7) % 2 for i in range(dtype_of(name).nbytes((count,))))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_element_type_is_taken_out_and_put_back_from_raw_data(dtype):
    count = 2050 if dtype not in ("int4", "uint4", "float4e2m1") else 4099
    raw = raw_of(dtype, count)
    tensor = TensorProto(name="w", data_type=dtype_of(dtype).onnx, dims=[count], raw_data=raw)
    graph = graph_from_model(holding(tensor))
    assert names(graph) == ["w"]
    assert graph.tensors[0].load().tobytes() == raw
    assert graph.tensors[0].nbytes == len(raw)
    assert graph.tensors[0].dtype.name == dtype
    (again,) = onnx.ModelProto.FromString(put_back(graph)).graph.initializer
    assert again.raw_data == raw
    assert list(again.dims) == [count]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_element_type_is_read_from_typed_fields(dtype):
    number, count = dtype_of(dtype).onnx, 2050
    values = [float(i % 2) for i in range(count)]
    if dtype.startswith("complex"):
        values = [complex(value) for value in values]
    elif "float" not in dtype:
        values = [int(value) for value in values]
    typed = helper.make_tensor("w", number, [count], values)
    assert not typed.HasField("raw_data")
    graph = graph_from_model(holding(typed))
    tensor = graph.tensors[0]
    assert tensor.load().tobytes() == numpy_helper.from_array(numpy_helper.to_array(typed)).raw_data
    if not tensor.dtype.packed:
        np.testing.assert_array_equal(tensor.array().astype(np.complex128), np.array(values))


def test_element_types_have_the_numbers_and_sizes_that_onnx_gives_them():
    for name, dtype in DTYPES.items():
        onnx_name = {"float32": "FLOAT", "float64": "DOUBLE"}.get(name, name.upper())
        assert TensorProto.DataType.Value(onnx_name) == dtype.onnx
        assert dtype_from_onnx(dtype.onnx) is dtype
        if not dtype.packed:
            assert helper.tensor_dtype_to_np_dtype(dtype.onnx).itemsize * 8 == dtype.bits
    assert dtype_of("int4").nbytes((3, 3)) == 5
    assert dtype_of("int4").nbytes(()) == 1
    assert dtype_of("float32").nbytes((0, 5)) == 0


@pytest.mark.parametrize(("name", "number"), [("string", 8), ("float128", 99), ("", 0)])
def test_an_unknown_element_type_is_named(name, number):
    with pytest.raises(MalformedError, match=repr(name)):
        dtype_of(name)
    with pytest.raises(MalformedError, match=f"element type {number} "):
        dtype_from_onnx(number)


def test_an_array_of_a_type_that_onnx_lacks_is_refused():
    with pytest.raises(MalformedError, match="'w' has the element type datetime64"):
        tensor_from_array("w", np.zeros(4, "datetime64[s]"))
    assert tensor_from_array("w", np.zeros(4, ml_dtypes.bfloat16)).dtype.name == "bfloat16"


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (numpy_helper.from_array(np.zeros(31, np.float32), "w"), "under 128 bytes"),
        (numpy_helper.from_array(np.array(1.0, np.float32), "w"), "scalar"),
        (numpy_helper.from_array(np.zeros((0, 64), np.float32), "w"), "empty"),
        (numpy_helper.from_array(np.arange(128), "w"), "shapes and indices"),
        (helper.make_tensor("w", TensorProto.STRING, [100], [b"long enough"] * 100), "strings"),
    ],
)
def test_what_is_no_weight_stays_in_the_graph(tensor, why):
    before = tensor.SerializeToString()
    graph = graph_from_model(holding(tensor))
    assert names(graph) == [], why
    (kept,) = onnx.ModelProto.FromString(graph.proto).graph.initializer
    assert kept.SerializeToString() == before


def test_a_string_constant_stays_a_constant():
    strings = helper.make_tensor("", TensorProto.STRING, [2], [b"a" * 200, b"b" * 200])
    nodes = [
        helper.make_node("Constant", [], ["one"], value=strings),
        helper.make_node("Constant", [], ["two"], value_strings=[b"a" * 200]),
        helper.make_node("Shape", ["one"], ["z"]),
    ]
    graph = graph_from_model(onnx_model(nodes, [], [("z", TensorProto.INT64, [1])]))
    assert names(graph) == []
    assert [node.op_type for node in onnx.ModelProto.FromString(graph.proto).graph.node] == ["Constant"] * 2 + ["Shape"]
