"""A graph of many layers from a graph of few: each kind of layer is traced once or twice, and repeated here.

Nodes are told apart by what they depend on: a node belongs to the last layer whose weights or cache it needs, and to
none (it is shared) when it needs none. Between two layers only a few values pass, such as the hidden state. A layer
is repeated by naming its values anew, with another layer's weights and cache, and the values that pass from the one
before. Nothing is guessed: what cannot be told apart is not unrolled, and the whole network is traced instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx

from wszoo_llm.layers import in_layer, layer_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SHARED = -1
_COMMUTATIVE = {"Add", "Mul"}
_FIRST_CACHE = "past_key_values.0.key"


class Unlike(Exception):  # noqa: N818 - never leaves the plugin
    """Layers that should be the same came out different, or cannot be told apart."""


@dataclass(slots=True)
class _Piece:
    """The nodes of one traced layer.

    Attributes:
        number: of the layer, among those that were traced.
        nodes: in the order in which they run.
        made: what they give.
        incoming: values of the layer before that they take, in the order of their makers.
        outgoing: the same of what they give to the next.
    """

    number: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    made: set[str] = field(default_factory=set)
    incoming: list[str] = field(default_factory=list)
    outgoing: list[str] = field(default_factory=list)


def unroll(model: onnx.ModelProto, traced: Sequence[int], kinds: Sequence[object]) -> onnx.ModelProto:
    """Repeat layers.

    Args:
        model: of the layers ``traced``, whose weights are inputs; see :func:`wszoo_llm.graph.export`. Not changed.
        traced: numbers of those layers in the whole network: the first, the last, and some of each kind between.
        kinds: of every layer of the whole network.

    Raises:
        Unlike: see there.
    """
    short = onnx.ModelProto()
    short.CopyFrom(model)
    _share(short.graph)
    shared, pieces = _apart(short.graph, len(traced))
    inputs = {value.name for value in short.graph.input}
    _check_pieces(pieces, [kinds[number] for number in traced], inputs)
    template = {kinds[number]: piece for number, piece in zip(traced[1:-1], pieces[1:-1], strict=True)}
    plan = [pieces[0], *(template[kind] for kind in kinds[1:-1]), pieces[-1]]
    return _assembled(short, shared, plan)


def _share(graph: onnx.GraphProto) -> None:
    """Make equal what is computed from no layer's own numbers: constants, and the sizes of the caches."""
    same: dict[str, str] = {}
    known: dict[object, str] = {}
    for init in list(graph.initializer):
        content = onnx.TensorProto()
        content.CopyFrom(init)
        content.ClearField("name")
        first = known.setdefault(content.SerializeToString(deterministic=True), init.name)
        if first != init.name:
            same[init.name] = first
            graph.initializer.remove(init)
    outputs = {value.name for value in graph.output}
    levels = _Levels(graph)
    for node in list(graph.node):
        node.input[:] = [same.get(name, name) for name in node.input]
        if levels.of(node) != SHARED or outputs & set(node.output):
            continue
        if _is_cache_size(node):
            node.input[0] = _FIRST_CACHE
        first = known.setdefault(_key(node), node.output[0])
        if first != node.output[0] and len(node.output) == 1:
            same[node.output[0]] = first
            graph.node.remove(node)


def _is_cache_size(node: onnx.NodeProto) -> bool:
    """A node that reads the batch or the positions of a cache, which are those of every cache."""
    if node.op_type != "Shape" or not node.input[0].startswith("past_key_values."):
        return False
    ends = {attribute.name: attribute.i for attribute in node.attribute}
    return (ends.get("start", 0), ends.get("end")) in {(0, 1), (2, 3)}


def _key(node: onnx.NodeProto) -> object:
    names = sorted(node.input) if node.op_type in _COMMUTATIVE else list(node.input)
    return (node.domain, node.op_type, tuple(names), _attributes(node), len(node.output))


def _attributes(node: onnx.NodeProto) -> tuple[bytes, ...]:
    return tuple(sorted(each.SerializeToString(deterministic=True) for each in node.attribute))


