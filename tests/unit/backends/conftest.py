"""Graphs and fakes for the backends' tests."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))  # test modules are imported by file

import fake_tensorrt

from wszoo.backends.protocol import Assembled, BuildJob
from wszoo.digest import Digest
from wszoo.progress import Silent
from wszoo.schema.model import Value
from wszoo.schema.plan import Kind, PlanConfig, Profile, ShapeRange, Target
from wszoo.weights.graph import Graph, graph_from_model


def _graph_of(nodes, inputs, outputs, weights=(), opset=21):
    """``inputs`` and ``outputs`` map a name to (element type, shape); weights are (name, array) or tensors."""
    values = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in each.items()]
        for each in (inputs, outputs)
    ]
    inits = [w if isinstance(w, TensorProto) else numpy_helper.from_array(w[1], w[0]) for w in weights]
    graph = helper.make_graph(nodes, "test", *values, inits)
    return graph_from_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10))


@pytest.fixture
def graph_of():
    return _graph_of


@pytest.fixture
def linear(graph_of):
    """``z = x @ w`` with a dynamic batch: x [batch, 64], w [64, 48], fp32."""
    weight = np.random.default_rng(0).standard_normal((64, 48), np.float32)
    return graph_of(
        [helper.make_node("MatMul", ["x", "w"], ["z"], name="product")],
        {"x": (TensorProto.FLOAT, ["batch", 64])},
        {"z": (TensorProto.FLOAT, ["batch", 48])},
        [("w", weight)],
    )


@pytest.fixture
def in_bodies():
    """If with a weight in both branches, inside a model whose outer graph has one too."""
    rng = np.random.default_rng(1)
    outer, first, second = (rng.standard_normal((64, 64), np.float32) for _ in range(3))
    bodies = [
        helper.make_graph(
            [helper.make_node("MatMul", ["h", weight], [out], name=f"in_{out}")],
            out,
            [],
            [helper.make_tensor_value_info(out, TensorProto.FLOAT, [1, 64])],
            [numpy_helper.from_array(array, weight)],
        )
        for out, weight, array in (("yes", "w_yes", first), ("no", "w_no", second))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="before"),
        helper.make_node("If", ["c"], ["z"], name="choose", then_branch=bodies[0], else_branch=bodies[1]),
    ]
    graph = _graph_of(
        nodes,
        {"x": (TensorProto.FLOAT, [1, 64]), "c": (TensorProto.BOOL, [])},
        {"z": (TensorProto.FLOAT, [1, 64])},
        [("w", outer)],
    )
    return graph, outer, first, second


@pytest.fixture
def portable(tmp_path):
    """Assemble a graph as a portable plan."""

    def assemble(graph, device="cpu"):
        target = Target(name="portable", backend="onnxruntime")
        config = _config(target, Kind.PORTABLE, b"", graph)
        return Assembled(config=config, device=device, engine=None, graph=graph, cache=tmp_path)

    return assemble


@pytest.fixture
def job():
    """A build job for a graph."""

    def make(graph, target, profiles=(), progress=None, cache=None):
        progress = progress or Silent()
        return BuildJob(component="net", graph=graph, target=target, profiles=profiles, progress=progress, cache=cache)

    return make


@pytest.fixture
def profile():
    """A profile: ``profile("p0", x=((1, 64), (2, 64), (8, 64)))``."""

    def make(name, **inputs):
        ranges = {key: ShapeRange(min=low, opt=best, max=high) for key, (low, best, high) in inputs.items()}
        return Profile(name=name, inputs=ranges)

    return make


def _config(target, kind, plan, graph, profiles=()):
    return PlanConfig(
        component="net",
        target=target,
        kind=kind,
        profiles=profiles,
        engine_digest=Digest.of(plan),
        engine_bytes=len(plan),
        graph=Digest.of(graph.proto),
        weights=Digest.of(b""),
    )


@pytest.fixture
def fake():
    """The module ``fake_tensorrt``."""
    return fake_tensorrt


@pytest.fixture
def fake_trt(fake, monkeypatch):
    """A fake TensorRT-RTX on a fake GPU, installed in place of the real modules; a fresh log as well."""
    return fake_tensorrt.install(fake.FakeTensorRT(fake.FakeCuda()), monkeypatch)


@pytest.fixture
def fake_classic(fake, monkeypatch):
    """A fake classic TensorRT with builder, parser and refitter, on a fake RTX 4090."""
    from fake_tensorrt_builder import FakeClassic

    return fake_tensorrt.install(FakeClassic(fake.FakeCuda()), monkeypatch)


@pytest.fixture
def plan_of(tmp_path, fake):
    """Assemble a fake plan that doubles ``x`` into ``z``."""

    def make(profiles=(), kind="FLOAT", dtype="float32", shape=("batch", 4), version_compatible=False, **header):
        limits = [{name: (r.min, r.max) for name, r in profile.inputs.items()} for profile in profiles]
        plan = fake.make_plan({"x": (kind, list(shape), None), "z": (kind, list(shape), "x")}, limits, **header)
        path = tmp_path / "plan"
        path.write_bytes(plan)
        values = [Value(name=name, dtype=dtype, shape=shape) for name in "xz"]
        graph = Graph(b"", (), (values[0],), (values[1],))
        target = Target(
            name="rtx-sm89", backend="tensorrt_rtx", version="1.7.1.116", version_compatible=version_compatible
        )
        config = _config(target, Kind.SPLICE, plan, graph, tuple(profiles))
        return Assembled(config=config, device="cuda", engine=path, graph=graph, cache=tmp_path / "cache")

    return make


@pytest.fixture
def reference():
    """Run a graph with its weights in onnx's own evaluator."""

    def run(graph, feeds):
        from onnx.reference import ReferenceEvaluator

        from wszoo.weights.graph import attach

        model = onnx.ModelProto.FromString(attach(graph.proto, {tensor.name: tensor for tensor in graph.tensors}))
        names = [value.name for value in graph.outputs]
        return dict(zip(names, ReferenceEvaluator(model).run(names, feeds), strict=True))

    return run
