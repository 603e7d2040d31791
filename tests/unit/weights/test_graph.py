"""Taking models apart and putting them together: the same outputs, wherever the weights stood."""

from __future__ import annotations

import os

import numpy as np
import onnx
import onnxruntime
import pytest
from builders import copy_of, network, onnx_model, run_ort, weights
from onnx import TensorProto, helper, numpy_helper

from wszoo.errors import BuildError, MalformedError, NotFoundError
from wszoo.weights.graph import (
    LOCATION,
    attach,
    external_initializers,
    graph_from_file,
    graph_from_model,
    scalars,
)

FLOAT = TensorProto.FLOAT
X = np.random.default_rng(9).standard_normal((2, 64)).astype(np.float32)


def names(graph):
    return [tensor.name for tensor in graph.tensors]


def put_back(graph):
    return attach(graph.proto, {tensor.name: tensor for tensor in graph.tensors})


def branch(name, *, constant, fill):
    """A body of If that gives a [64] tensor, held in a Constant node or an initializer."""
    value = numpy_helper.from_array(np.full(64, fill, np.float32), name)
    nodes = [helper.make_node("Constant", [], [name], value=value)] if constant else []
    nodes.append(helper.make_node("Identity", [name], [f"{name}_out"]))
    outputs = [helper.make_tensor_value_info(f"{name}_out", FLOAT, [64])]
    return helper.make_graph(nodes, name, [], outputs, [] if constant else [value])


def with_if(constant, *, same_name=False):
    bodies = {
        "then_branch": branch("yes", constant=constant, fill=1),
        "else_branch": branch("yes" if same_name else "no", constant=constant, fill=2),
    }
    return onnx_model(
        [helper.make_node("If", ["c"], ["z"], **bodies)], [("c", TensorProto.BOOL, [])], [("z", FLOAT, [64])]
    )


def with_loop():
    """Adds a constant of the body three times."""
    step = numpy_helper.from_array(np.arange(64, dtype=np.float32), "step")
    body = helper.make_graph(
        [
            helper.make_node("Constant", [], ["step"], value=step),
            helper.make_node("Add", ["state", "step"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, [64]),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("next", FLOAT, [64])],
    )
    return onnx_model(
        [helper.make_node("Loop", ["times", "", "x"], ["z"], body=body)],
        [("x", FLOAT, [64])],
        [("z", FLOAT, [64])],
        [("times", np.array(3, np.int64))],
    )


def with_constants():
    w, v = weights(3, (64, 64), (64, 32))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(w)),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Constant", [], ["axes"], value_ints=[1]),
        helper.make_node("Constant", [], ["many"], value_floats=[float(i) for i in range(64)]),
        helper.make_node("Mul", ["h", "half"], ["s"]),
        helper.make_node("Add", ["s", "many"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["m"]),
        helper.make_node("ReduceSum", ["m", "axes"], ["z"]),
    ]
    return onnx_model(nodes, [("x", FLOAT, [2, 64])], [("z", FLOAT, [2, 1])], [("v", v)])


