"""What every family checks before a graph is published: that ONNX itself accepts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from wszoo.errors import BuildError
from wszoo.weights.graph import external_initializers

if TYPE_CHECKING:
    from wszoo.weights.graph import Graph

_MAX_REASON = 600


def check_graph(graph: Graph, name: str, *, full: bool = False) -> None:
    """Run ONNX's own checker over a graph whose weights have been taken out.

    Args:
        graph: the network.
        name: for error messages.
        full: also infer types and shapes, and refuse a graph that contradicts itself (a ``Concat`` of two element
            types). Right for graphs that a family has made; a graph from elsewhere may carry a harmless wrong hint.

    Raises:
        BuildError: the checker refuses the graph; the message gives its reason.
    """
    model = onnx.ModelProto.FromString(graph.proto)
    _weights_to_inputs(model)
    try:
        onnx.checker.check_model(model, full_check=full)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        reason = str(error).strip()[:_MAX_REASON]
        raise BuildError(
            f"onnx's checker refuses {name}: {reason}", hint="export the model again, or with another opset"
        ) from error


def _weights_to_inputs(model: onnx.ModelProto) -> None:
    # The checker opens the files of external data, and there are none here. So each weight becomes an input of its type
    # and shape, which is a valid model as well; subgraphs see the outer graph's inputs.
    known = {value.name for value in model.graph.input}
    for init in external_initializers(model.graph):
        if init.name not in known:
            model.graph.input.append(onnx.helper.make_tensor_value_info(init.name, init.data_type, list(init.dims)))
    _drop_external(model.graph)


def _drop_external(graph: onnx.GraphProto) -> None:
    kept = [init for init in graph.initializer if init.data_location != onnx.TensorProto.EXTERNAL]
    if len(kept) < len(graph.initializer):
        copies = [onnx.TensorProto.FromString(init.SerializeToString()) for init in kept]
        del graph.initializer[:]
        graph.initializer.extend(copies)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                _drop_external(inner)
