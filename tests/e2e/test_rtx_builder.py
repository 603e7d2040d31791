"""Real plans from the real TensorRT-RTX builder, on a machine without a GPU."""

import logging
import signal
from contextlib import contextmanager

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from wszoo.backends.protocol import Assembled, BuildJob
from wszoo.backends.tensorrt_rtx import TensorRTRTXBackend
from wszoo.backends.trt_plan import HEADER, read_header
from wszoo.digest import Digest
from wszoo.errors import BuildError, IncompatibleError, StorageError, UsageError
from wszoo.names import TargetSpec
from wszoo.progress import Silent
from wszoo.schema.plan import Kind, PlanConfig, Profile, ShapeRange
from wszoo.weights.graph import graph_from_model
from wszoo.weights.tensor import Tensor

BACKEND = TensorRTRTXBackend()
RNG = np.random.default_rng(5)
value = helper.make_tensor_value_info
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def _graph(nodes, inputs, outputs, weights=()):
    inits = [w if isinstance(w, TensorProto) else numpy_helper.from_array(w[1], w[0]) for w in weights]
    graph = helper.make_graph(nodes, "test", inputs, outputs, inits)
    return graph_from_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def _weight(name, *shape, dtype=np.float16):
    return name, RNG.standard_normal(shape).astype(dtype)


@pytest.fixture(scope="module")
def small():
    """A convolution and two projections in fp16, 1.2 MB of weights."""
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "a"], ["h"], name="first", transB=1),
        helper.make_node("MatMul", ["h", "b"], ["z"], name="second"),
    ]
    weights = [_weight("k", 256, 8, 3, 3), _weight("a", 1024, 256), _weight("b", 1024, 300)]
    return _graph(nodes, [value("x", HALF, [1, 8, 16, 16])], [value("z", HALF, [1, 300])], weights)


@pytest.fixture
def build(tmp_path):
    def run(graph, target="rtx-sm89", profiles=(), progress=None, name="plan"):
        out = tmp_path / name
        job = BuildJob(
            component="net",
            graph=graph,
            target=BACKEND.target(TargetSpec.parse(target)),
            profiles=profiles,
            progress=progress or Silent(),
        )
        BACKEND.build(job, out)
        return out.read_bytes()

    return run


def _matmul(*, batch=1, dtype=HALF, weight=None):
    array = np.float16 if dtype == HALF else np.float32
    node = helper.make_node("MatMul", ["x", "w"], ["z"], name="product")
    weights = [weight or _weight("w", 256, 512, dtype=array)]
    return _graph([node], [value("x", dtype, [batch, 256])], [value("z", dtype, [batch, 512])], weights)


@pytest.mark.parametrize("target", ["rtx-sm75", "rtx-sm80", "rtx-sm86", "rtx-sm89", "rtx-sm120", "rtx-sm86-sm89"])
def test_builds_a_full_plan(build, small, target):
    plan = build(small, target)
    version = BACKEND.runtime().version
    assert ".".join(map(str, read_header(plan, b"vtrt", "plan").version)) == version
    assert int.from_bytes(plan[16:24], "little") == len(plan)
    assert len(plan) > small.weight_bytes


def test_same_job_gives_the_same_bytes(build, small):
    assert build(small, name="a") == build(small, name="b")


def test_compute_capabilities_are_those_of_the_target(build):
    """The header's set of capabilities (offset 32, a bit each) is not documented; as seen in 1.7.1."""
    bits = {"rtx-sm75": 1, "rtx-sm80": 2, "rtx-sm86": 4, "rtx-sm89": 8, "rtx-sm120": 16, "rtx-sm75-sm89-sm121": 41}
    assert {target: build(_matmul(), target)[32] for target in bits} == bits


def test_plan_holds_the_weights_that_were_given_by_address(build):
    graph = _matmul(batch=2)
    assert graph.tensors[0].load().tobytes() in build(graph)


def test_product_with_a_single_row_holds_its_weight_transposed(build):
    """Seen in 1.7.1: a matrix-vector product is another kernel, with its own layout."""
    graph = _matmul(batch=1)
    assert np.ascontiguousarray(graph.tensors[0].array().T).tobytes() in build(graph)


def test_weight_that_is_mapped_from_a_file_is_built(build, tmp_path):
    path = tmp_path / "blob"
    path.write_bytes(_weight("w", 256, 512)[1].tobytes())
    graph = _matmul(batch=2)
    mapped = Tensor("w", graph.tensors[0].dtype, (256, 512), lambda: np.memmap(path, np.uint8, "r"))
    plan = build(type(graph)(graph.proto, (mapped,), graph.inputs, graph.outputs))
    assert path.read_bytes() in plan


