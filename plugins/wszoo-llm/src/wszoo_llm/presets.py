"""Optimization profiles by name: ``b4-c2048`` is up to four sequences of up to 2,048 tokens.

Each name is two profiles of one engine: ``prefill`` takes a prompt with nothing before it, ``decode`` one token after
all that came before. ``b4-c2048-one`` is one profile for both, best at one token: TensorRT-RTX lays fused fp16 and bf16
projections down once for each profile (285 MB of weights made a plan of 288 MB with one and of 397 MB with two), which
costs the client's memory and nothing on the way there. Quantized weights are laid down once either way.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from wszoo.errors import UsageError
from wszoo.families.profiles import dynamic_inputs
from wszoo.schema.plan import Profile, ShapeRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.schema.model import Value

_NAME = re.compile(r"(?:b([1-9]\d{0,4})-)?c([1-9]\d{0,6})(-one)?")
DEFAULT_CONTEXT = 2048
PREFILL, DECODE, BOTH = "prefill", "decode", "both"
_MAX_PRESETS = 16


def profiles(inputs: Sequence[Value], specs: Sequence[str], *, trained: int) -> tuple[tuple[Profile, ...], int]:
    """The profiles that were asked for, and the longest context among them.

    Args:
        inputs: what the graph takes.
        specs: names such as ``b4-c2048`` or ``c512``; empty for one sequence of up to 2,048 tokens.
        trained: the longest context that the model was made for.

    Raises:
        UsageError: not such a name, or a longer context than the model was made for.
    """
    wanted = list(dict.fromkeys(specs)) or [f"b1-c{min(DEFAULT_CONTEXT, trained)}"]
    if len(wanted) > _MAX_PRESETS:
        raise UsageError(f"{len(wanted)} profiles are too many; up to {_MAX_PRESETS} are accepted")
    found: list[Profile] = []
    longest = 0
    for spec in wanted:
        batch, context, kinds = _parse(spec, trained)
        longest = max(longest, context)
        prefix = f"{spec}-" if len(wanted) > 1 else ""
        found += [_profile(inputs, f"{prefix}{kind}", _sizes(kind, batch, context)) for kind in kinds]
    return tuple(found), longest


def _parse(spec: str, trained: int) -> tuple[int, int, tuple[str, ...]]:
    match = _NAME.fullmatch(spec)
    if match is None:
        raise UsageError(
            f"--profile: {spec!r} is not a profile of the family 'llm'",
            hint="write the most sequences and tokens, as in --profile b4-c2048, or --profile c512 for one sequence",
        )
    batch, context = int(match[1] or 1), int(match[2])
    if context < 2 or context > trained:  # noqa: PLR2004 - a token, and one before it
        raise UsageError(
            f"--profile {spec}: the model was made for 2 to {trained} tokens", hint=f"for example --profile c{trained}"
        )
    return batch, context, (BOTH,) if match[3] else (PREFILL, DECODE)


def _sizes(kind: str, batch: int, context: int) -> list[dict[str, int]]:
    """Of each dimension for the least, the usual and the most."""
    usual = max(context // 2, 1)
    prompts = [(rows, tokens, 0) for rows, tokens in ((1, 1), (batch, usual), (batch, context))]
    steps = [(rows, 1, before) for rows, before in ((1, 1), (batch, min(usual, context - 1)), (batch, context - 1))]
    chosen = {PREFILL: prompts, DECODE: steps, BOTH: [prompts[0], steps[1], (batch, context, context - 1)]}[kind]
    # The whole sequence is no longer than the context, whatever the two parts may be on their own.
    return [
        {"batch": rows, "length": length, "past": past, "total": min(length + past, context)}
        for rows, length, past in chosen
    ]


def _profile(inputs: Sequence[Value], name: str, sizes: Sequence[dict[str, int]]) -> Profile:
    return Profile(name=name, inputs={key: _range(value, sizes) for key, value in dynamic_inputs(inputs).items()})


def _range(value: Value, sizes: Sequence[dict[str, int]]) -> ShapeRange:
    least, opt, most = (tuple(size[dim] if isinstance(dim, str) else dim for dim in value.shape) for size in sizes)
    return ShapeRange(min=least, opt=opt, max=most)
