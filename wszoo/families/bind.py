"""Giving an exported graph its weights by name, after the export: the exporter never sees their bytes.

The exporter leaves each weight as an input of the graph. Here it becomes what wszoo's graphs have everywhere, an
initializer whose bytes come from the tensor table; or, where the weight is quantized, the output of a
``DequantizeLinear`` under the weight's old name, so that nothing else in the graph changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx

from wszoo.errors import BuildError
from wszoo.weights.graph import LOCATION, MIN_TENSOR, Graph, graph_from_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wszoo.weights.tensor import Tensor

# Scales of half precision and blocks came with opset 21, and graphs of IR version 10.
QUANTIZED_OPSET = 21
_QUANTIZED_IR = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A weight as ``DequantizeLinear`` takes it.

    Attributes:
        values: int8, int4 or fp8.
        scales: in the type that the network computes in.
        axis: of the channel that has a scale of its own, or of the blocks.
        block: elements along ``axis`` that share a scale; 0 for one scale a channel.
    """

    values: Tensor
    scales: Tensor
    axis: int
    block: int = 0


def linear_weights(model: onnx.ModelProto, names: set[str]) -> set[str]:
    """Those weights that are only ever the second factor of a matrix product, as they are or transposed.

    An embedding that is also the output layer is looked up too, so it is none of them.
    """
    users: dict[str, set[str]] = {}
    seconds: dict[str, set[str]] = {}
    through: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "Transpose" and node.input[0] in names:
            through[node.output[0]] = node.input[0]
            continue
        for position, name in enumerate(node.input):
            weight = through.get(name, name)
            if weight in names:
                users.setdefault(weight, set()).add(node.name)
                if node.op_type in {"MatMul", "Gemm"} and position == 1:
                    seconds.setdefault(weight, set()).add(node.name)
    return {name for name, nodes in users.items() if seconds.get(name) == nodes}


def bind(
    model: onnx.ModelProto, weights: Mapping[str, Tensor], quantized: Mapping[str, Quantized] | None = None
) -> Graph:
    """Make weights out of inputs. ``model`` is changed in place.

    Args:
        model: with small constants inside, and each weight as an input of the graph.
        weights: by the input's name.
        quantized: those that are not among ``weights``.

    Raises:
        BuildError: a weight's shape or type is not the input's.
        MalformedError: see :func:`graph_from_model`.
    """
    scaled = dict(quantized or {})
    wanted = {value.name: value for value in model.graph.input if value.name in weights or value.name in scaled}
    for name in wanted.keys() & weights.keys():
        _check(wanted[name], weights[name])
    kept = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in model.graph.input if v.name not in wanted]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    if scaled:
        _raise_opset(model)
    tensors: list[Tensor] = []
    nodes: list[onnx.NodeProto] = []
    for name in wanted:
        if name in scaled:
            each = scaled[name]
            nodes.append(_dequantize(name, each))
            tensors += [each.values, each.scales]
        else:
            tensors.append(weights[name])
    _prepend(model.graph, nodes)
    graph = graph_from_model(model, name="the export")
    return _with_tensors(graph, tensors)


def _check(value: onnx.ValueInfoProto, tensor: Tensor) -> None:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value for dim in kind.shape.dim)
    if (kind.elem_type, shape) != (tensor.dtype.onnx, tensor.shape):
        raise BuildError(
            f"the weight {value.name!r} is {tensor.dtype.name} {list(tensor.shape)}, and the graph takes {list(shape)}"
        )


def _raise_opset(model: onnx.ModelProto) -> None:
    for opset in model.opset_import:
        if opset.domain in {"", "ai.onnx"} and opset.version < QUANTIZED_OPSET:
            raise BuildError(f"quantized weights need opset {QUANTIZED_OPSET}, and the graph has {opset.version}")
    model.ir_version = max(model.ir_version, _QUANTIZED_IR)


def _dequantize(name: str, each: Quantized) -> onnx.NodeProto:
    more = {"block_size": each.block} if each.block else {}
    return onnx.helper.make_node(
        "DequantizeLinear",
        [each.values.name, each.scales.name],
        [name],
        name=f"dequantize {name}",
        axis=each.axis,
        **more,
    )


def _prepend(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    if not nodes:
        return
    rest = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*nodes, *rest])


def _with_tensors(graph: Graph, tensors: list[Tensor]) -> Graph:
    model = onnx.ModelProto.FromString(graph.proto)
    outside = []
    for tensor in tensors:
        init = model.graph.initializer.add(name=tensor.name, data_type=tensor.dtype.onnx, dims=tensor.shape)
        if tensor.nbytes < MIN_TENSOR:  # as everywhere: its digest alone would take as much
            init.raw_data = tensor.load().tobytes()
            continue
        init.data_location = onnx.TensorProto.EXTERNAL
        init.external_data.add(key="location", value=LOCATION)
        outside.append(tensor)
    proto = model.SerializeToString(deterministic=True)
    return Graph(proto, (*graph.tensors, *outside), graph.inputs, graph.outputs)
