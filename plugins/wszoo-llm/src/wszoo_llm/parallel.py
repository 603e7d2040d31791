"""Tensor parallel: a network cut into segments, each segment's matrices cut for several GPUs.

ONNX has no operator that adds up over GPUs, so graphs end where sums are needed and the caller adds: attention and the
feed-forward part of each layer give partial sums of each rank. The cut is Megatron's (arXiv 1909.08053): queries, keys,
values, gate and up by outputs, which are rows of the checkpoint and stay where they lie; the projections after them by
inputs. Matrices are quantized whole and cut with their scales, int4 between blocks, so that the ranks hold the whole
network's numbers. Norms, embedding and output layer are whole, and shared by the ranks in the store. See ADR 15.
"""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.errors import BuildError
from wszoo.families.bind import bind
from wszoo.families.torch_export import require_torch
from wszoo_llm import graph as graphs
from wszoo_llm import network
from wszoo_llm.chatglm import rows
from wszoo_llm.libraries import require
from wszoo_llm.segments import HEAD, WORDS, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx
    import torch

    from wszoo.families.bind import Quantized
    from wszoo.families.spool import Spool
    from wszoo.weights.graph import Graph
    from wszoo.weights.tensor import Tensor
    from wszoo_llm.source import Source

# Layers of these are: x += attention(norm(x)); x += feed_forward(norm(x)), with projections of these names.
KINDS = ("llama", "mistral", "gemma", "qwen2", "qwen3")
_BY_OUTPUTS = re.compile(r".*\.(?:q|k|v|gate|up)_proj\.(?:weight|bias)")
_BY_INPUTS = re.compile(r".*\.(?:o|down)_proj\.weight")
_FIRST = "model.layers.0."


def check(source: Source, ranks: int, block: int = 0) -> None:
    """Refuse what cannot be cut.

    Args:
        source: of the model.
        ranks: how many GPUs.
        block: inputs that share a scale, where weights are quantized in blocks.

    Raises:
        BuildError: an architecture with other layers, or sizes that the ranks do not divide.
    """
    config = source.config
    if source.model_type not in KINDS:
        raise BuildError(
            f"a {source.model_type} cannot be cut for several GPUs", hint=f"this works for {', '.join(KINDS)}"
        )
    sizes = {
        name: getattr(config, name) for name in ("num_attention_heads", "num_key_value_heads", "intermediate_size")
    }
    for name, size in sizes.items():
        if size % ranks:
            raise BuildError(f"{ranks} ranks do not divide {name}, which is {size}")
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    inputs = {"attention": config.num_attention_heads * width, "the feed-forward part": config.intermediate_size}
    for name, size in inputs.items():
        if block and size // ranks % block and not size % block:
            raise BuildError(
                f"{ranks} ranks would cut {name}'s {size} inputs through blocks of {block}, which share a scale",
                hint="take int8, or fewer ranks",
            )
    if getattr(config, "attention_bias", False) and source.model_type != "qwen2":
        raise BuildError("the projection after attention has a bias, which every rank would add")
    if len(set(getattr(config, "layer_types", None) or ())) > 1:
        raise BuildError("the layers are not all of one kind")


def is_cut(name: str) -> bool:
    """True for the matrices of the layers, of which every rank has a piece; they are the ones that are quantized."""
    return name.endswith(".weight") and bool(_BY_OUTPUTS.fullmatch(name) or _BY_INPUTS.fullmatch(name))


def segments(
    source: Source,
    precision: str,
    weights: Mapping[str, Tensor],
    quantized: Mapping[str, Quantized],
    *,
    ranks: int,
    spool: Spool,
) -> Iterator[tuple[str, Graph]]:
    """Each segment's name and graph, in the order in which they run.

    Args:
        source: of the model; see :func:`check`.
        precision: what it computes in.
        weights: of the whole network, by the parameter's name.
        quantized: those that are quantized.
        ranks: how many GPUs.
        spool: where pieces are written that are no rows.

    Raises:
        BuildError: torch cannot export a segment.
        StorageError: no room.
    """
    module = _rank_module(source, precision, ranks)
    config = source.config
    yield WORDS, _bound(_words(module), weights)
    attention, forward = _attention(module), _feed_forward(module)
    for layer in range(config.num_hidden_layers):
        for part, model in (("attention", attention), ("mlp", forward)):
            here = _of_layer(model, layer)
            for rank in range(ranks):
                names = {value.name for value in here.graph.input}
                plain = {name: weights[name] for name in weights if name in names and name not in quantized}
                mine = {name: _piece(tensor, rank, ranks, spool) for name, tensor in plain.items()}
                small = {n: _small_piece(n, quantized[n], rank, ranks, spool) for n in quantized if n in names}
                yield name_of(layer, part, rank, ranks), bind(copy.deepcopy(here), mine, small)
    yield HEAD, _bound(_head(module), weights)


def _rank_module(source: Source, precision: str, ranks: int) -> Any:  # noqa: ANN401
    config = copy.deepcopy(source.config)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    config.num_hidden_layers = 1
    config.head_dim = width
    config.num_attention_heads //= ranks
    config.num_key_value_heads //= ranks
    config.intermediate_size //= ranks
    if getattr(config, "layer_types", None):
        config.layer_types = list(config.layer_types)[:1]
    module = network.bare_module(replace(source, config=config), precision)
    network.fill_shapes(module)
    return module


