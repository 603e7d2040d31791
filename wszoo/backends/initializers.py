"""Giving a graph its weights back in memory: by name where a runtime can take them so, inline where it cannot.

Neither TensorRT's parser (1.7: "Cannot find initializer name") nor ONNX Runtime (1.32: it looks for a file named like
the location) lets a caller supply the initializers of a subgraph, so those of If, Loop and Scan bodies go inline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from wszoo.errors import BuildError, MalformedError
from wszoo.weights.foreign import parse_model
from wszoo.weights.graph import LOCATION, PROTOBUF_LIMIT, external_initializers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wszoo.weights.graph import Graph
    from wszoo.weights.tensor import Tensor


def split(graph: Graph, *, limit: int = PROTOBUF_LIMIT) -> tuple[bytes, tuple[Tensor, ...]]:
    """Separate the weights that can be supplied by name from those that cannot.

    Every reference to external data is checked: none may reach the file system from a graph that came from elsewhere.

    Args:
        graph: taken apart.
        limit: the most bytes that the graph may have with its subgraphs' weights inline.

    Returns:
        The graph's bytes with its subgraphs' weights inline, and the tensors to supply by name.

    Raises:
        MalformedError: a weight that is not in the tensor table, or of another size, or one that points to a file.
        BuildError: the inline weights would go over protobuf's 2 GiB.
    """
    model = parse_model(graph.proto)
    table = {tensor.name: tensor for tensor in graph.tensors}
    _check_graph(model.graph)
    for function in model.functions:
        _check_nodes(function.node)
    outer = {init.name for init in model.graph.initializer if init.data_location == onnx.TensorProto.EXTERNAL}
    inner = []
    for init in external_initializers(model.graph):
        _check(init, table)
        if init.name not in outer:
            inner.append(init)
    size = len(graph.proto) + sum(table[init.name].nbytes for init in inner)
    if size > limit:
        raise BuildError(
            f"the weights in If and Loop bodies take {size} bytes inline, more than protobuf's {limit}",
            hint="move them out of the bodies: a body can use the outer graph's initializers",
        )
    for init in inner:
        _fill(init, table[init.name])
    proto = model.SerializeToString(deterministic=True) if inner else graph.proto
    return proto, tuple(tensor for tensor in graph.tensors if tensor.name in outer)


def _check(init: onnx.TensorProto, table: Mapping[str, Tensor]) -> None:
    location = {entry.key: entry.value for entry in init.external_data}.get("location", "")
    tensor = table.get(init.name)
    if tensor is None or location != LOCATION:
        raise MalformedError(f"the graph's tensor {init.name!r} is not in the tensor table, but in {location!r}")
    if (tensor.dtype.onnx, tensor.shape) != (init.data_type, tuple(init.dims)):
        raise MalformedError(
            f"the graph's tensor {init.name!r} is not what the tensor table says: {tensor.dtype.name} {tensor.shape}"
        )


def _fill(init: onnx.TensorProto, tensor: Tensor) -> None:
    init.ClearField("external_data")
    init.data_location = onnx.TensorProto.DEFAULT
    init.raw_data = tensor.load().tobytes()


def _check_graph(graph: onnx.GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        _refuse_external(sparse.values.name, sparse.values, sparse.indices)
    _check_nodes(graph.node)


def _check_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            sparse = (attribute.sparse_tensor, *attribute.sparse_tensors)
            _refuse_external(
                node.name or node.op_type,
                attribute.t,
                *attribute.tensors,
                *(part for one in sparse for part in (one.values, one.indices)),
            )
            for inner in (attribute.g, *attribute.graphs):
                _check_graph(inner)


def _refuse_external(where: str, *tensors: onnx.TensorProto) -> None:
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise MalformedError(f"the constant {where!r} keeps its data in a file; only initializers can be taken out")
