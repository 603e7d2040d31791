"""``wszoo run NAME --prompt TEXT``: continue a text, or answer in a chat model's way, token by token."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from wszoo.errors import UsageError
from wszoo.families.arguments import number, whole
from wszoo.families.demo import DemoParser
from wszoo.families.protocol import DemoResult
from wszoo_llm import recipe as recipes
from wszoo_llm.generate import Wish, check_lengths, generate
from wszoo_llm.segments import SplitNetwork
from wszoo_llm.tokens import Speaker, Tokenizer, check_tokens

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from wszoo.families.protocol import PulledModel, RunnableComponent
    from wszoo.progress import Progress
    from wszoo_llm.recipe import Recipe

PROMPT = "Once upon a time"
MAX_PROMPTS = 64


def answer(model: PulledModel, arguments: Sequence[str], progress: Progress) -> DemoResult:
    """Generate for the given prompts; the text comes in pieces, and the facts are complete when it has ended.

    Raises:
        UsageError: the arguments make no sense, or a prompt is too long.
        NotFoundError: the model lacks its network or tokenizer.
        MalformedError: an asset that is not what it should be.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.help:
        return parser.help_result()
    recipe = recipes.read(model.asset(recipes.ASSET))
    wish = Wish(most=options.max_tokens, temperature=options.temperature, seed=options.seed)
    tokenizer = None if options.tokens else Tokenizer(model)
    prompts = _prompts(options, tokenizer)
    check_lengths(prompts, wish, recipe)
    with progress.stage(f"load {recipes.COMPONENT}"):
        network = load(model, recipe)
    values: dict[str, object] = {}
    return DemoResult(
        values=values, text="", pieces=_talk(network, prompts, wish, recipe, tokenizer=tokenizer, values=values)
    )


def load(model: PulledModel, recipe: Recipe) -> RunnableComponent:
    """The network, put together where it was cut for several GPUs."""
    if recipe.ranks == 1:
        return model[recipes.COMPONENT].load()
    return SplitNetwork(lambda name: model[name].load(), recipe.layers, recipe.ranks)


def _talk(
    network: RunnableComponent,
    prompts: Sequence[Sequence[int]],
    wish: Wish,
    recipe: Recipe,
    *,
    tokenizer: Tokenizer | None,
    values: dict[str, object],
) -> Iterator[str]:
    """One prompt is said as it comes; of several, each after it has ended, under its number."""
    speakers = [Speaker(tokenizer) for _ in prompts] if tokenizer else []
    tokens: list[list[int]] = [[] for _ in prompts]
    start, first = time.perf_counter(), 0.0
    for step in generate(network, prompts, wish, recipe):
        first = first or time.perf_counter() - start
        for row, token in enumerate(step):
            if token is None:
                continue
            tokens[row].append(token)
            piece = _say(speakers[row] if speakers else None, token, recipe)
            if len(prompts) == 1 and piece:
                yield piece
    seconds = time.perf_counter() - start
    if len(prompts) == 1 and speakers:
        yield speakers[0].rest()
    elif speakers:
        yield from (f"{number}: {speaker.text}\n" for number, speaker in enumerate(speakers, start=1))
    else:
        yield from (",".join(map(str, row)) + "\n" for row in tokens[1:])
    yield "\n" if len(prompts) == 1 else ""
    values |= _facts(prompts, tokens, speakers, seconds, first)


def _say(speaker: Speaker | None, token: int, recipe: Recipe) -> str:
    if speaker is None:
        return f"{token} "
    return "" if token in recipe.stop else speaker.add(token)


def _facts(
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[Sequence[int]],
    speakers: Sequence[Speaker],
    seconds: float,
    first: float,
) -> dict[str, object]:
    count = sum(map(len, tokens))
    after = max(map(len, tokens), default=0) - 1
    return {
        "answers": [
            {
                "prompt_tokens": len(prompt),
                "tokens": list(found),
                **({"text": speakers[row].text} if speakers else {}),
            }
            for row, (prompt, found) in enumerate(zip(prompts, tokens, strict=True))
        ],
        "new_tokens": count,
        "first_token_s": round(first, 4),
        "seconds_per_token": round((seconds - first) / after, 5) if after > 0 else None,
    }


def _prompts(options: argparse.Namespace, tokenizer: Tokenizer | None) -> list[list[int]]:
    if len(options.prompt) > MAX_PROMPTS or len(options.tokens) > MAX_PROMPTS:
        raise UsageError(f"more than {MAX_PROMPTS} prompts at once")
    if tokenizer is None:
        if options.prompt:
            raise UsageError("--prompt and --tokens exclude each other")
        return [check_tokens(text) for text in options.tokens]
    return [tokenizer.encode(text, plain=options.plain) for text in options.prompt or [PROMPT]]


def _parser() -> DemoParser:
    parser = DemoParser("Continue a text, or answer in a chat model's way.")
    add: Any = parser.add_argument
    add("--prompt", action="append", default=[], metavar="TEXT", help=f'what to go on from ("{PROMPT}"); repeatable')
    add("--plain", action="store_true", help="continue the text itself, without the model's chat template")
    add("--tokens", action="append", default=[], metavar="N,N,...", help="a prompt as token numbers; repeatable")
    add("--max-tokens", type=whole(1, 1 << 20), default=64, metavar="N", help="at most so many new tokens (64)")
    add("--temperature", type=number(0, 100), default=0.0, metavar="T", help="0 takes the likeliest token (0)")
    add("--seed", type=whole(0, (1 << 63) - 1), default=0, metavar="S", help="for drawing, with a temperature (0)")
    return parser
