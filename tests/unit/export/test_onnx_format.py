"""ONNX files: what other programs read computes what the portable plan computes."""

from __future__ import annotations

import tracemalloc

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from builders import network, onnx_model, publish_model, replace_in_index, weights
from onnx import helper, numpy_helper

from wszoo.backends.onnxruntime import reference
from wszoo.digest import Digest
from wszoo.errors import BuildError, IntegrityError, MalformedError
from wszoo.export.folder import export_folder
from wszoo.export.job import Options
from wszoo.export.onnx_file import ALIGN, GRANULARITY, LARGE, check_file, write_inline, write_onnx
from wszoo.names import Ref
from wszoo.schema.model import TensorInfo
from wszoo.store.documents import read_indexed_model
from wszoo.weights.apart import Graph
from wszoo.weights.graph import graph_from_model
from wszoo.weights.tensor import DTYPES, Tensor


def run(path, **feeds):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)


def infos(graph):
    return [
        TensorInfo(name=each.name, dtype=each.dtype.name, shape=each.shape, digest=Digest.of(each.load()))
        for each in graph.tensors
    ]


def write(graph, tmp_path, *, table=None):
    out = tmp_path / "out"
    with export_folder(out, force=False, needed=0) as folder:
        write_onnx(folder, "net.onnx", graph, table or infos(graph), lambda _: None, data="net.onnx.data")
    return out / "net.onnx"


def places(path):
    model = onnx.load(path, load_external_data=False)
    return {
        init.name: {entry.key: entry.value for entry in init.external_data}
        for init in model.graph.initializer
        if init.data_location == onnx.TensorProto.EXTERNAL
    }


@pytest.mark.parametrize("inline", [False, True])
def test_the_file_computes_what_the_portable_plan_computes(inline, export, origin, tmp_path):
    out = export("onnx", options=Options(inline=inline))
    x = np.random.default_rng(0).standard_normal((3, 64), np.float32)
    portable = reference(graph_from_model(network()))
    np.testing.assert_array_equal(run(out / "net.onnx", x=x)[0], portable(x=x)["z"])
    assert (out / "net.onnx.data").exists() is not inline
    assert (out / "assets" / "labels.txt").read_bytes() == b"cat\ndog\n"
    onnx.checker.check_model(str(out / "net.onnx"), full_check=True)


