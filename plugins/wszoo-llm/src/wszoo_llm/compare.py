"""Comparing an export with transformers before it is published.

The whole network where its weights have up to a gigabyte, else its first layers with embedding and output: every layer
of a decoder is the same piece of graph, and a 13 GB checkpoint would have to be in memory twice over in fp32.
bf16 has no kernels on a CPU: there the same weights are compared in a graph exported in fp32.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.backends.onnxruntime import reference
from wszoo.families import torch_export
from wszoo.families.bind import Quantized, bind
from wszoo.families.compare import TOLERANCES, Comparison, compare_outputs
from wszoo.families.quantize import dequantized
from wszoo.families.torch_export import require_torch
from wszoo.weights.tensor import DTYPES, Tensor, tensor_from_array
from wszoo_llm import graph as graphs
from wszoo_llm import network
from wszoo_llm.network import DTYPES as PRECISIONS
from wszoo_llm.segments import SplitNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from numpy.typing import NDArray

    from wszoo.weights.graph import Graph
    from wszoo_llm.source import Source

WHOLE = 1 << 30  # bytes of weights up to which the whole network is compared
LARGE = 1 << 28  # bytes from which on memory matters more than time
CUT_LAYERS = 2
SEED = 1
# (batch, new positions, positions before, padding): a prompt, a prompt with padding, one token, a piece after others.
CASES = ((1, 7, 0, 0), (3, 9, 0, 4), (3, 1, 9, 4), (2, 4, 11, 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is compared.

    Attributes:
        source: the model.
        precision: what it computes in.
        weights: by the parameter's name, unquantized.
        quantized: those that are quantized.
        every_logit: see :func:`wszoo_llm.network.decoder`.
    """

    source: Source
    precision: str
    weights: Mapping[str, Tensor]
    quantized: Mapping[str, Quantized]
    every_logit: bool

    @property
    def layers(self) -> int:
        """How many layers are compared."""
        whole = sum({id(tensor): tensor.nbytes for tensor in self.weights.values()}.values()) <= WHOLE
        return self.source.layers if whole else min(CUT_LAYERS, self.source.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was found.

    Attributes:
        comparison: of the export with torch on the same (dequantized) weights.
        layers: how many of the network's layers took part.
        drift: root of mean squared difference of the logits to those of the unquantized weights, over the logits' own
            spread; 0 without quantization.
    """

    comparison: Comparison
    layers: int
    drift: float


def compare(subject: Subject, graph: Graph) -> Outcome:
    """Run the export in ONNX Runtime and the original in torch.

    Args:
        subject: what was exported.
        graph: of the whole network.

    Raises:
        BuildError: they differ by more than :data:`wszoo.families.compare.TOLERANCES`.
        MissingExtraError: onnxruntime is not installed.
    """
    layers, computes = subject.layers, "fp32" if subject.precision == "bf16" else subject.precision
    same = layers == subject.source.layers and computes == subject.precision
    if layers != subject.source.layers:
        subject = _cut(subject, layers)
    if computes != subject.precision:
        subject = _widened(subject)
    graph = graph if same else _export(subject, computes)
    real = {**subject.weights, **_real(subject.quantized, DTYPES[PRECISIONS[computes]])}
    ours = _module(subject, real, computes)
    truth = copy.deepcopy(ours).float() if computes != "fp32" else None
    found = torch_export.compare(
        graph,
        ours,
        cases(graph),
        tolerance=TOLERANCES[computes],
        truth=truth,
        frugal=graph.weight_bytes > LARGE,
        name="the network",
    )
    drift = _drift(ours, _module(subject, subject.weights, computes), graph) if subject.quantized else 0.0
    return Outcome(comparison=found, layers=layers, drift=drift)


def compare_split(subject: Subject, made: Mapping[str, Graph], ranks: int) -> Comparison:
    """Run a network's segments in ONNX Runtime with the sums between them, and the whole original in torch in fp32.

    Args:
        subject: what was exported.
        made: segments by name.
        ranks: in how many pieces.

    Raises:
        BuildError: they differ by more than :data:`wszoo.families.compare.TOLERANCES`.
        MissingExtraError: onnxruntime is not installed.
    """
    split = SplitNetwork(lambda name: reference(made[name], name), subject.source.layers, ranks)
    truth = _module(subject, subject.weights, subject.precision).float()
    found = Comparison(tolerance=TOLERANCES[subject.precision])
    names = [value.name for value in split.outputs]
    torch = require_torch()
    for case in cases(split):
        tensors = {name: torch.from_numpy(array) for name, array in case.items()}
        wide = {name: each.float() if each.is_floating_point() else each for name, each in tensors.items()}
        with torch.inference_mode():
            theirs = {name: each.numpy() for name, each in zip(names, truth(**wide), strict=True)}
        found = compare_outputs(found, split(**case), theirs, "the network")
    found.require_meaning("the network")
    return found


def cases(graph: Graph | SplitNetwork) -> Iterator[dict[str, NDArray[Any]]]:
    """Seeded inputs: a prompt, one with padding on the left, a single token, and a piece in the middle."""
    values = {value.name: value for value in graph.inputs}
    words = next(value.shape[-1] for value in graph.outputs if value.name == "logits")
    assert isinstance(words, int)
    for seed, (batch, length, past, padding) in enumerate(CASES, start=SEED):
        generator = np.random.default_rng(seed)
        mask = np.ones((batch, past + length), np.int64)
        mask[1:, :padding] = 0
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, past:]
        feed: dict[str, NDArray[Any]] = {
            "input_ids": generator.integers(0, words, (batch, length)),
            "attention_mask": mask,
            "position_ids": positions,
        }
        for name, value in values.items():
            if name.startswith("past_key_values."):
                shape = (batch, int(value.shape[1]), past, int(value.shape[3]))
                feed[name] = generator.standard_normal(shape, np.float32).astype(DTYPES[value.dtype].numpy)
        yield feed


def _cut(subject: Subject, layers: int) -> Subject:
    config = copy.deepcopy(subject.source.config)
    kinds = getattr(config, "layer_types", None)
    config.num_hidden_layers = layers
    if kinds:
        config.layer_types = list(kinds)[:layers]
    source = replace(subject.source, config=config)
    wanted = network.bare_module(source, subject.precision).state_dict().keys()
    return replace(
        subject,
        source=source,
        weights={name: tensor for name, tensor in subject.weights.items() if name in wanted},
        quantized={name: each for name, each in subject.quantized.items() if name in wanted},
    )


def _widened(subject: Subject) -> Subject:
    return replace(
        subject,
        precision="fp32",
        weights={name: _wide(tensor) for name, tensor in subject.weights.items()},
        quantized={name: replace(each, scales=_wide(each.scales)) for name, each in subject.quantized.items()},
    )


def _wide(tensor: Tensor) -> Tensor:
    return tensor_from_array(tensor.name, tensor.array().astype(np.float32))


def _real(quantized: Mapping[str, Quantized], dtype: Any) -> dict[str, Tensor]:  # noqa: ANN401
    return {name: tensor_from_array(name, dequantized(each).astype(dtype.numpy)) for name, each in quantized.items()}


def _export(subject: Subject, precision: str) -> Graph:
    module = network.bare_module(subject.source, precision)
    shapes = network.cache_shapes(module)
    network.fill_shapes(module)
    model = graphs.export(module, shapes, every_logit=subject.every_logit)
    plain = {name: tensor for name, tensor in subject.weights.items() if name not in subject.quantized}
    return bind(model, plain, subject.quantized)


def _module(subject: Subject, weights: Mapping[str, Tensor], precision: str) -> torch.nn.Module:
    module = network.bare_module(subject.source, precision)
    network.fill_weights(module, weights)
    return _by_name(network.decoder(module, every_logit=subject.every_logit), subject.source.layers)


def _by_name(decoder: torch.nn.Module, layers: int) -> torch.nn.Module:
    """The same, taking its inputs as the graph does: by name."""
    library = require_torch()
    names = network.input_names(layers)

    class ByName(library.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.decoder = decoder

        def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found: tuple[torch.Tensor, ...] = self.decoder(
                *(inputs[name] for name in names[:3]), [inputs[name] for name in names[3:]]
            )
            return found

    return ByName().eval()


def _drift(quantized: torch.nn.Module, original: torch.nn.Module, graph: Graph) -> float:
    torch = require_torch()
    off = spread = 0.0
    for case in cases(graph):
        tensors = {name: torch.from_numpy(array) for name, array in case.items()}
        with torch.inference_mode():
            ours, theirs = (module(**tensors)[0].double() for module in (quantized, original))
        off += float(((ours - theirs) ** 2).sum())
        spread += float(((theirs - theirs.mean(dim=-1, keepdim=True)) ** 2).sum())
    return float((off / spread) ** 0.5) if spread else 0.0