def with_function():
    """A model-local function with weights of its own, which stay where they are."""
    w = numpy_helper.from_array(weights(4, (64, 64))[0])
    function = helper.make_function(
        "local",
        "Project",
        ["a"],
        ["b"],
        [helper.make_node("Constant", [], ["w"], value=w), helper.make_node("MatMul", ["a", "w"], ["b"])],
        [helper.make_opsetid("", 21)],
    )
    model = onnx_model(
        [helper.make_node("Project", ["x"], ["h"], domain="local"), helper.make_node("MatMul", ["h", "v"], ["z"])],
        [("x", FLOAT, [2, 64])],
        [("z", FLOAT, [2, 32])],
        [("v", weights(5, (64, 32))[0])],
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    return model


WHOLE = {
    "initializers": (network, {"x": X}, ["w", "b", "v"]),
    "constants": (with_constants, {"x": X}, ["v", "w", "many"]),
    "if with constants": (lambda: with_if(constant=True), {"c": np.array(True)}, None),
    "if with initializers": (lambda: with_if(constant=False), {"c": np.array(False)}, None),
    "loop": (with_loop, {"x": X[0]}, ["step"]),
    "function": (with_function, {"x": X}, ["v"]),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_model_put_together_again_is_valid_and_computes_the_same(case):
    make, feeds, expected = WHOLE[case]
    original = make()
    graph = graph_from_model(copy_of(original))
    if expected is not None:
        assert names(graph) == expected
    else:
        assert sorted(names(graph)) == ["no", "yes"]
    again = put_back(graph)
    onnx.checker.check_model(onnx.ModelProto.FromString(again), full_check=True)
    for one, other in zip(run_ort(original, feeds), run_ort(again, feeds), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("case", ["initializers", "constants", "function"])
def test_a_graph_without_its_weights_runs_with_them_given_by_name(case):
    make, feeds, _ = WHOLE[case]
    original = make()
    graph = graph_from_model(copy_of(original))
    options = onnxruntime.SessionOptions()
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(tensor.array()) for tensor in graph.tensors]
    options.add_external_initializers(names(graph), values)
    session = onnxruntime.InferenceSession(graph.proto, options, providers=["CPUExecutionProvider"])
    for one, other in zip(run_ort(original, feeds), session.run(None, feeds), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_graph_that_remains_is_small_and_says_where_its_weights_were():
    graph = graph_from_model(network())
    assert len(graph.proto) < 1000
    assert graph.weight_bytes == 4 * (64 * 64 + 64 + 64 * 32)
    model = onnx.ModelProto.FromString(graph.proto)
    for init in external_initializers(model.graph):
        assert [(entry.key, entry.value) for entry in init.external_data] == [("location", LOCATION)]
        assert not init.HasField("raw_data")
    assert [init.name for init in external_initializers(model.graph)] == ["w", "b", "v"]


def test_the_graph_does_not_depend_on_the_weights_nor_on_where_they_stood():
    one, other = graph_from_model(network(seed=1)), graph_from_model(network(seed=2))
    assert one.proto == other.proto
    assert one.tensors[0].load().tobytes() != other.tensors[0].load().tobytes()


def test_inputs_and_outputs_keep_names_types_and_dynamic_dimensions():
    graph = graph_from_model(network())
    assert [(value.name, value.dtype, value.shape) for value in graph.inputs] == [("x", "float32", ("n", 64))]
    assert [(value.name, value.dtype, value.shape) for value in graph.outputs] == [("z", "float32", ("n", 32))]


def test_unnamed_dynamic_dimensions_get_a_name():
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[0].ClearField("value")
    assert graph_from_model(model).inputs[0].shape == ("x_0", 64)


def test_a_dimension_of_minus_one_is_dynamic_as_it_is_to_every_runtime():
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert graph_from_model(model).inputs[0].shape == ("x_0", 64)


@pytest.mark.parametrize("shape", [[1 << 48], [1] * 33])
def test_a_shape_that_no_config_could_hold_is_refused_before_anything_is_written(shape):
    model = onnx_model([helper.make_node("Relu", ["x"], ["z"])], [("x", FLOAT, shape)], [("z", FLOAT, shape)])
    with pytest.raises(BuildError, match="input or output 'x' has the shape"):
        graph_from_model(model)


def test_weights_that_nothing_reads_are_dropped_and_the_rest_computes_the_same():
    """ONNX Runtime refuses external weights for an initializer that it has dropped."""
    model = with_if(constant=False)
    body = model.graph.node[0].attribute[0].g
    body.initializer.append(numpy_helper.from_array(np.ones(64, np.float32), "unused"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((64, 64), np.float32), "unused too"))
    graph = graph_from_model(copy_of(model))
    assert sorted(names(graph)) == ["no", "yes"]
    feeds = {"c": np.array(True)}
    np.testing.assert_array_equal(run_ort(model, feeds)[0], run_ort(put_back(graph), feeds)[0])


def test_an_initializer_that_is_itself_an_output_is_kept():
    model = network()
    model.graph.output.append(helper.make_tensor_value_info("spare", FLOAT, [64]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(64, np.float32), "spare"))
    assert "spare" in names(graph_from_model(model))


def test_two_tensors_of_one_name_are_refused():
    model = network()
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(MalformedError, match="has two tensors named 'w'"):
        graph_from_model(model)


def test_weights_that_old_models_list_as_inputs_are_no_inputs():
    """Before IR version 4 every initializer is also an input; small ones, which stay in the graph, count as well."""
    w, v = weights(0, (64, 64), (8,))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "small"], ["z"])]
    inputs = [("x", FLOAT, [2, 64]), ("w", FLOAT, [64, 64]), ("small", FLOAT, [1])]
    model = onnx_model(nodes, inputs, [("z", FLOAT, [2, 64])], [("w", w), ("small", v[:1])], ir=3, opset=9)
    graph = graph_from_model(copy_of(model))
    assert [value.name for value in graph.inputs] == ["x"]
    assert names(graph) == ["w"]
    np.testing.assert_array_equal(run_ort(model, {"x": X})[0], run_ort(put_back(graph), {"x": X})[0])


def test_notes_with_paths_of_the_exporting_machine_are_dropped():
    model = network()
    secret = "/home/someone/model.py"
    for place in (model, model.graph, model.graph.node[0]):
        place.doc_string = secret
        place.metadata_props.add(key="stack", value=secret)
    graph = graph_from_model(model)
    assert secret.encode() not in graph.proto
    assert graph.proto == graph_from_model(network()).proto


def test_branches_may_use_one_name_for_two_tensors():
    model = with_if(constant=True, same_name=True)
    graph = graph_from_model(copy_of(model))
    assert names(graph).count("yes") == 1
    for flag in (True, False):
        feed = {"c": np.array(flag)}
        np.testing.assert_array_equal(run_ort(model, feed)[0], run_ort(put_back(graph), feed)[0])