def test_tensors_begin_where_they_can_be_mapped(tmp_path):
    large = np.zeros((LARGE // 4,), np.float32)
    inits = [("s", np.ones(50, np.float32)), ("w", large), ("t", np.ones(50, np.float32) * 2), ("v", large + 1)]
    nodes = [helper.make_node("Sum", ["x", "w", "v"], ["y"]), helper.make_node("Sum", ["s", "t"], ["u"])]
    outputs = [("y", 1, [LARGE // 4]), ("u", 1, [50])]
    found = places(write(graph_from_model(onnx_model(nodes, [("x", 1, [1])], outputs, inits)), tmp_path))
    assert {name for name, place in found.items() if int(place["offset"]) % GRANULARITY == 0} >= {"w", "v"}
    assert all(int(place["offset"]) % ALIGN == 0 for place in found.values())
    assert {place["location"] for place in found.values()} == {"net.onnx.data"}


def test_equal_tensors_are_written_once(tmp_path):
    (w,) = weights(0, (64, 64))
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])]
    model = onnx_model(nodes, [("x", 1, ["n", 64])], [("y", 1, ["n", 64])], [("a", w), ("b", w)])
    path = write(graph_from_model(model), tmp_path)
    assert places(path)["a"] == places(path)["b"]
    assert (tmp_path / "out" / "net.onnx.data").stat().st_size == w.nbytes
    x = np.eye(64, dtype=np.float32)
    np.testing.assert_allclose(run(path, x=x)[0], w @ w, rtol=1e-5, atol=1e-6)


def test_memory_holds_one_tensor_at_a_time(tmp_path):
    count, size = 8, 16 << 20

    def tensor(number):
        def load():
            return np.full(size, number, np.uint8)

        return Tensor(f"w{number}", DTYPES["uint8"], (size,), load)

    tensors = tuple(map(tensor, range(count)))
    inits = [
        onnx.TensorProto(name=each.name, data_type=2, dims=each.shape, data_location=onnx.TensorProto.EXTERNAL)
        for each in tensors
    ]
    for init in inits:
        init.external_data.add(key="location", value="wszoo")
    nodes = [helper.make_node("Identity", [each.name], [f"y{number}"]) for number, each in enumerate(tensors)]
    model = onnx_model(nodes, [], [(f"y{number}", 2, [size]) for number in range(count)], inits)
    graph, table = Graph(model.SerializeToString(), tensors, (), ()), infos(Graph(b"", tensors, (), ()))
    tracemalloc.start()
    write(graph, tmp_path, table=table)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "out" / "net.onnx.data").stat().st_size == count * size
    assert peak < 2.5 * size


def test_weights_over_two_gigabytes_are_not_put_inline(tmp_path):
    small = graph_from_model(network())
    huge = Tensor("w", DTYPES["float32"], (64, 1 << 23), lambda: pytest.fail("the tensor was loaded"))
    model = onnx.ModelProto.FromString(small.proto)
    next(init for init in model.graph.initializer if init.name == "w").dims[:] = huge.shape
    graph = Graph(model.SerializeToString(), (huge, *small.tensors[1:]), small.inputs, small.outputs)
    with (
        export_folder(tmp_path / "out", force=False, needed=0) as folder,
        pytest.raises(BuildError, match="2 GiB") as e,
    ):
        write_inline(folder, "net.onnx", graph, lambda _: None)
    assert "--inline" in e.value.hint


def test_weights_in_the_bodies_of_an_if_go_inline(tmp_path):
    (w,) = weights(0, (64, 64))
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "inner"], ["y"])],
        "then",
        [],
        [helper.make_tensor_value_info("y", 1, ["n", 64])],
        [numpy_helper.from_array(w, "inner")],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "else", [], [helper.make_tensor_value_info("y", 1, ["n", 64])]
    )
    node = helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=other)
    model = onnx_model([node], [("x", 1, ["n", 64]), ("c", 9, [])], [("z", 1, ["n", 64])])
    path = write(graph_from_model(model), tmp_path)
    x = np.eye(64, dtype=np.float32)
    np.testing.assert_allclose(run(path, x=x, c=np.array(True))[0], w, rtol=1e-6)


def test_a_graph_that_points_to_a_file_of_the_readers_is_refused(tmp_path):
    secret = onnx.TensorProto(name="s", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    secret.external_data.add(key="location", value="../../etc/passwd")
    model = onnx_model([helper.make_node("Constant", [], ["y"], value=secret)], [], [("y", 1, [4])])
    graph = Graph(model.SerializeToString(), (), (), ())
    with pytest.raises(MalformedError, match="keeps its data in a file"):
        write(graph, tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_graph_that_is_no_onnx_model_is_malformed(tmp_path):
    with pytest.raises(MalformedError, match="not an ONNX model"):
        write(Graph(b"\xff" * 100, (), (), ()), tmp_path)


def test_what_the_checker_refuses_is_not_written_off_as_fine(tmp_path):
    model = onnx_model([helper.make_node("NoSuchOperator", ["x"], ["y"])], [("x", 1, [4])], [("y", 1, [4])])
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BuildError, match="NoSuchOperator"):
        check_file(tmp_path / "net.onnx", "net")


def test_a_damaged_weight_leaves_no_export(export, origin, tmp_path):
    config = read_indexed_model(origin, origin.refs.get(Ref("net", "1")).descriptor).config
    path = origin.blobs.path(config.packs[0])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        export("onnx")
    assert not (tmp_path / "out").exists()


def test_components_and_assets_with_names_that_leave_the_folder_are_refused(store, tmp_path, export):
    publish_model(store, "net:1")

    def hostile(config):
        return msgspec.structs.replace(config, components={"../../net": config.components["net"]})

    replace_in_index(store, "net:1", model_config=hostile)
    with pytest.raises(MalformedError, match="cannot be a file name"):
        export("onnx", store=store)
    replace_in_index(
        store,
        "net:1",
        model_config=lambda config: msgspec.structs.replace(
            config,
            components={"net": config.components["../../net"]},
            assets={"../labels.txt": next(iter(config.assets.values()))},
        ),
    )
    with pytest.raises(MalformedError, match="cannot be a file name"):
        export("onnx", store=store)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "labels.txt").exists()
