"""Which layers of a network are the same piece of code, so that few of them stand for all.

torch needs two to three seconds of Python to trace a layer, and a network of 32 has perhaps two kinds. Traced and
compared is a network of one or two layers of each kind; :mod:`wszoo_llm.unroll` makes the others from them.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from wszoo.families.torch_export import require_torch

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

_NUMBER = re.compile(r"(?:^|(?<=\.))\d+(?=\.)")
_PLAIN = (bool, int, float, str, tuple, type(None))
# What a layer knows of its own place. If it computes anything from that, the attribute holding the result differs.
_PLACE = {"layer_idx", "layer_id", "layer_number", "training"}


def layer_of(name: str) -> int | None:
    """The layer that a weight, or a cache's tensor, belongs to: 12 for ``model.layers.12.mlp.up_proj.weight``."""
    match = _NUMBER.search(name)
    return int(match[0]) if match else None


def in_layer(name: str, layer: int) -> str:
    """The same weight of another layer; names of no layer stay as they are."""
    return _NUMBER.sub(str(layer), name, count=1)


def kinds(module: Any) -> list[Hashable] | None:  # noqa: ANN401 - transformers' own class
    """For each layer something that is equal for those of the same code, sizes and settings; None when it is unclear.

    Args:
        module: may be on the meta device.
    """
    torch, config = require_torch(), module.config
    count = config.num_hidden_layers
    lists = [m for m in module.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count]
    if len(lists) != 1:
        return None
    settings = _by_layer(config)
    return [
        (tuple(_settings(layer)), tuple(repr(values[number]) for values in settings.values()))
        for number, layer in enumerate(lists[0])
    ]


def representatives(found: Sequence[Hashable]) -> list[int]:
    """Layers that stand for all: the first, the last, and of those between them two of each kind.

    Two, so that whether layers of a kind come out the same can be seen; the first counts as one of its kind.
    """
    last = len(found) - 1
    chosen = [0]
    for kind in dict.fromkeys(found[1:last]):
        same = [number for number in range(1, last) if found[number] == kind]
        chosen += same[: 1 if found[0] == kind else 2]
    return sorted({*chosen, last})


def cut_config(config: Any, layers: Sequence[int]) -> Any:  # noqa: ANN401 - transformers' own class
    """The configuration of a network of some of the layers only."""
    made = copy.deepcopy(config)
    for name, values in _by_layer(config).items():
        setattr(made, name, [values[number] for number in layers])
    made.num_hidden_layers = len(layers)
    return made


def _by_layer(config: Any) -> Mapping[str, Sequence[Any]]:  # noqa: ANN401
    """The configuration's lists that have an entry for each layer."""
    count = config.num_hidden_layers
    return {name: value for name, value in vars(config).items() if isinstance(value, list) and len(value) == count}


def _settings(layer: Any) -> list[Hashable]:  # noqa: ANN401 - a torch module
    found: list[Hashable] = []
    for path, part in layer.named_modules():
        plain = {name: value for name, value in vars(part).items() if isinstance(value, _PLAIN) and name not in _PLACE}
        found.append((path, type(part).__qualname__, repr(sorted(plain.items()))))
    found += [(name, tuple(value.shape), str(value.dtype)) for name, value in layer.named_parameters()]
    return found
