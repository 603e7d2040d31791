"""How much more tensors and plans decode to than is stored of them, and how much more is believed.

A frame is bounded by itself, but a table may name thousands, each of a few kilobytes of zeros, or one again and again.
Frames do not overlap, which :class:`wszoo.weights.packs.PackReader` looks at when it reads a pack; so what a model
decodes to is bounded by what was fetched of it.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

from wszoo.errors import LimitError

if TYPE_CHECKING:
    from wszoo.digest import Digest
    from wszoo.schema.model import ModelConfig

MAX_GAIN = 256  # raw bytes for a stored one, over all of a model: trained weights have 1.5, 99 % zeros 33
FREE_GAIN = 1 << 30  # raw bytes that are not asked how few they are stored in: constants, masks, zeros; a plan's tables


def most_decoded(stored: int) -> int:
    """The most bytes that so many stored ones are believed to decode to."""
    return FREE_GAIN + MAX_GAIN * stored


def stored_bytes(config: ModelConfig) -> Counter[Digest]:
    """How many bytes of each pack a model's frames take.

    Raises:
        LimitError: they would decode to more than is sensible.
    """
    raw = 0
    stored: Counter[Digest] = Counter()
    for frame in chain.from_iterable(config.frames.values()):
        raw += frame.raw
        if frame.pack < len(config.packs):
            stored[config.packs[frame.pack]] += frame.stored
    if raw > most_decoded(stored.total()):
        raise LimitError(
            f"the model's tensors would decode from {stored.total()} bytes to {raw}: {MAX_GAIN} times are accepted",
            hint="distrust its source",
        )
    return stored
