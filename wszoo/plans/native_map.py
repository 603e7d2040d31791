"""Making a refit map: which tensor, inline constant or folded BatchNormalization each of an engine's weights is.

The refitter knows weights by the initializer's name, by the output of the Constant node, or by a name that the ONNX
parser made up: ``tmp_refittable_weight``, then with ``_0``, ``_1``, ..., two for each BatchNormalization that it folds
(scale, then shift) and one for each ConstantOfShape, in the order of the nodes. Source: onnx-tensorrt,
``ModelRefitter.cpp``; the tests ask the parser of tensorrt_rtx 1.7.1 for every one of these names and values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx

from wszoo.errors import BuildError
from wszoo.schema.refit import MAX_INLINE, Operand, RefitWeights, Rule
from wszoo.weights.foreign import parse_model
from wszoo.weights.graph import constant_of
from wszoo.weights.tensor import dtype_from_onnx, dtype_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wszoo.weights.apart import Graph

_MADE_UP = "tmp_refittable_weight"
_EPSILON = 1e-5  # ONNX's default
_NORMALIZED = 5  # inputs of a BatchNormalization
# The parser narrows fp64; every other weight reaches the engine in the graph's own type.
_NARROWED = {"float64": "float32"}

Wanted = tuple[str, str, int]
"""Name, lower-case ONNX element type and number of elements, as a refitter's prototypes tell them."""


def make_weights(graph: Graph, wanted: Iterable[Wanted]) -> tuple[RefitWeights, ...]:
    """Say how to make every one of an engine's weights.

    Args:
        graph: what the engine was built from.
        wanted: what the engine lists, from its refitter.

    Raises:
        BuildError: some weights come from nowhere that is known, or in another type or number of elements.
    """
    known = known_weights(graph)
    found = []
    for name, dtype, count in wanted:
        entry = known.get(name)
        if entry is None:
            raise BuildError(
                f"the engine wants weights named {name!r}, which stand nowhere in the graph",
                hint="TensorRT's parser made them up: the plan can be published whole, not stripped",
            )
        if (entry.dtype, entry.count) != (dtype, count):
            raise BuildError(
                f"the engine wants {count} elements of {dtype} named {name!r}, the graph has {entry.count} of "
                f"{entry.dtype}"
            )
        if any(len(operand.data) > MAX_INLINE for operand in entry.operands):
            raise BuildError(
                f"the weights {name!r} stand inline in the graph and have more than {MAX_INLINE} bytes",
                hint="two tensors of one name in the branches of an If? Give them names of their own",
            )
        found.append(entry)
    return tuple(found)


def known_weights(graph: Graph) -> dict[str, RefitWeights]:
    """Every weight that an engine built from this graph can list, by the name that the refitter has for it."""
    finder = _Finder({tensor.name: number for number, tensor in enumerate(graph.tensors)})
    finder.visit(parse_model(graph.proto).graph, {})
    return finder.found


class _Finder:
    """Walks a graph as the parser does."""

    def __init__(self, position: dict[str, int]) -> None:
        self._position = position
        self._names = _made_up_names()
        self.found: dict[str, RefitWeights] = {}

    def visit(self, graph: onnx.GraphProto, outer: dict[str, tuple[Operand, str, int]]) -> None:
        """Collect the weights of a graph and its subgraphs.

        Args:
            graph: which.
            outer: weights of the graphs around it: operand, element type, elements.
        """
        here = {init.name: self._operand(init, init.name) for init in graph.initializer}
        for name, entry in here.items():
            self._add(name, *entry)
        scope = {**outer, **here}
        for node in graph.node:
            constant = _constant(node)
            if constant is not None:
                scope[node.output[0]] = self._operand(constant, node.output[0])
                self._add(node.output[0], *scope[node.output[0]])
            elif node.op_type == "ConstantOfShape":
                self._filled(node)
            elif node.op_type == "BatchNormalization":
                self._folded(node, scope)
            for attribute in node.attribute:
                for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    self.visit(inner, scope)

    def _operand(self, tensor: onnx.TensorProto, name: str) -> tuple[Operand, str, int]:
        dtype = dtype_from_onnx(tensor.data_type).name
        count = math.prod(tensor.dims)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return Operand(tensor=self._position[name]), dtype, count
        return Operand(dtype=dtype, data=_raw(tensor)), dtype, count

    def _add(self, name: str, operand: Operand, dtype: str, count: int) -> None:
        self.found[name] = RefitWeights(name=name, dtype=_NARROWED.get(dtype, dtype), count=count, operands=(operand,))

    def _filled(self, node: onnx.NodeProto) -> None:
        value = next((each.t for each in node.attribute if each.name == "value"), None)
        name = next(self._names)
        if value is None:
            self._add(name, Operand(dtype="float32", data=bytes(dtype_of("float32").nbytes((1,)))), "float32", 1)
        else:
            self._add(name, *self._operand(value, name))

    def _folded(self, node: onnx.NodeProto, scope: dict[str, tuple[Operand, str, int]]) -> None:
        given = [scope.get(name) for name in node.input[1:_NORMALIZED]]
        entries = [entry for entry in given if entry is not None]
        if len(entries) != _NORMALIZED - 1:  # computed inputs: the parser makes layers of the normalization
            return
        epsilon = next((each.f for each in node.attribute if each.name == "epsilon"), _EPSILON)
        kinds = {dtype for _, dtype, _ in entries}
        dtype = kinds.pop() if len(kinds) == 1 else "float32"
        for rule in (Rule.BATCH_NORM_SCALE, Rule.BATCH_NORM_SHIFT):
            name = next(self._names)
            self.found[name] = RefitWeights(
                name=name,
                dtype=_NARROWED.get(dtype, dtype),
                count=entries[0][2],
                rule=rule.value,
                operands=tuple(operand for operand, _, _ in entries),
                epsilon=epsilon,
            )


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The value of a Constant node; integers too, which are weights to the parser although they only make shapes."""
    for attribute in node.attribute if node.op_type == "Constant" else ():
        if attribute.name in {"value_int", "value_ints"}:
            values = attribute.i if attribute.name == "value_int" else attribute.ints
            return onnx.numpy_helper.from_array(np.array(values, np.int64))
    return constant_of(node)


def _raw(tensor: onnx.TensorProto) -> bytes:
    """The elements of an inline tensor, little-endian."""
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    return bytes(onnx.numpy_helper.from_array(np.ascontiguousarray(onnx.numpy_helper.to_array(tensor))).raw_data)


def _made_up_names() -> Iterator[str]:
    yield _MADE_UP
    number = 0
    while True:
        yield f"{_MADE_UP}_{number}"
        number += 1
