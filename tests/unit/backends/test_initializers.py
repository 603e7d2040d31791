import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from wszoo.backends.initializers import split
from wszoo.errors import BuildError, MalformedError


def test_graph_without_bodies_is_left_as_it_is(linear):
    proto, tensors = split(linear)
    assert proto is linear.proto
    assert [tensor.name for tensor in tensors] == ["w"]


def test_weights_of_bodies_go_inline_and_the_outer_ones_by_name(in_bodies):
    graph, _, first, _ = in_bodies
    proto, tensors = split(graph)
    assert [tensor.name for tensor in tensors] == ["w"]
    choose = onnx.ModelProto.FromString(proto).graph.node[1]
    body = next(attribute.g for attribute in choose.attribute if attribute.name == "then_branch")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(body.initializer[0]), first)


def test_bodies_over_the_limit_are_refused(in_bodies):
    with pytest.raises(BuildError, match="more than protobuf's 20000"):
        split(in_bodies[0], limit=20_000)


def test_weight_that_is_not_in_the_table_is_refused(linear):
    with pytest.raises(MalformedError, match="'w' is not in the tensor table"):
        split(dataclasses.replace(linear, tensors=()))


def test_weight_of_another_shape_is_refused(linear):
    other = dataclasses.replace(linear.tensors[0], shape=(48, 64))
    with pytest.raises(MalformedError, match="not what the tensor table says"):
        split(dataclasses.replace(linear, tensors=(other,)))


def test_initializer_that_points_to_a_file_is_refused(linear):
    model = onnx.ModelProto.FromString(linear.proto)
    model.graph.initializer[0].external_data[0].value = "../../etc/passwd"
    with pytest.raises(MalformedError, match=r"in '\.\./\.\./etc/passwd'"):
        split(dataclasses.replace(linear, proto=model.SerializeToString()))


def _file_tensor():
    tensor = TensorProto(name="secret", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def _in_node(model):
    model.graph.node.append(helper.make_node("Constant", [], ["c"], name="leak", value=_file_tensor()))


def _in_body(model):
    constant = helper.make_node("Constant", [], ["c"], name="leak", value=_file_tensor())
    body = helper.make_graph([constant], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["l"], body=body))


def _in_function(model):
    constant = helper.make_node("Constant", [], ["c"], name="leak", value=_file_tensor())
    model.functions.append(helper.make_function("d", "leak", [], ["c"], [constant], [helper.make_opsetid("", 21)]))


def _in_sparse(model):
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(_file_tensor())
    sparse.values.name = "leak"


@pytest.mark.parametrize("hide", [_in_node, _in_body, _in_function, _in_sparse])
def test_constant_that_points_to_a_file_is_refused_wherever_it_hides(linear, hide):
    model = onnx.ModelProto.FromString(linear.proto)
    hide(model)
    with pytest.raises(MalformedError, match="'leak' keeps its data in a file"):
        split(dataclasses.replace(linear, proto=model.SerializeToString()))