def _piece(tensor: Tensor, rank: int, ranks: int, spool: Spool) -> Tensor:
    if _BY_OUTPUTS.fullmatch(tensor.name):
        step = tensor.shape[0] // ranks
        return rows(tensor, rank * step, (rank + 1) * step)
    if _BY_INPUTS.fullmatch(tensor.name):
        step = tensor.shape[1] // ranks
        piece = tensor.array()[:, rank * step : (rank + 1) * step]
        return spool.add(tensor.name, tensor.dtype, (tensor.shape[0], step), piece)
    return tensor


def _small_piece(name: str, whole: Quantized, rank: int, ranks: int, spool: Spool) -> Quantized:
    values, scales = whole.values, whole.scales
    outputs, inputs = values.shape
    if _BY_OUTPUTS.fullmatch(name):
        start, stop = (outputs // ranks * edge for edge in (rank, rank + 1))
        return replace(whole, values=rows(values, start, stop), scales=rows(scales, start, stop))
    pieces = np.split(values.load().reshape(outputs, -1), ranks, axis=1)  # bytes, of which int4 has two elements each
    made = spool.add(values.name, values.dtype, (outputs, inputs // ranks), pieces[rank])
    if not whole.block:
        return replace(whole, values=made)
    factors = np.split(scales.array(), ranks, axis=1)[rank]
    return replace(whole, values=made, scales=spool.add(scales.name, scales.dtype, factors.shape, factors))


def _of_layer(model: onnx.ModelProto, layer: int) -> onnx.ModelProto:
    """The first layer's graph with another layer's weights."""
    made = copy.deepcopy(model)
    new = f"model.layers.{layer}."
    for value in made.graph.input:
        value.name = value.name.replace(_FIRST, new)
    for node in made.graph.node:
        node.input[:] = [name.replace(_FIRST, new) for name in node.input]
    return made


def _bound(model: onnx.ModelProto, weights: Mapping[str, Tensor]) -> Graph:
    names = {value.name for value in model.graph.input}
    return bind(model, {name: tensor for name, tensor in weights.items() if name in names})


def _words(module: Any) -> onnx.ModelProto:  # noqa: ANN401
    def run(net: Any, input_ids: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        found: torch.Tensor = net.model.embed_tokens(input_ids)
        return found

    return _trace(module, run, ["input_ids"], ["hidden"])


def _head(module: Any) -> onnx.ModelProto:  # noqa: ANN401
    def run(net: Any, hidden: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        found: torch.Tensor = net.lm_head(net.model.norm(hidden[:, -1:]))
        return found

    return _trace(module, run, ["hidden"], ["logits"])


def _feed_forward(module: Any) -> onnx.ModelProto:  # noqa: ANN401
    def run(net: Any, hidden: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        layer = net.model.layers[0]
        found: torch.Tensor = layer.mlp(layer.post_attention_layernorm(hidden))
        return found

    return _trace(module, run, ["hidden"], ["partial"])


def _attention(module: Any) -> onnx.ModelProto:  # noqa: ANN401
    transformers = require("transformers")

    def run(net: Any, hidden: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:  # noqa: ANN401
        attention_mask, position_ids, past_key, past_value = rest
        layer, cache = net.model.layers[0], transformers.DynamicCache([(past_key, past_value)])
        found = layer.self_attn(
            hidden_states=layer.input_layernorm(hidden),
            position_embeddings=net.model.rotary_emb(hidden, position_ids),
            attention_mask=network.masks(net, attention_mask, hidden.shape[1], hidden.dtype)[1],
            past_key_values=cache,
        )
        return found[0], cache.layers[0].keys, cache.layers[0].values

    names = ["hidden", "attention_mask", "position_ids", "past_key", "past_value"]
    return _trace(module, run, names, ["partial", "present_key", "present_value"])


def _trace(module: Any, run: Any, inputs: list[str], outputs: list[str]) -> onnx.ModelProto:  # noqa: ANN401
    library = require_torch()
    config, dtype = module.config, next(module.parameters()).dtype
    batch, length, past = graphs.BATCH, graphs.LENGTH, graphs.PAST
    cache = library.zeros((batch, config.num_key_value_heads, past, config.head_dim), dtype=dtype)
    tokens = library.zeros((batch, length), dtype=library.int64)
    known: dict[str, tuple[Any, dict[int, str]]] = {
        "input_ids": (tokens, {0: "batch", 1: "length"}),
        "position_ids": (tokens, {0: "batch", 1: "length"}),
        "attention_mask": (
            library.ones((batch, past + length), dtype=library.int64),
            {0: "batch", 1: "total"},
        ),
        "hidden": (library.zeros((batch, length, config.hidden_size), dtype=dtype), {0: "batch", 1: "length"}),
        "past_key": (cache, {0: "batch", 2: "past"}),
        "past_value": (cache.clone(), {0: "batch", 2: "past"}),
    }

    class Segment(library.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = module

        def forward(self, arguments: list[torch.Tensor]) -> Any:  # noqa: ANN401
            return run(self.net, *arguments)

    example = {"arguments": [known[name][0] for name in inputs]}
    dynamic = {"arguments": [known[name][1] for name in inputs]}
    return graphs.trace(Segment().eval(), example, dynamic, inputs, outputs)
