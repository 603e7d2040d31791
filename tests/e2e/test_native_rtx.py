"""What native plans need of TensorRT, asked of the real TensorRT-RTX 1.7 without a GPU: names, values, and refusals."""

import numpy as np
import pytest
import tensorrt_rtx as trt
from builders import onnx_model
from onnx import TensorProto, helper, numpy_helper

from wszoo.backends.protocol import BuildJob
from wszoo.backends.tensorrt_rtx import TensorRTRTXBackend
from wszoo.backends.trt_log import logger
from wszoo.backends.trt_parse import parse
from wszoo.backends.trt_timing import TimingCache
from wszoo.errors import BuildError, UsageError
from wszoo.names import TargetSpec
from wszoo.plans.native import value_of
from wszoo.plans.native_map import known_weights
from wszoo.progress import Silent
from wszoo.weights.graph import graph_from_model

BACKEND = TensorRTRTXBackend()
CHANNELS = 96


def _network(kind, dtype):
    """Every way in which weights reach a parser: initializers, Constants, normalizations that it folds, fills."""
    rng = np.random.default_rng(6)
    inits = [(name, (rng.random(CHANNELS) + 0.5).astype(dtype)) for name in ("s", "b", "m", "v")]
    inits += [("k", rng.standard_normal((CHANNELS, 3, 3, 3)).astype(dtype)), ("shape", np.array([1, 1, 8, 8]))]
    half = numpy_helper.from_array(np.array(0.35, dtype))
    weight = numpy_helper.from_array(rng.standard_normal((1, CHANNELS, 8, 8)).astype(dtype))
    fill = helper.make_tensor("fill", kind, [1], np.array([2], dtype).tobytes(), raw=True)
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], name="first", epsilon=1e-3),
        helper.make_node("ConstantOfShape", ["shape"], ["f"], value=fill),
        helper.make_node("Add", ["n", "f"], ["g"]),
        helper.make_node("BatchNormalization", ["g", "b", "s", "v", "m"], ["o"], name="second"),
        helper.make_node("Constant", [], ["half"], value=half),
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("Mul", ["o", "half"], ["p"]),
        helper.make_node("Mul", ["p", "w"], ["z"]),
    ]
    values = [("x", kind, [1, 3, 8, 8])], [("z", kind, [1, CHANNELS, 8, 8])]
    return graph_from_model(onnx_model(nodes, *values, inits))


@pytest.fixture(params=[(TensorProto.FLOAT, np.float32), (TensorProto.FLOAT16, np.float16)], ids=["fp32", "fp16"])
def parsed(request):
    """A graph, and the network that the real parser makes of it."""
    graph = _network(*request.param)
    log, theirs = logger(trt)
    builder = trt.Builder(theirs)
    return graph, parse(trt, builder, graph, "net", log), builder


def test_the_parser_knows_the_weights_by_the_names_in_the_map(parsed):
    graph, made, _ = parsed
    names = known_weights(graph)
    folded = {"s", "b", "m", "v"}
    known = {name for name in names if made.network.mark_weights_refittable(name)}
    assert known == names.keys() - folded
    assert {name for name in known if name.startswith("tmp_")} == {
        "tmp_refittable_weight",
        *(f"tmp_refittable_weight_{number}" for number in range(4)),
    }
    assert not made.network.mark_weights_refittable("tmp_refittable_weight_4")


def test_folded_normalizations_are_the_parsers_bit_for_bit(parsed):
    graph, made, _ = parsed
    layers = [made.network.get_layer(number) for number in range(made.network.num_layers)]
    scales = [layer for layer in layers if layer.type == trt.LayerType.SCALE]
    names = known_weights(graph)
    pairs = [
        ("tmp_refittable_weight", "tmp_refittable_weight_0"),
        ("tmp_refittable_weight_2", "tmp_refittable_weight_3"),
    ]
    assert len(scales) == len(pairs)
    for layer, (scale, shift) in zip(scales, pairs, strict=True):
        layer.__class__ = trt.IScaleLayer
        assert value_of(names[scale], graph.tensors).tobytes() == np.asarray(layer.scale).tobytes()
        assert value_of(names[shift], graph.tensors).tobytes() == np.asarray(layer.shift).tobytes()


def test_constants_are_the_parsers_bit_for_bit(parsed):
    graph, made, _ = parsed
    layers = [made.network.get_layer(number) for number in range(made.network.num_layers)]
    constants = {layer.name: layer for layer in layers if layer.type == trt.LayerType.CONSTANT}
    names = known_weights(graph)
    for name in ("half", "w", "tmp_refittable_weight_1"):
        constants[name].__class__ = trt.IConstantLayer
        assert value_of(names[name], graph.tensors).tobytes() == np.asarray(constants[name].weights).tobytes()


def test_stripping_without_a_gpu_says_what_to_do(parsed, tmp_path, monkeypatch):
    """Real: the builder's own refusal, on a machine without an RTX GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    graph, _, _ = parsed
    target = BACKEND.target(TargetSpec.parse("rtx-sm89.strip"))
    job = BuildJob(component="net", graph=graph, target=target, profiles=(), progress=Silent())
    with pytest.raises(BuildError, match=r"the builder refuses 'net' for rtx-sm89\.strip") as error:
        BACKEND.build(job, tmp_path / "plan")
    assert "leave '.strip' out" in error.value.hint
    assert not (tmp_path / "plan").exists()


def test_stripping_for_several_capabilities_is_refused():
    with pytest.raises(UsageError, match="one compute capability at a time"):
        BACKEND.target(TargetSpec.parse("rtx-sm86-sm89.strip"))


def test_an_unknown_option_lists_those_that_there_are():
    with pytest.raises(UsageError, match="no option 'fast' for rtx targets") as error:
        BACKEND.target(TargetSpec.parse("rtx-sm89.fast"))
    assert "refit, strip" in error.value.hint


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX")
def test_a_timing_cache_survives_the_real_builder(parsed, tmp_path):
    """TensorRT-RTX's timing caches hold nothing since 1.2, but the calls are classic TensorRT's."""
    _, made, builder = parsed
    for _ in range(2):
        config = builder.create_builder_config()
        cache = TimingCache(tmp_path, "tensorrt_rtx", "1.7.1.116", "NVIDIA GeForce RTX 4090")
        cache.attach(config)
        assert builder.build_serialized_network(made.network, config) is not None
        cache.save()
    assert (tmp_path / "tensorrt_rtx-1.7.1.116-geforcertx4090.timing").stat().st_size > 0
