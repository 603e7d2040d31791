"""What sets two graphs apart, and what does not: the values of floating-point constants."""

from __future__ import annotations

import numpy as np
import pytest
from builders import network, onnx_model
from onnx import TensorProto, helper, numpy_helper

from wszoo.weights.graph import graph_from_model
from wszoo.weights.skeleton import difference


def proto(model):
    return graph_from_model(model).proto


def small(value, *, axes=1, operator="Mul", constant=False, name="c"):
    """``ReduceSum(x * value)``; the value stands in the graph, as an initializer or in a Constant node."""
    tensor = numpy_helper.from_array(np.float32(value), name)
    nodes = [helper.make_node("Constant", [], [name], value=tensor)] if constant else []
    nodes += [helper.make_node(operator, ["x", name], ["m"]), helper.make_node("ReduceSum", ["m", "axes"], ["y"])]
    inits = [numpy_helper.from_array(np.array([axes], np.int64), "axes"), *([] if constant else [tensor])]
    return onnx_model(nodes, [("x", TensorProto.FLOAT, [4, 4])], [("y", TensorProto.FLOAT, None)], inits)


def test_weights_that_were_taken_out_make_no_difference():
    assert difference(proto(network(1)), proto(network(2))) == ""


@pytest.mark.parametrize("constant", [False, True])
def test_small_constants_make_no_difference(constant):
    before, now = proto(small(1.0, constant=constant)), proto(small(2.0, constant=constant))
    assert before != now
    assert difference(before, now) == ""


def test_floats_of_a_constant_node_make_no_difference():
    protos = []
    for value in (1.0, 2.0):
        nodes = [
            helper.make_node("Constant", [], ["c"], value_floats=[value] * 4),
            helper.make_node("Add", ["x", "c"], ["y"]),
        ]
        protos.append(proto(onnx_model(nodes, [("x", 1, [4])], [("y", 1, [4])])))
    assert protos[0] != protos[1]
    assert difference(*protos) == ""


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (small(1.0, axes=0), "the tensor 'axes' changed"),
        (small(1.0, operator="Add"), "node"),
        (small(1.0, name="d"), "the tensor 'c' is now 'd'"),
        (network(1), "the input 'x' changed"),
    ],
    ids=["an integer", "an operator", "a name", "another network"],
)
def test_everything_else_does(changed, says):
    assert says in difference(proto(small(1.0)), proto(changed))


def test_one_node_more_is_counted():
    longer = small(1.0)
    longer.graph.node.append(helper.make_node("Identity", ["y"], ["z"]))
    assert difference(proto(small(1.0)), proto(longer)) == "it had 2 nodes and has 3"


def test_bodies_of_control_flow_are_looked_into():
    def branching(value, operator="Add"):
        body = helper.make_graph(
            [helper.make_node(operator, ["x", "k"], ["o"])],
            "body",
            [],
            [helper.make_tensor_value_info("o", 1, [4])],
            [numpy_helper.from_array(np.float32(value), "k")],
        )
        nodes = [helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)]
        return proto(onnx_model(nodes, [("c", TensorProto.BOOL, []), ("x", 1, [4])], [("y", 1, [4])]))

    assert difference(branching(1), branching(2)) == ""
    assert difference(branching(1), branching(1, "Mul")) == "the node '' changed"
