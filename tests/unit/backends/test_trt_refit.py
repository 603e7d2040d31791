"""Refitting with a fake of the refitter: missing weights, wrong types and counts, a refitter that fails or lies."""

import dataclasses
import json
import os

import msgspec
import numpy as np
import pytest
from fake_tensorrt import HEADER_BYTES, Engine
from fake_tensorrt_builder import Refitter
from onnx import TensorProto, helper

from wszoo.backends.cuda_memory import Cuda, Stream
from wszoo.backends.trt_refit import refit, refit_through_parser, serialize, wanted_weights
from wszoo.errors import IncompatibleError, MalformedError
from wszoo.plans.native import check_map
from wszoo.plans.native_map import make_weights
from wszoo.schema.refit import Mode, Operand, RefitMap

SIZE = 64


@pytest.fixture
def graph(graph_of):
    """``z = x * a * b``."""
    rng = np.random.default_rng(2)
    nodes = [helper.make_node("Mul", ["x", "a"], ["y"]), helper.make_node("Mul", ["y", "b"], ["z"])]
    weights = [(name, rng.standard_normal(SIZE, np.float32)) for name in "ab"]
    values = ({"x": (TensorProto.FLOAT, [1, SIZE])}, {"z": (TensorProto.FLOAT, [1, SIZE])})
    return graph_of(nodes, *values, weights)


@pytest.fixture
def engine(fake_classic):
    weights = {name: ["FLOAT", SIZE, None] for name in "ab"}
    tensors = {"x": ["FLOAT", [1, SIZE], None], "z": ["FLOAT", [1, SIZE], "x"]}
    return Engine(fake_classic, {"tensors": tensors, "profiles": [], "weights": weights})


@pytest.fixture
def stream(fake_classic):
    return Stream(Cuda(fake_classic.cuda))


@pytest.fixture
def refitted(fake_classic, engine, refit_map, graph, stream):
    """The engine with its weights."""
    refit(fake_classic, engine, refit_map, graph, stream)
    return engine


@pytest.fixture
def refit_map(fake_classic, engine, graph):
    weights = make_weights(graph, wanted_weights(fake_classic, engine))
    return RefitMap(mode=Mode.IDENTICAL, plan_bytes=1, weights=weights)


def _given(engine):
    return {
        name: data and np.frombuffer(bytes.fromhex(data), np.float32) for name, (_, _, data) in engine.weights.items()
    }


def _changed(refit_map, number, **changes):
    weights = list(refit_map.weights)
    weights[number] = msgspec.structs.replace(weights[number], **changes)
    return msgspec.structs.replace(refit_map, weights=tuple(weights))


def _has_all(engine, graph):
    return all(np.array_equal(_given(engine)[tensor.name], tensor.array()) for tensor in graph.tensors)


def test_every_weight_is_set_by_name_on_a_fake(fake_classic, engine, refit_map, graph, stream):
    refit(fake_classic, engine, refit_map, graph, stream)
    assert _has_all(engine, graph)


@pytest.fixture
def ways(monkeypatch):
    """How refitters of the fake were started, and with how many threads."""
    seen = []
    for name in ("refit_cuda_engine_async", "refit_cuda_engine"):
        method = getattr(Refitter, name)
        monkeypatch.setattr(
            Refitter, name, lambda self, *args, n=name, m=method: seen.append((n, self.max_threads)) or m(self, *args)
        )
    return seen


def test_refitting_is_asynchronous_where_that_is_offered_and_uses_every_core_on_a_fake(ways, refitted):
    assert ways == [("refit_cuda_engine_async", os.cpu_count())]


def test_refitting_waits_where_nothing_else_is_offered_on_a_fake(ways, monkeypatch, request):
    monkeypatch.delattr(Refitter, "refit_cuda_engine_async")
    request.getfixturevalue("refitted")
    assert ways == [("refit_cuda_engine", os.cpu_count())]


def test_the_parser_is_the_other_way_on_a_fake(fake_classic, engine, graph, stream):
    refit_through_parser(fake_classic, engine, graph, stream)
    assert _has_all(engine, graph)


def test_weights_that_the_map_lacks_are_named_on_a_fake(fake_classic, engine, refit_map, graph, stream):
    less = msgspec.structs.replace(refit_map, weights=refit_map.weights[:1])
    with pytest.raises(IncompatibleError, match="weights that the refit map lacks: 'b'"):
        refit(fake_classic, engine, less, graph, stream)
    assert fake_classic.refits == 0


def test_under_reported_missing_weights_are_found_on_a_fake(fake_classic, engine, refit_map, graph, stream):
    """The refitter says that nothing is missing, and it is wrong."""
    fake_classic.underreports = ["a", "b"]
    less = msgspec.structs.replace(refit_map, weights=())
    with pytest.raises(IncompatibleError, match="lacks: 'a', 'b'"):
        refit(fake_classic, engine, less, graph, stream)


def test_weights_that_the_engine_lacks_are_named_on_a_fake(fake_classic, engine, refit_map, graph, stream):
    with pytest.raises(IncompatibleError, match="the engine has no weights named 'c'"):
        refit(fake_classic, engine, _changed(refit_map, 0, name="c"), graph, stream) if engine.weights.pop(
            "a"
        ) else None


