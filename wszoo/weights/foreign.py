"""ONNX graphs from outside: parsed, and what is no text refused, before anyone relies on them.

Names in the file format may be any bytes. Those that are not UTF-8 come out of protobuf as ``bytes`` in place of
``str``, which no code expects.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import onnx

from wszoo.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_HINT = "tell who published the model"


def parse_model(proto: bytes) -> onnx.ModelProto:
    """Read a serialized model.

    Raises:
        MalformedError: it is none, or a name in it is no text.
    """
    try:
        model = onnx.ModelProto.FromString(proto)
    except Exception as error:  # protobuf's own DecodeError, whose module has moved between versions
        raise MalformedError(f"not an ONNX model: {error}", hint=_HINT) from error
    check_names(model)
    return model


def check_names(model: onnx.ModelProto) -> None:
    """Look at every name of a model that was parsed.

    Raises:
        MalformedError: one is not UTF-8.
    """
    nodes = chain.from_iterable(
        (function.name, function.domain, *_nodes(function.node)) for function in model.functions
    )
    for name in chain(_graph(model.graph), nodes):
        if isinstance(name, bytes):
            raise MalformedError(f"a name in the ONNX model is not UTF-8: {name[:60]!r}", hint=_HINT)


def _graph(graph: onnx.GraphProto) -> Iterator[str | bytes]:
    yield graph.name
    for value in chain(graph.input, graph.output, graph.value_info):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for tensor in graph.initializer:
        yield from _tensor(tensor)
    yield from _nodes(graph.node)


def _nodes(nodes: object) -> Iterator[str | bytes]:
    for node in nodes:  # type: ignore[attr-defined] # a repeated field
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            if attribute.HasField("t"):
                yield from _tensor(attribute.t)
            for inner in chain((attribute.g,) if attribute.HasField("g") else (), attribute.graphs):
                yield from _graph(inner)


def _tensor(tensor: onnx.TensorProto) -> Iterator[str | bytes]:
    yield tensor.name
    for entry in tensor.external_data:
        yield from (entry.key, entry.value)
