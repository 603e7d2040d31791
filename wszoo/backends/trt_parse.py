"""Giving a graph and its weights to a TensorRT ONNX parser, from memory, and understanding its refusals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wszoo.backends.initializers import split
from wszoo.backends.inputs import describe
from wszoo.backends.trt_log import Log, clean
from wszoo.backends.trt_types import TRT_NAMES, WEIGHT_NAMES
from wszoo.errors import BuildError

if TYPE_CHECKING:
    from wszoo.buffers import Bytes
    from wszoo.schema.model import Value
    from wszoo.weights.graph import Graph

_SHOWN = 5  # parser errors in a message; one wrong operator repeated in every layer says no more than a few of them
_HINTS = {
    "must all be of the same type": "TensorRT networks are strongly typed: cast the inputs to one type in the export",
    "Plugin not found": "TensorRT has no such operator: export it as standard ones, or build the target 'portable'",
}
_HINT = "change this part of the export, or build the target 'portable', which runs any graph that ONNX Runtime takes"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A network that refers to weights in memory that is not its own.

    Attributes:
        network: an ``INetworkDefinition``.
        parser: must live as long as the network.
        weights: buffers that must live until the plan is built.
    """

    network: Any
    parser: Any
    weights: list[Bytes]


def parse(trt: Any, builder: Any, graph: Graph, component: str, log: Log) -> Parsed:  # noqa: ANN401 - untyped module
    """Parse a graph; its weights are handed over by address and are not copied.

    Args:
        trt: ``tensorrt_rtx`` or a sibling.
        builder: its ``Builder``.
        graph: the network.
        component: its name, for messages.
        log: where that module logs.

    Raises:
        BuildError: the parser refuses a node, which is named with the reason, or an input's or output's type.
        MalformedError: the graph and its tensors do not belong together.
    """
    proto, tensors = split(graph)
    # TensorRT 10 makes weakly typed networks unless told; 11 and TensorRT-RTX ignore the flag.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parsed = Parsed(network, trt.OnnxParser(network, builder.logger), [])
    mark = log.mark()
    if not parsed.parser.load_model_proto(proto):
        raise _refusal(parsed.parser, component, log, mark)
    for tensor in tensors:
        data = tensor.load()
        parsed.weights.append(data)
        if not parsed.parser.load_initializer(tensor.name, data.ctypes.data, data.nbytes):
            raise BuildError(
                f"the parser does not take tensor {tensor.name!r} of {component!r}, {tensor.dtype.name} "
                f"{list(tensor.shape)}: {log.reason(mark)}",
                hint=_HINT if tensor.dtype.name in WEIGHT_NAMES else f"TensorRT has no {tensor.dtype.name}; {_HINT}",
            )
    if not parsed.parser.parse_model_proto():
        raise _refusal(parsed.parser, component, log, mark)
    _check_types(parsed.network, graph, component)
    return parsed


def _refusal(parser: Any, component: str, log: Log, mark: int) -> BuildError:  # noqa: ANN401
    errors = [_describe(parser.get_error(number)) for number in range(min(parser.num_errors, _SHOWN))]
    more = f" (and {parser.num_errors - _SHOWN} more)" if parser.num_errors > _SHOWN else ""
    reason = "; ".join(dict.fromkeys(errors)) or log.reason(mark)
    hint = next((text for pattern, text in _HINTS.items() if pattern in reason), _HINT)
    return BuildError(f"the ONNX parser refuses the network {component!r}: {reason}{more}", hint=hint)


def _describe(error: Any) -> str:  # noqa: ANN401
    lines = [line for line in error.desc().splitlines() if not line.startswith("Invalid Node - ")]
    reason = clean("\n".join(lines)) or str(error.code())
    if not error.node_operator():
        return reason
    within = "".join(f" in function {name!r}" for name in error.local_function_stack())
    name = error.node_name() or f"number {error.node()}"
    return f"node {name!r} ({error.node_operator()}){within}: {reason}"


def _check_types(network: Any, graph: Graph, component: str) -> None:  # noqa: ANN401
    # TensorRT turns float64 into float32 without a word, and uses integer inputs as shapes: both would surprise only
    # on the client.
    for values, count, get in (
        (graph.inputs, network.num_inputs, network.get_input),
        (graph.outputs, network.num_outputs, network.get_output),
    ):
        ours = {value.name: value for value in values}
        for theirs in map(get, range(count)):
            _check_type(ours[theirs.name], theirs, component)


def _check_type(value: Value, theirs: Any, component: str) -> None:  # noqa: ANN401
    if TRT_NAMES.get(value.dtype) != theirs.dtype.name:
        raise BuildError(
            f"{component!r} has {describe(value)}, which TensorRT would turn into {theirs.dtype.name}",
            hint=f"cast it in the export; inputs and outputs can be {', '.join(TRT_NAMES)}",
        )
    if theirs.is_shape_tensor:
        raise BuildError(
            f"{component!r} uses the values of {describe(value)} as a shape",
            hint="take the shape from another input's dimensions, or make it a constant",
        )