def test_dynamic_batch_with_two_profiles(build):
    ranges = [((1, 256), (2, 256), (4, 256)), ((4, 256), (8, 256), (32, 256))]
    profiles = tuple(
        Profile(name=f"p{n}", inputs={"x": ShapeRange(min=low, opt=best, max=high)})
        for n, (low, best, high) in enumerate(ranges)
    )
    both = build(_matmul(batch="batch"), profiles=profiles)
    one = build(_matmul(batch="batch"), profiles=profiles[:1])
    assert len(both) > len(one) > 256 * 512 * 2


def test_dynamic_batch_without_a_profile_shows_the_syntax(build):
    with pytest.raises(UsageError, match="dynamic input 'x' has no optimization profile") as error:
        build(_matmul(batch="batch"))
    assert "--profile x=1x256:1x256:8x256" in error.value.hint


def test_mixed_element_types_are_refused_with_the_node_and_the_reason(build):
    node = helper.make_node("Concat", ["x", "y"], ["z"], name="join_embeddings", axis=0)
    graph = _graph([node], [value("x", FLOAT, [1, 4]), value("y", HALF, [1, 4])], [value("z", FLOAT, [2, 4])])
    with pytest.raises(BuildError, match=r"node 'join_embeddings' \(Concat\): .*must all be of the same type") as error:
        build(graph)
    assert "inputs[1] is of type Half but inputs[0] is of type Float" in error.value.message
    assert "cudaError" not in error.value.message
    assert "strongly typed" in error.value.hint


def test_unknown_operators_are_refused_with_each_node(build):
    nodes = [helper.make_node("NoSuch", [a], [b], name=f"odd_{a}") for a, b in ("xy", "yz")]
    graph = _graph(nodes, [value("x", FLOAT, [4])], [value("z", FLOAT, [4])])
    with pytest.raises(BuildError, match=r"node 'odd_x' \(NoSuch\): .*; node 'odd_y' \(NoSuch\)") as error:
        build(graph)
    assert "portable" in error.value.hint


def test_node_without_a_name_is_given_by_its_number(build):
    graph = _graph([helper.make_node("NoSuch", ["x"], ["z"])], [value("x", FLOAT, [4])], [value("z", FLOAT, [4])])
    with pytest.raises(BuildError, match=r"node 'number 0' \(NoSuch\)"):
        build(graph)


def test_turing_without_fp32_products_says_so(build):
    with pytest.raises(BuildError, match=r"rtx-sm75: .*'product' for Turing \(SM75\): FP32 GEMM is not") as error:
        build(_matmul(dtype=FLOAT), "rtx-sm75")
    assert "export in fp16" in error.value.hint


def test_float64_input_that_would_be_narrowed_is_refused(build):
    nodes = [helper.make_node("Cast", ["x"], ["z"], to=FLOAT)]
    graph = _graph(nodes, [value("x", TensorProto.DOUBLE, [4])], [value("z", FLOAT, [4])])
    with pytest.raises(BuildError, match=r"x float64 \[4\], which TensorRT would turn into FLOAT"):
        build(graph)


def test_input_whose_values_are_a_shape_is_refused(build):
    nodes = [helper.make_node("Reshape", ["x", "s"], ["z"])]
    inputs = [value("x", FLOAT, [4, 16]), value("s", TensorProto.INT64, [2])]
    with pytest.raises(BuildError, match=r"uses the values of s int64 \[2\] as a shape"):
        build(_graph(nodes, inputs, [value("z", FLOAT, ["a", "b"])]))


def test_weights_in_constant_nodes_are_built(build):
    array = _weight("w", 256, 512)[1]
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(array)),
        helper.make_node("MatMul", ["x", "w"], ["z"], name="product"),
    ]
    graph = _graph(nodes, [value("x", HALF, [2, 256])], [value("z", HALF, [2, 512])])
    assert [tensor.name for tensor in graph.tensors] == ["w"]
    assert array.tobytes() in build(graph)


def test_weights_in_the_branches_of_an_if_are_built(build):
    arrays = [_weight("w", 256, 256)[1] for _ in range(2)]
    bodies = [
        helper.make_graph(
            [helper.make_node("MatMul", ["x", f"w_{out}"], [out], name=f"in_{out}")],
            out,
            [],
            [value(out, HALF, [1, 256])],
            [numpy_helper.from_array(array, f"w_{out}")],
        )
        for out, array in zip(("yes", "no"), arrays, strict=True)
    ]
    choose = helper.make_node("If", ["c"], ["z"], name="choose", then_branch=bodies[0], else_branch=bodies[1])
    inputs = [value("x", HALF, [1, 256]), value("c", TensorProto.BOOL, [])]
    graph = _graph([choose], inputs, [value("z", HALF, [1, 256])])
    plan = build(graph)
    assert len(graph.tensors) == 2
    assert len(plan) > graph.weight_bytes


