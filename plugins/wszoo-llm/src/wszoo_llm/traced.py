"""The network's graph: traced whole where it has few layers, else traced in part and unrolled."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wszoo_llm import graph, layers, network
from wszoo_llm.unroll import Unlike, unroll

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from wszoo_llm.network import CacheShape
    from wszoo_llm.source import Source

_LOG = logging.getLogger(__name__)
SAVING = 2  # layers that unrolling must save to be worth it


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """A network's graph, its weights being inputs.

    Attributes:
        model: of the whole network.
        part: of the layers that were traced; the same object when all were.
        layers: their numbers in the whole network.
    """

    model: onnx.ModelProto
    part: onnx.ModelProto
    layers: tuple[int, ...]

    @property
    def unrolled(self) -> bool:
        """True when some layers were traced, and the others made from them."""
        return self.part is not self.model


def trace(source: Source, precision: str, module: Any, *, every_logit: bool = False) -> Traced:  # noqa: ANN401
    """Export a network.

    Args:
        source: of the model.
        precision: what it computes in.
        module: the whole network, on the meta device; it may be given shapes on the way.
        every_logit: give the logits of all positions, not of the last.

    Raises:
        BuildError: torch cannot export it.
        MissingExtraError: torch or onnxscript is not installed.
    """
    shapes = network.cache_shapes(module)
    kinds = layers.kinds(module)
    chosen = layers.representatives(kinds) if kinds else []
    if kinds and len(chosen) + SAVING <= len(kinds):
        part = _trace_part(source, precision, chosen, shapes, kinds, every_logit=every_logit)
        try:
            if part is not None:
                return Traced(model=unroll(part, chosen, kinds), part=part, layers=tuple(chosen))
        except Unlike as unlike:
            _LOG.info("every layer is traced: %s", unlike)
    network.fill_shapes(module)
    model = graph.export(module, shapes, every_logit=every_logit)
    return Traced(model=model, part=model, layers=tuple(range(source.layers)))


def _trace_part(
    source: Source,
    precision: str,
    chosen: Sequence[int],
    shapes: Sequence[CacheShape],
    kinds: Sequence[object],
    *,
    every_logit: bool,
) -> onnx.ModelProto | None:
    """Export a network of some layers; None when alone they are not what they are in the whole network."""
    module = network.bare_module(cut(source, chosen), precision)
    if layers.kinds(module) != [kinds[number] for number in chosen]:
        return None
    network.fill_shapes(module)
    return graph.export(module, [shapes[number] for number in chosen], every_logit=every_logit)


def cut(source: Source, chosen: Sequence[int]) -> Source:
    """The same model with some of its layers only."""
    return replace(source, config=layers.cut_config(source.config, chosen))
