from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from wszoo.backends.onnxruntime import reference
from wszoo.errors import BuildError
from wszoo.families.bind import bind, linear_weights
from wszoo.families.checks import check_graph
from wszoo.families.quantize import SCHEMES, dequantized, quantize
from wszoo.families.spool import Spool
from wszoo.weights.tensor import DTYPES, tensor_from_array

if TYPE_CHECKING:
    from pathlib import Path

ROWS, COLUMNS = 16, 128
WEIGHT = np.random.default_rng(0).standard_normal((ROWS, COLUMNS), np.float32)


def model(opset: int = 21) -> onnx.ModelProto:
    """``x @ weight.T + bias``, both weights as inputs."""
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["batch", COLUMNS]), ("weight", [ROWS, COLUMNS]), ("bias", [ROWS]))
    ]
    nodes = [
        helper.make_node("Transpose", ["weight"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["product"], name="product"),
        helper.make_node("Add", ["product", "bias"], ["y"], name="add"),
    ]
    graph = helper.make_graph(
        nodes, "g", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", ROWS])]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def tensors() -> dict:
    bias = np.linspace(0, 1, ROWS, dtype=np.float32)
    return {"weight": tensor_from_array("weight", WEIGHT), "bias": tensor_from_array("bias", bias)}


def test_weights_leave_the_inputs_and_small_ones_stand_in_the_graph() -> None:
    graph = bind(model(), tensors())
    check_graph(graph, "it", full=True)
    assert [value.name for value in graph.inputs] == ["x"]
    assert [tensor.name for tensor in graph.tensors] == ["weight"]  # the bias has 64 bytes
    x = np.ones((2, COLUMNS), np.float32)
    assert np.allclose(reference(graph)(x=x)["y"], x @ WEIGHT.T + np.linspace(0, 1, ROWS), atol=1e-4)


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_quantized_weight_takes_the_old_ones_place(tmp_path: Path, name: str) -> None:
    plain = tensors()
    found, _ = quantize(plain.pop("weight"), SCHEMES[name], DTYPES["float32"], Spool(tmp_path / "spool"))
    graph = bind(model(), plain, {"weight": found})
    check_graph(graph, "it", full=True)
    assert {tensor.name for tensor in graph.tensors} <= {f"weight.{name}", f"weight.{name}_scales"}
    x = np.ones((2, COLUMNS), np.float32)
    want = x @ dequantized(found).T + np.linspace(0, 1, ROWS)
    assert np.allclose(reference(graph)(x=x)["y"], want, atol=1e-3)


def test_only_second_factors_of_products_count_as_linear() -> None:
    assert linear_weights(model(), {"weight", "bias"}) == {"weight"}
    looked_up = model()
    looked_up.graph.node.append(helper.make_node("Gather", ["weight", "ids"], ["rows"], name="look up"))
    assert linear_weights(looked_up, {"weight", "bias"}) == set()


def test_weight_of_another_shape_or_type_is_refused() -> None:
    for wrong in (WEIGHT.T.copy(), WEIGHT.astype(np.float16)):
        with pytest.raises(BuildError, match="the weight 'weight' is"):
            bind(model(), {**tensors(), "weight": tensor_from_array("weight", wrong)})


def test_quantizing_needs_an_opset_that_knows_blocks(tmp_path: Path) -> None:
    plain = tensors()
    found, _ = quantize(plain.pop("weight"), SCHEMES["int4"], DTYPES["float32"], Spool(tmp_path / "spool"))
    with pytest.raises(BuildError, match="need opset 21"):
        bind(model(18), plain, {"weight": found})