def test_weight_in_the_body_of_a_loop_is_built(build):
    body = helper.make_graph(
        [helper.make_node("MatMul", ["s", "w"], ["t"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("s", HALF, [1, 256])],
        [value("on", TensorProto.BOOL, []), value("t", HALF, [1, 256])],
        [numpy_helper.from_array(_weight("w", 256, 256)[1], "w")],
    )
    loop = helper.make_node("Loop", ["n", "yes", "x"], ["z"], name="repeat", body=body)
    graph = _graph(
        [loop],
        [value("x", HALF, [1, 256])],
        [value("z", HALF, [1, 256])],
        [("n", np.array(3)), ("yes", np.array(True))],
    )
    assert len(build(graph)) > graph.weight_bytes == 256 * 256 * 2


@pytest.mark.parametrize(
    ("kind", "bits", "scale", "attributes"),
    [
        (TensorProto.INT8, 8, (256,), {"axis": 0}),
        (TensorProto.INT4, 4, (2, 512), {"axis": 0, "block_size": 128}),
        (TensorProto.FLOAT8E4M3FN, 8, (), {}),
    ],
)
def test_quantized_weights_stay_small(build, kind, bits, scale, attributes):
    data = RNG.integers(0, 100, 256 * 512 * bits // 8).astype(np.uint8).tobytes()
    quantized = TensorProto(name="q", data_type=kind, dims=[256, 512], raw_data=data)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], name="dequantize", **attributes),
        helper.make_node("MatMul", ["x", "w"], ["z"], name="product"),
    ]
    weights = [quantized, ("s", np.full(scale, 0.01, np.float16))]
    graph = _graph(nodes, [value("x", HALF, [1, 256])], [value("z", HALF, [1, 512])], weights)
    plan = build(graph)
    assert graph.tensors[0].nbytes < len(plan) < 256 * 512 * 2 + 200_000
    assert graph.tensors[0].dtype.bits == bits


class _Recorder:
    def __init__(self, during=lambda: None):
        self.stages, self.during, self.calls = [], during, 0

    @contextmanager
    def stage(self, label, total=None, unit="B"):
        done = []

        def advance(amount):
            done.append(amount)
            self.calls += 1
            if len(done) == 5:
                self.during()

        yield advance
        self.stages.append((label, total, unit, sum(done)))


def test_progress_is_a_bar_that_ends_at_its_end_and_then_bytes(build, small):
    progress = _Recorder()
    plan = build(small, progress=progress)
    built, written = progress.stages
    assert built == ("build net for rtx-sm89", 100, "%", 100)
    assert progress.calls > 10
    assert written == ("write net", len(plan), "B", len(plan))


def test_interrupt_stops_the_build_and_leaves_no_file(build, small, tmp_path):
    progress = _Recorder(lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        build(small, progress=progress)
    assert progress.stages[0][3] < 100
    assert list(tmp_path.iterdir()) == []
    assert build(small)


def test_error_of_whoever_watches_stops_the_build(build, small):
    def fail():
        raise OSError("terminal is gone")

    with pytest.raises(OSError, match="terminal is gone"):
        build(small, progress=_Recorder(fail))


def test_builders_log_is_quiet_and_reaches_logging(build, small, caplog, capfd):
    caplog.set_level(logging.DEBUG, "wszoo.tensorrt_rtx")
    build(small)
    assert len(caplog.records) > 20
    assert capfd.readouterr() == ("", "")


def test_plan_without_its_weights_is_refused(build, small, monkeypatch):
    monkeypatch.setattr("wszoo.backends.trt_build._LEAST_SHARE", 100)
    with pytest.raises(BuildError, match=f"cannot hold its {small.weight_bytes} bytes of weights"):
        build(small)


def test_folder_that_is_not_there_is_a_storage_error(build):
    with pytest.raises(StorageError, match="cannot write a plan of"):
        build(_matmul(), name="missing/plan")


def test_built_plan_is_refused_on_a_machine_without_a_gpu(build, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    graph = _matmul()
    plan = build(graph)
    config = PlanConfig(
        component="net",
        target=BACKEND.target(TargetSpec.parse("rtx-sm89")),
        kind=Kind.SPLICE,
        engine_digest=Digest.of(plan),
        engine_bytes=len(plan),
        graph=Digest.of(graph.proto),
        weights=Digest.of(b""),
    )
    assembled = Assembled(config=config, device="cuda", engine=tmp_path / "plan", graph=graph, cache=tmp_path)
    with pytest.raises(IncompatibleError, match="needs an NVIDIA GPU and its driver"):
        BACKEND.load(assembled)
    assert len(plan) > HEADER
