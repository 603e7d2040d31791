"""Tiny models of several families generate the tokens that transformers' own loop generates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
import transformers
from wszoo_llm import recipe, tiny
from wszoo_llm.family import LlmFamily
from wszoo_llm.generate import Wish, generate

from wszoo.errors import UsageError
from wszoo.families.compare import TOLERANCES
from wszoo.families.local import LocalModel, local_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from wszoo.families.protocol import ExportRequest

PROMPTS = [[5, 17, 300, 44, 81, 9, 200, 6], [301, 77, 5], [9, 8, 7, 6, 5]]
NEW = 64


def transformers_tokens(folder: Path, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    module = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    longest = max(map(len, prompts))
    ids = torch.zeros((len(prompts), longest), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    module.generation_config.eos_token_id = None
    found = module.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    return found[:, longest:].tolist()


def our_tokens(model: LocalModel, prompts: Sequence[Sequence[int]], **wish: Any) -> list[list[int]]:
    numbers = msgspec.structs.replace(recipe.read(model.asset(recipe.ASSET)), stop=())
    steps = list(generate(model["model"].load(), prompts, Wish(most=NEW, **wish), numbers))
    return [list(row) for row in zip(*steps, strict=True)]


@pytest.mark.parametrize("kind", ["mistral", "gemma3", "phi", "qwen3", "glm"])
def test_greedy_generation_with_batch_and_padding_equals_transformers(
    kind: str, tmp_path: Path, request_for: Callable[..., ExportRequest]
) -> None:
    folder = tiny.make(tmp_path / kind, kind)
    export = LlmFamily().export(request_for(folder))
    model = local_model(export)
    assert export.options["compared_with"] == "transformers, all layers"
    assert float(export.options["error"].split()[0]) < TOLERANCES["fp32"].rtol

    found = our_tokens(model, PROMPTS)

    assert found == transformers_tokens(folder, PROMPTS)
    assert len(set(found[0])) > 1, "a model that repeats one token would pass with a broken cache"


def test_llama_generates_the_same_alone_and_beside_longer_prompts(
    exported: tuple[LocalModel, dict[str, str]], llama: Path
) -> None:
    together = our_tokens(exported[0], PROMPTS)
    assert together == transformers_tokens(llama, PROMPTS)
    assert [our_tokens(exported[0], [prompt])[0] for prompt in PROMPTS] == together


def test_drawing_with_a_seed_repeats_itself_and_differs_between_seeds(
    exported: tuple[LocalModel, dict[str, str]],
) -> None:
    first, again, other = (our_tokens(exported[0], PROMPTS[:1], temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_generation_ends_at_a_stop_token_and_says_nothing_more(exported: tuple[LocalModel, dict[str, str]]) -> None:
    model = exported[0]
    free = our_tokens(model, PROMPTS[:2])
    numbers = msgspec.structs.replace(recipe.read(model.asset(recipe.ASSET)), stop=(free[0][3],))
    steps = list(generate(model["model"].load(), PROMPTS[:2], Wish(most=NEW), numbers))
    ended = free[0].index(free[0][3])
    assert [step[0] for step in steps][: ended + 1] == free[0][: ended + 1]
    assert all(step[0] is None for step in steps[ended + 1 :])


@pytest.mark.parametrize(
    ("prompts", "most", "words"),
    [
        ([[1] * 120], 20, "a prompt of 120 tokens and 20 new ones do not fit into 128"),
        ([[1] * 128], 1, "do not fit into 128"),
        ([[]], 1, "an empty prompt"),
        ([[512]], 1, "there is no token 512"),
    ],
)
def test_prompt_that_the_model_cannot_hold_is_refused(
    exported: tuple[LocalModel, dict[str, str]], prompts: list[list[int]], most: int, words: str
) -> None:
    model = exported[0]
    numbers = recipe.read(model.asset(recipe.ASSET))
    with pytest.raises(UsageError, match=words):
        next(generate(model["model"].load(), prompts, Wish(most=most), numbers))
