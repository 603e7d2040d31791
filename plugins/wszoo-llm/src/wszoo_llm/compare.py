"""Comparing an export with transformers before it is published.

The whole network where its weights have up to a gigabyte, else the layers that were traced, with embedding and output:
the others are copies of their graph, and a 13 GB checkpoint would be read many times over. What is computed for the
comparison (weights in fp32, dequantized ones) goes through a file and is mapped, so that it may leave the memory.
bf16 has no kernels on a CPU: there the same weights are compared in a graph exported in fp32.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.backends.onnxruntime import reference
from wszoo.families import torch_export
from wszoo.families.bind import Quantized, bind
from wszoo.families.compare import TOLERANCES, Comparison, compare_outputs
from wszoo.families.quantize import dequantized
from wszoo.families.spool import Spool
from wszoo.families.torch_export import require_torch
from wszoo.weights.tensor import DTYPES, Tensor
from wszoo_llm import network, traced
from wszoo_llm.layers import in_layer, layer_of
from wszoo_llm.network import DTYPES as PRECISIONS
from wszoo_llm.segments import SplitNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx
    import torch
    from numpy.typing import NDArray

    from wszoo.weights.graph import Graph
    from wszoo.weights.tensor import DType
    from wszoo_llm.source import Source
    from wszoo_llm.traced import Traced

WHOLE = 1 << 30  # bytes of weights up to which the whole network is compared
LARGE = 1 << 28  # bytes from which on memory matters more than time
CUT_LAYERS = 2  # where every layer was traced, because they could not be told apart
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
        scratch: an existing folder, for numbers that would fill the memory.
    """

    source: Source
    precision: str
    weights: Mapping[str, Tensor]
    quantized: Mapping[str, Quantized]
    every_logit: bool
    scratch: Path

    @property
    def small(self) -> bool:
        """True when the whole network is compared."""
        return sum({id(tensor.load): tensor.nbytes for tensor in self.weights.values()}.values()) <= WHOLE


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


def compare(subject: Subject, graph: Graph, made: Traced) -> Outcome:
    """Run the export in ONNX Runtime and the original in torch.

    Args:
        subject: what was exported.
        graph: of the whole network.
        made: what it was made from.

    Raises:
        BuildError: they differ by more than :data:`wszoo.families.compare.TOLERANCES`.
        MissingExtraError: onnxruntime is not installed.
        StorageError: no room.
    """
    with _spool(subject.scratch) as spool:
        own = subject.small
        if not subject.small:
            subject = _cut(subject, made.layers if made.unrolled else range(min(CUT_LAYERS, subject.source.layers)))
            if made.unrolled and subject.precision != "bf16":
                own, graph = True, _bound(subject, made.part)
        if subject.precision == "bf16":
            own, subject = False, _widened(subject, spool)
        return _compared(subject, graph if own else _bound(subject, _traced(subject)), spool)


def _compared(subject: Subject, graph: Graph, spool: Spool) -> Outcome:
    real = {**subject.weights, **_real(subject.quantized, DTYPES[PRECISIONS[subject.precision]], spool)}
    ours, truth = _module(subject, real, subject.precision), None
    if subject.precision != "fp32":
        truth = _module(subject, _wide(real, spool), "fp32")
    found = torch_export.compare(
        graph,
        ours,
        cases(graph),
        tolerance=TOLERANCES[subject.precision],
        truth=truth,
        frugal=graph.weight_bytes > LARGE,
        name="the network",
    )
    drift = _drift(ours, _module(subject, subject.weights, subject.precision), graph) if subject.quantized else 0.0
    return Outcome(comparison=found, layers=subject.source.layers, drift=drift)


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
    with _spool(subject.scratch) as spool:
        real = {**subject.weights, **_real(subject.quantized, DTYPES[PRECISIONS[subject.precision]], spool)}
        wide = real if subject.precision == "fp32" else _wide(real, spool)
        return _compared_split(subject, made, ranks, _module(subject, wide, "fp32"))


def _compared_split(subject: Subject, made: Mapping[str, Graph], ranks: int, truth: torch.nn.Module) -> Comparison:
    split = SplitNetwork(lambda name: reference(made[name], name), subject.source.layers, ranks)
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


@contextmanager
def _spool(scratch: Path) -> Iterator[Spool]:
    # Windows does not remove what is still mapped; the folder around it is removed after the build.
    with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as folder:
        yield Spool(Path(folder) / "compared.bin")


def _cut(subject: Subject, chosen: Sequence[int]) -> Subject:
    """The same with some layers only, which are numbered anew."""
    place = {layer: at for at, layer in enumerate(chosen)}
    names = {
        name: name if (layer := layer_of(name)) is None else in_layer(name, place[layer])
        for name in (*subject.weights, *subject.quantized)
        if layer_of(name) in {None, *chosen}
    }
    return replace(
        subject,
        source=traced.cut(subject.source, chosen),
        weights={names[old]: replace(each, name=names[old]) for old, each in subject.weights.items() if old in names},
        quantized={names[old]: each for old, each in subject.quantized.items() if old in names},
    )


def _widened(subject: Subject, spool: Spool) -> Subject:
    quantized = {
        name: replace(each, scales=spool.add_as(each.scales, DTYPES["float32"]))
        for name, each in subject.quantized.items()
    }
    return replace(subject, precision="fp32", weights=_wide(subject.weights, spool), quantized=quantized)


def _wide(tensors: Mapping[str, Tensor], spool: Spool) -> dict[str, Tensor]:
    """In fp32; tied weights once."""
    made: dict[int, Tensor] = {}
    for tensor in tensors.values():
        if id(tensor.load) not in made:
            made[id(tensor.load)] = spool.add_as(tensor, DTYPES["float32"])
    return {name: replace(made[id(tensor.load)], name=name) for name, tensor in tensors.items()}


def _real(quantized: Mapping[str, Quantized], dtype: DType, spool: Spool) -> dict[str, Tensor]:
    return {
        name: spool.add(name, dtype, each.values.shape, dequantized(each).astype(dtype.numpy))
        for name, each in quantized.items()
    }


def _traced(subject: Subject) -> onnx.ModelProto:
    module = network.bare_module(subject.source, subject.precision)
    return traced.trace(subject.source, subject.precision, module, every_logit=subject.every_logit).model


def _bound(subject: Subject, part: onnx.ModelProto) -> Graph:
    plain = {name: tensor for name, tensor in subject.weights.items() if name not in subject.quantized}
    return bind(part, plain, subject.quantized)


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
