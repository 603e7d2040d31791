"""The loop around the network: prefill, then one token after the other, keys and values handed back each time.

Shorter prompts are padded on the left, so that every sequence goes on at the same position of the arrays; the mask
hides the padding and positions start behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.errors import IncompatibleError, UsageError
from wszoo.weights.tensor import dtype_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from wszoo.families.protocol import RunnableComponent
    from wszoo_llm.recipe import Recipe

    Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How to choose.

    Attributes:
        most: new tokens, at most.
        temperature: 0 takes the likeliest token; more than 0 draws one, the likelier the more often.
        seed: for drawing.
    """

    most: int
    temperature: float = 0.0
    seed: int = 0


def check_lengths(prompts: Sequence[Sequence[int]], wish: Wish, recipe: Recipe) -> None:
    """Refuse what the model cannot hold, before it is loaded.

    Raises:
        UsageError: no prompt, an empty one, a token that does not exist, or prompt and answer longer than the context.
    """
    if not prompts or not all(prompts):
        raise UsageError("an empty prompt: there is nothing to go on from", hint="give --prompt TEXT")
    for prompt in prompts:
        wrong = [token for token in prompt if not 0 <= token < recipe.vocabulary]
        if wrong:
            raise UsageError(f"there is no token {wrong[0]}; the vocabulary has {recipe.vocabulary}")
        if len(prompt) + wish.most > recipe.context:
            raise UsageError(
                f"a prompt of {len(prompt)} tokens and {wish.most} new ones do not fit into {recipe.context}, "
                "which this model was built for",
                hint=f"ask for --max-tokens {max(recipe.context - len(prompt), 0)}, shorten the prompt, "
                "or build with a larger --profile"
                if len(prompt) < recipe.context
                else "shorten the prompt, or build with a larger --profile",
            )


def generate(
    network: RunnableComponent, prompts: Sequence[Sequence[int]], wish: Wish, recipe: Recipe
) -> Iterator[list[int | None]]:
    """Yield the next token of each sequence, again and again; None for those that have ended.

    Args:
        network: takes ``input_ids``, ``attention_mask``, ``position_ids`` and ``past_key_values.*``.
        prompts: tokens of each sequence, at least one.
        wish: how many, and how they are chosen.
        recipe: of the model.

    Raises:
        UsageError: see :func:`check_lengths`.
        IncompatibleError: the network gives numbers that are none.
    """
    check_lengths(prompts, wish, recipe)
    feed = _prefill(network, prompts, recipe.pad)
    generator = np.random.default_rng(wish.seed)
    going = np.ones(len(prompts), np.bool_)
    for _ in range(wish.most):
        outputs = network(**feed)
        tokens = _choose(outputs["logits"][:, -1], wish, generator)
        stopped = going & np.isin(tokens, recipe.stop)
        yield [int(token) if alive else None for token, alive in zip(tokens, going, strict=True)]
        going &= ~stopped
        if not going.any():
            return
        feed = _next(feed, outputs, np.where(going, tokens, recipe.pad))


def _prefill(network: RunnableComponent, prompts: Sequence[Sequence[int]], pad: int) -> Arrays:
    longest = max(map(len, prompts))
    ids = np.full((len(prompts), longest), pad, np.int64)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    feed: Arrays = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    for value in network.inputs:
        if value.name.startswith("past_key_values."):
            _, heads, _, width = value.shape
            feed[value.name] = np.zeros((len(prompts), int(heads), 0, int(width)), dtype_of(value.dtype).numpy)
    return feed


def _next(feed: Arrays, outputs: Arrays, tokens: NDArray[np.int64]) -> Arrays:
    mask = np.concatenate([feed["attention_mask"], np.ones((len(tokens), 1), np.int64)], axis=1)
    found: Arrays = {
        "input_ids": tokens.reshape(-1, 1).astype(np.int64),
        "attention_mask": mask,
        "position_ids": mask.sum(axis=1, keepdims=True) - 1,
    }
    for name, array in outputs.items():
        if name.startswith("present."):
            found[name.replace("present.", "past_key_values.", 1)] = array
    return found


def _choose(logits: NDArray[Any], wish: Wish, generator: np.random.Generator) -> NDArray[np.int64]:
    numbers = logits.astype(np.float64)
    if not np.isfinite(numbers.max(axis=-1)).all():
        raise IncompatibleError(
            "the network's logits are no numbers",
            hint="the weights may be too large for fp16: build with --precision bf16 or fp32",
        )
    if wish.temperature == 0:
        return np.asarray(numbers.argmax(axis=-1))
    # The Gumbel trick: the greatest of logits plus this noise is drawn with softmax's probabilities.
    noise = generator.gumbel(size=numbers.shape)
    return np.asarray((numbers / wish.temperature + noise).argmax(axis=-1))
