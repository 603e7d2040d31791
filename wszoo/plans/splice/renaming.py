"""What numbers of a base are called in another body: names are generated, and one more anywhere shifts all later ones.

Of 12,300 such numbers in SDXL's unet 2,137 have another value in the plan for the next target, nearly all by one of 60
differences. The base with its numbers exchanged resembles that plan much more: its layer is 5.5 and not 9.1 KB. A
wrong entry costs some bytes and nothing else, because the body is compressed against the result, whatever that is.

Byte format: number of entries; column of the old numbers, each less the one before; signed column of the shifts (new -
old), each less the one before.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Self

import numpy as np

from wszoo.errors import MalformedError
from wszoo.plans.splice import columns
from wszoo.plans.splice.lines import END, Lines

if TYPE_CHECKING:
    from wszoo.plans.splice.columns import Cursor, Ints

_LEAST = 100  # smaller numbers are mostly sizes and counters, not names
_MAX_ALIGNED = 1 << 16  # distinct lines; SDXL's unet has 21,000, which are aligned in 1.5 s
_MAX_ENTRIES = 1 << 18  # SDXL's unet needs 4,135
_MAX_SHIFT = columns.MAX_VALUE >> 2  # of either sign: a column takes zigzags of differences between two of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Renaming:
    """New numbers for old ones, which ascend."""

    old: Ints
    new: Ints

    @classmethod
    def none(cls) -> Self:
        """The renaming of nothing."""
        return cls(old=np.zeros(0, np.int64), new=np.zeros(0, np.int64))

    @classmethod
    def between(cls, base: Lines, lines: Lines) -> Self:
        """The renaming that most pairs of corresponding lines ask for; empty where there are too many lines."""
        if max(len(base.which), len(lines.which)) > _MAX_ALIGNED:
            return cls.none()
        chosen: dict[int, int] = {}
        for (old, new), _ in _votes(base, lines).most_common():
            chosen.setdefault(old, new)
        pairs = sorted((a, b) for a, b in chosen.items() if a >= _LEAST and 0 < abs(b - a) <= _MAX_SHIFT)
        table = np.array(pairs[:_MAX_ENTRIES], np.int64).reshape(-1, 2)
        return cls(old=table[:, 0], new=table[:, 1])

    def of(self, lines: Lines) -> Lines:
        """The lines with their numbers exchanged."""
        if not len(self.old):
            return lines
        at = np.minimum(np.searchsorted(self.old, lines.numbers), len(self.old) - 1)
        return replace(lines, numbers=np.where(self.old[at] == lines.numbers, self.new[at], lines.numbers))

    def to_bytes(self) -> bytes:
        """As described at the top of this module."""
        shift = self.new - self.old
        old = columns.encode(np.diff(self.old, prepend=0))
        return columns.number(len(self.old)) + old + columns.encode_signed(np.diff(shift, prepend=0))

    @classmethod
    def read(cls, cursor: Cursor) -> Self:
        """Parse from bytes that nobody vouches for.

        Raises:
            MalformedError: they do not follow the format.
            LimitError: more entries than any body needs.
        """
        count = cursor.number(_MAX_ENTRIES)
        old = np.cumsum(cursor.column(count))
        new = old + np.cumsum(cursor.signed_column(count))
        if np.any(np.diff(old) <= 0) or np.any((new < 0) | (new >= END)):
            raise MalformedError("a splice program's renaming is not in order, or names no number")
        return cls(old=old, new=new)


def _votes(base: Lines, lines: Lines) -> Counter[tuple[int, int]]:
    """How often a number of the base stands where the other body has one, in lines of the same template."""
    number = {template: i for i, template in enumerate(base.templates)}
    shared = np.array([number.setdefault(template, len(number)) for template in lines.templates], np.int64)
    ours, theirs = base.which.tolist(), shared[lines.which].tolist()
    starts, other = _starts(base), _starts(lines)
    olds, news = base.numbers.tolist(), lines.numbers.tolist()
    votes: Counter[tuple[int, int]] = Counter()
    for block in SequenceMatcher(None, ours, theirs).get_matching_blocks():
        a, b = starts[block.a], other[block.b]
        size = starts[block.a + block.size] - a
        votes.update(zip(olds[a : a + size], news[b : b + size], strict=True))
    return votes


def _starts(lines: Lines) -> list[int]:
    ends: list[int] = np.cumsum(lines.widths()[lines.which]).tolist()
    return [0, *ends]