def test_weights_of_another_type_are_refused_on_a_fake(fake_classic, engine, refit_map, graph, stream):
    engine.weights["a"][0] = "HALF"
    with pytest.raises(
        IncompatibleError, match="wants 64 elements of float16 named 'a', the refit map has 64 of float32"
    ):
        refit(fake_classic, engine, refit_map, graph, stream)


def test_another_number_of_elements_is_refused_on_a_fake(fake_classic, engine, refit_map, graph, stream):
    engine.weights["a"][1] = SIZE - 1
    with pytest.raises(IncompatibleError, match="wants 63 elements of float32 named 'a'"):
        refit(fake_classic, engine, refit_map, graph, stream)


def test_weights_that_the_engine_rejects_are_named_on_a_fake(fake_classic, engine, refit_map, graph, stream):
    fake_classic.rejects = ["b"]
    with pytest.raises(IncompatibleError, match="does not take the weights named 'b'"):
        refit(fake_classic, engine, refit_map, graph, stream)


def test_a_failed_refit_quotes_the_log_on_a_fake(fake_classic, engine, refit_map, graph, stream):
    fake_classic.no_refit = True
    with pytest.raises(IncompatibleError, match="does not refit the engine: weights do not fit"):
        refit(fake_classic, engine, refit_map, graph, stream)


def test_weights_that_the_parser_leaves_out_are_named_on_a_fake(fake_classic, engine, graph, stream):
    fake_classic.unset, fake_classic.underreports = ["b"], ["b"]
    with pytest.raises(IncompatibleError, match="parser sets no weights named 'b'"):
        refit_through_parser(fake_classic, engine, graph, stream)


@pytest.mark.parametrize(
    ("defect", "changes"),
    [
        ("names weights twice", {"name": "b"}),
        ("of tensor 7 of 2", {"operands": (Operand(tensor=7),)}),
        ("out of 256 bytes", {"count": SIZE + 1}),
        ("out of 4 bytes", {"operands": (Operand(dtype="float32", data=bytes(4)),)}),
        ("of 2 operands", {"operands": (Operand(tensor=0), Operand(tensor=1))}),
        ("of 1 operands", {"rule": "batch_norm_scale"}),
        ("turns float32 into int8", {"dtype": "int8"}),
        ("turns complex64 into float32", {"count": 1, "operands": (Operand(dtype="complex64", data=bytes(8)),)}),
        (
            "turns int32 into int32",
            {
                "count": 1,
                "dtype": "int32",
                "rule": "batch_norm_shift",
                "operands": (Operand(dtype="int32", data=bytes(4)),) * 4,
            },
        ),
        ("unknown element type", {"operands": (Operand(dtype="float7", data=bytes(256)),)}),
    ],
)
def test_a_hostile_map_reaches_no_refitter(graph, refit_map, defect, changes):
    with pytest.raises(MalformedError, match=defect):
        check_map(_changed(refit_map, 0, **changes), graph.tensors)


def test_a_rule_of_a_later_version_is_refused_where_weights_go_in_by_name_on_a_fake(
    fake_classic, engine, refit_map, graph, stream
):
    with pytest.raises(IncompatibleError, match="makes 'a' by 'magic'"):
        refit(fake_classic, engine, _changed(refit_map, 0, rule="magic"), graph, stream)
    assert _given(engine) == {"a": None, "b": None}


def test_a_tensor_that_loads_too_few_bytes_never_reaches_tensorrt(fake_classic, engine, refit_map, graph, stream):
    short = tuple(dataclasses.replace(each, load=lambda each=each: each.load()[:-4]) for each in graph.tensors)
    with pytest.raises(MalformedError, match="64 elements of float32 named 'a' come as 252 bytes"):
        refit(fake_classic, engine, refit_map, dataclasses.replace(graph, tensors=short), stream)


def test_a_misaligned_tensor_is_copied_before_tensorrt_sees_it_on_a_fake(
    fake_classic, engine, refit_map, graph, stream
):
    def shifted(tensor):
        memory = np.zeros(tensor.nbytes + 1, np.uint8)
        memory[1:] = tensor.load()
        return dataclasses.replace(tensor, load=lambda: memory[1:])

    moved = dataclasses.replace(graph, tensors=tuple(map(shifted, graph.tensors)))
    refit(fake_classic, engine, refit_map, moved, stream)
    assert _has_all(engine, graph)


@pytest.mark.parametrize(("weights", "refittable"), [(True, False), (True, True), (False, False)])
def test_an_engine_is_serialized_with_or_without_weights_on_a_fake(fake_classic, refitted, weights, refittable):
    configs = []
    make = refitted.create_serialization_config
    refitted.create_serialization_config = lambda: configs.append(make()) or configs[0]
    plan = bytes(serialize(fake_classic, refitted, weights=weights, refittable=refittable))
    kept = json.loads(plan[HEADER_BYTES:])["weights"]
    assert all((data is not None) is weights for _, _, data in kept.values())
    assert (fake_classic.SerializationFlag.INCLUDE_REFIT in configs[0].flags) is refittable
