"""transformers' own network around this family's inputs and outputs, without its weights' memory.

The module is made on torch's meta device, so that a 13 GB checkpoint costs nothing; the exporter needs shapes only.
Masks are computed here from positions, as plain comparisons: sliding windows are masks too, so the cache always holds
every position and one graph serves prefill and decode.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wszoo.errors import BuildError
from wszoo.families.torch_export import require_torch
from wszoo_llm.libraries import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from wszoo.weights.tensor import Tensor
    from wszoo_llm.source import Source

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
SLIDING, FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Keys and values of one layer: ``(batch, heads, positions, width)``."""

    heads: int
    key_width: int
    value_width: int


def input_names(layers: int) -> list[str]:
    """What the graph takes, in order."""
    past = [f"past_key_values.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    return ["input_ids", "attention_mask", "position_ids", *past]


def output_names(layers: int) -> list[str]:
    """What the graph gives, in order."""
    return ["logits", *(f"present.{layer}.{part}" for layer in range(layers) for part in ("key", "value"))]


def bare_module(source: Source, precision: str) -> Any:  # noqa: ANN401 - transformers' own class
    """The network on the meta device, in evaluation mode.

    Raises:
        BuildError: transformers cannot make it from this configuration.
        MissingExtraError: torch or transformers is not installed.
    """
    torch, transformers = require_torch(), require("transformers")
    try:
        with torch.device("meta"):
            module = transformers.AutoModelForCausalLM.from_config(
                source.config,
                dtype=getattr(torch, DTYPES[precision]),
                attn_implementation="eager",
                trust_remote_code=source.remote_code,
            )
    except Exception as error:  # whatever a wrong config makes the library raise
        raise BuildError(
            f"transformers makes no network of this {source.model_type}: {type(error).__name__}: {error}",
            hint="config.json may be damaged, or of a newer transformers",
        ) from error
    return module.eval()


def cache_shapes(module: Any) -> list[CacheShape]:  # noqa: ANN401
    """Run a bare module on two tokens without memory, and see what it keeps.

    Raises:
        BuildError: it keeps something else than keys and values of every position.
    """
    torch, transformers = require_torch(), require("transformers")
    ids = torch.zeros((1, 2), dtype=torch.int64, device="meta")
    cache = transformers.DynamicCache()
    dtype = next(module.parameters()).dtype
    mask = _by_kind(module, torch.zeros((1, 1, 2, 2), dtype=dtype, device="meta"))
    kind = type(module).__name__
    try:
        with torch.inference_mode(), torch.device("meta"):
            module(input_ids=ids, attention_mask=mask, position_ids=ids, past_key_values=cache, use_cache=True)
        pairs = [(layer.keys, layer.values) for layer in cache.layers]
    except Exception as error:
        raise BuildError(
            f"{kind} does not run with a cache of keys and values: {type(error).__name__}: {str(error)[:300]}",
            hint="the family 'llm' exports decoders that attend to the keys and values of all positions",
        ) from error
    if len(pairs) != module.config.num_hidden_layers or any(key.ndim != 4 for key, _ in pairs):  # noqa: PLR2004
        raise BuildError(
            f"{kind} keeps {len(pairs)} caches of keys and values for {module.config.num_hidden_layers} layers",
            hint="layers with another state (a state space, a window) need an exporter of their own",
        )
    return [CacheShape(key.shape[1], key.shape[3], value.shape[3]) for key, value in pairs]


def fill_shapes(module: Any) -> None:  # noqa: ANN401
    """Give every parameter memory that is never touched, and every computed buffer its numbers."""
    torch = require_torch()
    _compute_buffers(module)
    _replace(module, lambda _, value: torch.empty(value.shape, dtype=value.dtype, device="cpu"))


def fill_weights(module: Any, weights: Mapping[str, Tensor]) -> None:  # noqa: ANN401
    """Give every parameter its bytes where they lie, and every computed buffer its numbers."""
    library = require_torch()

    def load(name: str, value: torch.Tensor) -> torch.Tensor:
        array = weights[name].load()
        with warnings.catch_warnings():  # the bytes are mapped read-only, and nothing here writes to them
            warnings.simplefilter("ignore", UserWarning)
            found: torch.Tensor = library.frombuffer(memoryview(array), dtype=value.dtype).reshape(value.shape)
            return found

    _compute_buffers(module)
    _replace(module, load)


def _replace(module: Any, make: Any) -> None:  # noqa: ANN401
    # A tied parameter stands in two modules as one object, and must afterwards too.
    torch = require_torch()
    done: dict[int, Any] = {}
    for name, value in list(module.named_parameters(remove_duplicate=False)):
        if id(value) not in done:
            done[id(value)] = (value, torch.nn.Parameter(make(name, value), requires_grad=False))
        path, _, leaf = name.rpartition(".")
        module.get_submodule(path)._parameters[leaf] = done[id(value)][1]  # noqa: SLF001 - torch has no other way
    persistent = module.state_dict(keep_vars=True).keys()
    for name, buffer in list(module.named_buffers()):
        if name in persistent and buffer.is_meta:
            path, _, leaf = name.rpartition(".")
            module.get_submodule(path)._buffers[leaf] = make(name, buffer)  # noqa: SLF001


def _compute_buffers(module: Any) -> None:  # noqa: ANN401
    # While parameters are still on the meta device: initializing a module also draws weights, into nothing there.
    torch = require_torch()
    for child in module.modules():
        stale = [name for name in child._non_persistent_buffers_set if child._buffers.get(name) is not None]  # noqa: SLF001
        for name in stale:
            child._buffers[name] = torch.empty_like(child._buffers[name], device="cpu").fill_(float("nan"))  # noqa: SLF001
        if stale:
            with torch.no_grad():
                module._init_weights(child)  # noqa: SLF001 - where transformers computes what no checkpoint holds
            left = [name for name in stale if bool(child._buffers[name].isnan().any())]  # noqa: SLF001
            if left:
                raise BuildError(
                    f"{type(child).__name__} computes {', '.join(left)} in a way that this family does not know",
                    hint="the architecture needs a change in the plugin wszoo-llm",
                )


def decoder(module: Any, *, every_logit: bool = False) -> torch.nn.Module:  # noqa: ANN401
    """The network as it is exported.

    Its ``forward`` takes ``input_ids (batch, length)``, ``attention_mask (batch, past + length)``, ``position_ids
    (batch, length)``, all int64, and ``past``, a list of keys and values of each layer ``(batch, heads, past, width)``.
    It gives the logits of the last position, or of every one, and the same list with the new positions.
    """
    library, transformers = require_torch(), require("transformers")

    class Decoder(library.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = module

        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            position_ids: torch.Tensor,
            past: Sequence[torch.Tensor],
        ) -> tuple[torch.Tensor, ...]:
            full, sliding = masks(self.net, attention_mask, input_ids.shape[1], past[0].dtype)
            cache = transformers.DynamicCache([(past[at], past[at + 1]) for at in range(0, len(past), 2)])
            found = self.net(
                input_ids=input_ids,
                attention_mask=_by_kind(self.net, full, sliding),
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=0 if every_logit else 1,
            )
            return (found.logits, *(part for layer in cache.layers for part in (layer.keys, layer.values)))

    return Decoder().eval()


def masks(
    module: Any,  # noqa: ANN401
    attention_mask: torch.Tensor,
    length: int,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each position may see: all before it, and what is in its window. Added to scores.

    Args:
        module: whose configuration tells the window.
        attention_mask: ``(batch, total)``, 0 for padding.
        length: how many of the last positions ask.
        dtype: of the scores.
    """
    library, config = require_torch(), module.config
    window = int(getattr(config, "sliding_window", None) or 0)
    kinds = set(getattr(config, "layer_types", None) or ())
    total = attention_mask.shape[1]
    query = (library.arange(length) + (total - length))[:, None]
    key = library.arange(total)[None, :]
    # A row of padding sees itself, lest it sees nothing: softmax over equally hidden keys is rounding noise.
    seen = ((key <= query) & (attention_mask[:, None, None, :] > 0)) | (key == query)
    near = seen & (key > query - window) if window and (not kinds or SLIDING in kinds) else seen
    return _additive(seen, dtype), _additive(near, dtype)


def _additive(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    # The least finite number, as transformers has it: fp16 makes infinity of it where scores are added, which is fine.
    torch = require_torch()
    low = torch.tensor(torch.finfo(dtype).min, dtype=dtype)
    return torch.where(seen, torch.zeros((), dtype=dtype), low)


def _by_kind(module: Any, full: torch.Tensor, sliding: torch.Tensor | None = None) -> Any:  # noqa: ANN401
    """One mask, or one for each kind of layer, as the network's own code wants it."""
    near = full if sliding is None else sliding
    source = inspect.getsource(sys.modules[type(module).__module__])
    if "attention_mask, dict)" in source:
        return {FULL: full, SLIDING: near}
    return near