class _Levels:
    """Tells which layer a node belongs to. Ask for every node, in the order in which they run."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._inputs = {value.name for value in graph.input}
        self._found: dict[str, int] = {}

    def of(self, node: onnx.NodeProto) -> int:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise Unlike(f"{node.op_type} holds graphs of its own")
        # The size of a cache is no layer's own: it is the same for all.
        level = SHARED if node.op_type == "Shape" and node.input[0] in self._inputs else self.after(node.input)
        self._found.update(dict.fromkeys(node.output, level))
        return level

    def after(self, names: Iterable[str]) -> int:
        return max((self.at(name) for name in names), default=SHARED)

    def at(self, name: str) -> int:
        if name in self._inputs:
            layer = layer_of(name)
            return SHARED if layer is None else layer
        return self._found.get(name, SHARED)


def _apart(graph: onnx.GraphProto, count: int) -> tuple[list[onnx.NodeProto], list[_Piece]]:
    levels = _Levels(graph)
    shared: list[onnx.NodeProto] = []
    pieces = [_Piece(number) for number in range(count)]
    for node in graph.node:
        level = levels.of(node)
        if level == SHARED:
            shared.append(node)
        else:
            pieces[level].nodes.append(node)
            pieces[level].made.update(node.output)
    for piece in pieces[1:]:
        taken = {name for node in piece.nodes for name in node.input} - piece.made
        before = {name for name in taken if 0 <= levels.at(name) < piece.number}
        order = [name for node in pieces[piece.number - 1].nodes for name in node.output]
        piece.incoming = [name for name in order if name in before]
        pieces[piece.number - 1].outgoing = piece.incoming
        if len(piece.incoming) != len(before):
            raise Unlike(f"layer {piece.number} takes more than the layer before it gives")
    return shared, pieces


def _check_pieces(pieces: Sequence[_Piece], kinds: Sequence[object], inputs: set[str]) -> None:
    """What passes between layers is of one form everywhere, and layers of one kind are the same."""
    forms = {tuple(_makers(piece)) for piece in pieces[:-1]}
    if len(forms) != 1:
        raise Unlike("layers of different kinds give different things to the next")
    first: dict[object, _Piece] = {}
    for kind, piece in zip(kinds[:-1], pieces[:-1], strict=True):  # the last one's nodes include the output layer
        other = first.setdefault(kind, piece)
        if other is not piece:
            _check_same(other, piece, inputs)


def _makers(piece: _Piece) -> list[str]:
    maker = {name: node.op_type for node in piece.nodes for name in node.output}
    return [maker[name] for name in piece.outgoing]


def _check_same(one: _Piece, other: _Piece, inputs: set[str]) -> None:
    if len(one.nodes) != len(other.nodes):
        raise Unlike(f"layer {one.number} has {len(one.nodes)} nodes, and layer {other.number} {len(other.nodes)}")
    pairs: dict[str, str] = {}
    for ours, theirs in zip(one.nodes, other.nodes, strict=True):
        if (ours.domain, ours.op_type, _attributes(ours)) != (theirs.domain, theirs.op_type, _attributes(theirs)):
            raise Unlike(f"{ours.op_type} of layer {one.number} is {theirs.op_type} in layer {other.number}")
        pairs.update(zip(ours.output, theirs.output, strict=True))
        for name, twin in zip(ours.input, theirs.input, strict=True):
            if twin in other.incoming and (name in one.incoming or not one.number):
                wanted = pairs.setdefault(name, twin)
            else:
                wanted = pairs.get(name) or (in_layer(name, other.number) if name in inputs else name)
            if wanted != twin:
                raise Unlike(f"layer {one.number} takes {name} where layer {other.number} takes {twin}")


def _assembled(model: onnx.ModelProto, shared: list[onnx.NodeProto], plan: Sequence[_Piece]) -> onnx.ModelProto:
    inputs, outputs = list(model.graph.input), list(model.graph.output)
    own = {value.name for value in inputs if layer_of(value.name) is not None}
    nodes = [*shared, *_repeated(plan, own, {value.name for value in outputs})]
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for values in (made.graph.node, made.graph.input, made.graph.output, made.graph.value_info):
        del values[:]
    made.graph.node.extend(nodes)
    made.graph.input.extend(_values(inputs, plan))
    made.graph.output.extend(_values(outputs, plan))
    return made


def _repeated(plan: Sequence[_Piece], own: set[str], outputs: set[str]) -> list[onnx.NodeProto]:
    """All layers' nodes. What passes from a layer to the next is found by the order of its makers."""
    found: list[onnx.NodeProto] = []
    for layer, piece in enumerate(plan):
        names = {name: in_layer(name, layer) if name in outputs else f"layer{layer}/{name}" for name in piece.made}
        if layer:
            given = plan[layer - 1].outgoing
            names |= {name: f"layer{layer - 1}/{there}" for name, there in zip(piece.incoming, given, strict=True)}
        for node in piece.nodes:
            made = onnx.NodeProto()
            made.CopyFrom(node)
            made.ClearField("metadata_props")
            made.name = f"layer{layer}/{node.name}"
            made.input[:] = [names.get(name) or (in_layer(name, layer) if name in own else name) for name in node.input]
            made.output[:] = [names[name] for name in node.output]
            found.append(made)
    return found


def _values(values: Sequence[onnx.ValueInfoProto], plan: Sequence[_Piece]) -> list[onnx.ValueInfoProto]:
    """Inputs or outputs of all layers, where those of the first stand; others in their order around them."""
    found: list[onnx.ValueInfoProto] = []
    done: set[bool] = set()
    for value in values:
        cache = value.name.startswith(("past_key_values.", "present."))
        if layer_of(value.name) is None:
            found.append(value)
        elif cache not in done:
            done.add(cache)
            for layer, piece in enumerate(plan):
                found += [
                    _value(each, layer)
                    for each in values
                    if layer_of(each.name) == piece.number and cache == each.name.startswith(("past_key_", "present."))
                ]
    return found


def _value(value: onnx.ValueInfoProto, layer: int) -> onnx.ValueInfoProto:
    made = onnx.ValueInfoProto()
    made.CopyFrom(value)
    made.name = in_layer(value.name, layer)
    return made
