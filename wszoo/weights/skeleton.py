"""What two graphs have in common when their weights are looked away from, those that stayed inside included.

Small constants stand in the graph itself (:data:`wszoo.weights.graph.MIN_TENSOR`): a convolution's bias of four numbers
changes with the weights, and with it the graph's bytes, though the network is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from wszoo.weights.foreign import parse_model
from wszoo.weights.graph import constant_of, subgraphs
from wszoo.weights.tensor import dtype_from_onnx

if TYPE_CHECKING:
    from collections.abc import Iterable

_DATA = ("raw_data", "float_data", "int32_data", "double_data", "uint64_data")
_FLOATS = {"value_float", "value_floats"}


def difference(before: bytes, now: bytes) -> str:
    """What sets two graphs apart besides the values of floating-point constants.

    Integers count: shapes, axes and indices are integers.

    Args:
        before: a serialized ``ModelProto`` without its weights.
        now: the other.

    Returns:
        The first difference, for a message; empty when there is none.
    """
    if before == now:
        return ""
    first, second = (_blank(parse_model(proto)) for proto in (before, now))
    if first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True):
        return ""
    return (
        _first("input", first.graph.input, second.graph.input)
        or _first("output", first.graph.output, second.graph.output)
        or _first("tensor", first.graph.initializer, second.graph.initializer)
        or _first("node", first.graph.node, second.graph.node)
        or "operator sets, functions or notes differ"
    )


def _blank(model: onnx.ModelProto) -> onnx.ModelProto:
    for graph in subgraphs(model.graph):
        for init in graph.initializer:
            _forget(init)
        for node in graph.node:
            if constant_of(node) is not None:
                for attribute in node.attribute:
                    _forget_attribute(attribute)
    return model


def _forget(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == onnx.TensorProto.STRING or not dtype_from_onnx(tensor.data_type).is_float:
        return
    for field in _DATA:
        tensor.ClearField(field)


def _forget_attribute(attribute: onnx.AttributeProto) -> None:
    if attribute.name == "value":
        _forget(attribute.t)
    elif attribute.name in _FLOATS:
        attribute.f = 0
        attribute.floats[:] = [0] * len(attribute.floats)


def _first(what: str, before: Iterable[onnx.NodeProto], now: Iterable[onnx.NodeProto]) -> str:
    old, new = list(before), list(now)
    for one, other in zip(old, new, strict=False):
        if one != other:
            same = one.name == other.name
            return f"the {what} {one.name!r} {'changed' if same else f'is now {other.name!r}'}"
    return f"it had {len(old)} {what}s and has {len(new)}" if len(old) != len(new) else ""
