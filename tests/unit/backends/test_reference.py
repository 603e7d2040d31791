from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from wszoo.backends.onnxruntime import reference
from wszoo.errors import BuildError
from wszoo.weights.graph import graph_from_model


def model(weight: onnx.TensorProto, nodes: list[onnx.NodeProto], opset: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [256])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def test_bfloat16_weights_are_handed_over_as_they_are() -> None:
    values = np.linspace(-3, 3, 256).astype(ml_dtypes.bfloat16)
    cast = [helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT), helper.make_node("Add", ["x", "f"], ["y"])]
    graph = graph_from_model(model(numpy_helper.from_array(values, "w"), cast, 17))
    assert [tensor.dtype.name for tensor in graph.tensors] == ["bfloat16"]
    y = reference(graph)(x=np.zeros(256, np.float32))["y"]
    np.testing.assert_array_equal(y, values.astype(np.float32))


def test_packed_int4_weights_work_too() -> None:
    values = np.arange(256) % 16 - 8
    weight = helper.make_tensor("w", TensorProto.INT4, [256], values)
    nodes = [
        helper.make_node("Constant", [], ["scale"], value=numpy_helper.from_array(np.float32(0.5))),
        helper.make_node("DequantizeLinear", ["w", "scale"], ["f"]),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    graph = graph_from_model(model(weight, nodes, 21))
    assert [tensor.dtype.name for tensor in graph.tensors] == ["int4"]
    y = reference(graph)(x=np.zeros(256, np.float32))["y"]
    np.testing.assert_array_equal(y, values * np.float32(0.5))


def test_the_frugal_reference_computes_the_same() -> None:
    values = np.linspace(-3, 3, 256).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["h", "w"], ["m"]),
        helper.make_node("Cast", ["m"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = graph_from_model(model(numpy_helper.from_array(values, "w"), nodes, 17))
    x = np.linspace(0, 1, 256, dtype=np.float32)
    usual, frugal = (reference(graph, frugal=sparing)(x=x)["y"] for sparing in (False, True))
    np.testing.assert_array_equal(frugal, usual)


def test_graph_that_onnx_runtime_refuses_is_a_build_error() -> None:
    weight = numpy_helper.from_array(np.zeros(256, np.float32), "w")
    graph = graph_from_model(model(weight, [helper.make_node("NoSuchOperator", ["x", "w"], ["y"])], 17))
    with pytest.raises(BuildError, match=r"ONNX Runtime .* refuses the network 'model'.*NoSuchOperator"):
        reference(graph)