def test_scalars_are_found_in_initializers_constants_and_subgraphs():
    third = numpy_helper.from_array(np.array([[3]], np.float16))
    inner = helper.make_graph(
        [
            helper.make_node("Constant", [], ["three"], value=third),
            helper.make_node("Mul", ["h", "three"], ["o"]),
        ],
        "inner",
        [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT16, None)],
    )
    nodes = [
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Constant", [], ["unused"], value_float=9.0),
        helper.make_node("Constant", [], ["whole"], value_int=7),
        helper.make_node("Mul", ["x", "two"], ["a"]),
        helper.make_node("Div", ["a", "half"], ["b"]),
        helper.make_node("Add", ["b", "four"], ["c"]),
        helper.make_node("Mul", ["c", "vector"], ["d"]),
        helper.make_node("If", ["y"], ["z"], then_branch=inner, else_branch=inner),
    ]
    typed = helper.make_tensor("two", FLOAT, [1], [2.0])
    inits = [typed, ("four", np.float32(4)), ("vector", np.ones(2, np.float32)), ("n", np.array(5))]
    model = onnx_model(nodes, [("x", FLOAT, [2])], [("z", FLOAT, None)], inits)
    assert scalars(model.SerializeToString()) == sorted(
        [
            ("float16", np.float16(3).tobytes()),
            ("float32", np.float32(0.5).tobytes()),
            ("float32", np.float32(2).tobytes()),
        ]
    )


def test_scalars_survive_taking_the_model_apart():
    assert scalars(graph_from_model(network()).proto) == [("float32", np.float32(0.125).tobytes())]


def test_a_model_over_protobufs_limit_is_refused_with_the_limit():
    graph = graph_from_model(network())
    with pytest.raises(BuildError, match="over 2 GiB"):
        attach(graph.proto, {tensor.name: tensor for tensor in graph.tensors}, limit=graph.weight_bytes)


def test_a_tensor_that_is_not_given_is_named():
    graph = graph_from_model(network())
    with pytest.raises(MalformedError, match="needs a tensor 'v'"):
        attach(graph.proto, {tensor.name: tensor for tensor in graph.tensors[:-1]})


@pytest.mark.parametrize("attributes", [False, True], ids=["initializers", "constants"])
def test_external_data_is_mapped_from_beside_the_model(tmp_path, attributes):
    original = with_constants()
    path = tmp_path / "model.onnx"
    onnx.save_model(
        copy_of(original),
        path,
        save_as_external_data=True,
        size_threshold=0,
        convert_attribute=attributes,
        location="w.bin",
    )
    graph = graph_from_file(path)
    assert names(graph) == ["v", "w", "many"]
    np.testing.assert_array_equal(run_ort(original, {"x": X})[0], run_ort(put_back(graph), {"x": X})[0])


def test_small_external_tensors_come_back_into_the_graph(tmp_path):
    (tmp_path / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    small = TensorProto(data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    small.external_data.add(key="location", value="w.bin")
    initializer = TensorProto(name="i")
    initializer.MergeFrom(small)
    nodes = [
        helper.make_node("Constant", [], ["c"], value=small),
        helper.make_node("Add", ["c", "i"], ["s"]),
        helper.make_node("Add", ["x", "s"], ["z"]),
    ]
    graph = graph_from_model(onnx_model(nodes, [("x", FLOAT, [4])], [("z", FLOAT, [4])], [initializer]), tmp_path)
    assert names(graph) == []
    assert b"w.bin" not in graph.proto
    (result,) = run_ort(graph.proto, {"x": np.zeros(4, np.float32)})
    np.testing.assert_array_equal(result, 2 * np.arange(4))


def test_external_data_in_a_hub_cache_is_read_through_its_links(tmp_path):
    """Every file of a snapshot is a link to ../../blobs/<hash>."""
    snapshot, blobs = tmp_path / "snapshots" / "abc" / "onnx", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    onnx.save_model(
        network(), snapshot / "model.onnx", save_as_external_data=True, size_threshold=0, location="model.bin"
    )
    for number, name in enumerate(("model.onnx", "model.bin")):
        os.replace(snapshot / name, blobs / f"hash{number}")
        (snapshot / name).symlink_to(f"../../../blobs/hash{number}")
    assert names(graph_from_file(snapshot / "model.onnx")) == ["w", "b", "v"]


def test_files_that_are_no_models_are_named(tmp_path):
    with pytest.raises(NotFoundError, match=r"absent\.onnx"):
        graph_from_file(tmp_path / "absent.onnx")
    for content in (b"not protobuf at all", b""):
        path = tmp_path / "broken.onnx"
        path.write_bytes(content)
        with pytest.raises(MalformedError, match=r"broken\.onnx"):
            graph_from_file(path)


def test_an_input_that_is_no_tensor_is_named():
    model = network()
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = FLOAT
    with pytest.raises(BuildError, match="'x' is not a tensor"):
        graph_from_model(model)
    model = network()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    with pytest.raises(BuildError, match="'x' holds strings"):
        graph_from_model(model)
