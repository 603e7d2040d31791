"""Running a network that is cut into segments, as one: the sums over the ranks are made here, in NumPy.

On GPUs each rank's segments run on a GPU of its own and NCCL adds. That has not been run; here the ranks take turns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.schema.model import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from wszoo.families.protocol import RunnableComponent

    Arrays = dict[str, NDArray[Any]]

WORDS, HEAD = "embed", "head"


def name_of(layer: int, part: str, rank: int, ranks: int) -> str:
    """The component of a layer's part: ``layers.0.attention.rank0of2``."""
    return f"layers.{layer}.{part}.rank{rank}of{ranks}"


class SplitNetwork:
    """Takes and gives what the whole network would.

    Args:
        load: gives a component by its name.
        layers: how many there are.
        ranks: how many pieces each layer is in.
    """

    def __init__(self, load: Callable[[str], RunnableComponent], layers: int, ranks: int) -> None:
        self._words, self._head = load(WORDS), load(HEAD)
        self._layers = [
            {part: [load(name_of(layer, part, rank, ranks)) for rank in range(ranks)] for part in ("attention", "mlp")}
            for layer in range(layers)
        ]

    @property
    def inputs(self) -> Sequence[Value]:
        """As of the whole network."""
        tokens = [Value(name=name, dtype="int64", shape=("batch", "length")) for name in ("input_ids", "position_ids")]
        mask = Value(name="attention_mask", dtype="int64", shape=("batch", "total"))
        return [*tokens, mask, *self._caches("past_key_values", "past_")]

    @property
    def outputs(self) -> Sequence[Value]:
        """As of the whole network."""
        return [*self._head.outputs, *self._caches("present", "past_")]

    def __call__(self, **arrays: Any) -> Arrays:  # noqa: ANN401 - as the protocol has it
        """Run once: each layer's parts on every rank, and the sums between them."""
        hidden = self._words(input_ids=arrays["input_ids"])["hidden"]
        found: Arrays = {}
        common = {name: arrays[name] for name in ("attention_mask", "position_ids")}
        for number, layer in enumerate(self._layers):
            past = {part: arrays[f"past_key_values.{number}.{part}"] for part in ("key", "value")}
            pieces = {part: np.split(array, len(layer["attention"]), axis=1) for part, array in past.items()}
            results = [
                segment(hidden=hidden, **common, past_key=pieces["key"][rank], past_value=pieces["value"][rank])
                for rank, segment in enumerate(layer["attention"])
            ]
            for part in ("key", "value"):
                found[f"present.{number}.{part}"] = np.concatenate(
                    [each[f"present_{part}"] for each in results], axis=1
                )
            hidden = add(hidden, results)
            hidden = add(hidden, [segment(hidden=hidden) for segment in layer["mlp"]])
        return {"logits": self._head(hidden=hidden)["logits"], **found}

    def _caches(self, name: str, prefix: str) -> list[Value]:
        found = []
        for number, layer in enumerate(self._layers):
            for part in ("key", "value"):
                one = next(value for value in layer["attention"][0].inputs if value.name == prefix + part)
                batch, heads, past, width = one.shape
                shape = (batch, int(heads) * len(layer["attention"]), past, width)
                found.append(Value(name=f"{name}.{number}.{part}", dtype=one.dtype, shape=shape))
        return found


def add(hidden: NDArray[Any], results: Sequence[Arrays]) -> NDArray[Any]:
    """The all-reduce: partial sums of every rank, added in fp32, on top of what they were made from."""
    total = hidden.astype(np.float32)
    for each in results:
        total += each["partial"].astype(np.float32)
    return total.astype(hidden.dtype)
