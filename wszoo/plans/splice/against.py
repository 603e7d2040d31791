"""A body against a base: the base's lines with their numbers exchanged, and the lines that are new.

Between two targets most lines of a body stay, or differ only in names that have shifted. What is new is little, and
mostly numbers: 530 of 21,069 distinct lines of SDXL's unet for a further target, 478 KB of text, are 4 KB as templates
and numbers. So a body is a renaming of the base, a list of where its lines come from, and the new ones.

Byte format: the renaming (:mod:`wszoo.plans.splice.renaming`); the number of lines; one zstd frame. It holds three
bytes for each line, the highest first, and the new lines in the order in which they first occur, each once
(:mod:`wszoo.plans.splice.lines`). Of a base with n distinct lines, a number below n is that line, its numbers
exchanged; n is the next new line, and n + 1 + i the new line i again. The frame's dictionary is the same of the base:
three bytes for each of its lines, and then its distinct lines with their numbers exchanged, each once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from wszoo.codecs import zstd
from wszoo.errors import LimitError, MalformedError
from wszoo.plans.splice.columns import Cursor, number
from wszoo.plans.splice.lines import MAX_LINES, MAX_TEXT, Lines, joined
from wszoo.plans.splice.renaming import Renaming

if TYPE_CHECKING:
    from wszoo.plans.splice.columns import Ints

_LEVEL = 19
_WIDTH = 3  # bytes of a line's number: with MAX_DISTINCT of each body, it is at most 2**21
_SLACK = 64  # bytes that a few lines take more than their text


def encode(ours: Lines, theirs: Lines, renaming: Renaming, *, max_size: int) -> bytes:
    """A body's lines against a base's, as described at the top of this module.

    Args:
        ours: the body's lines.
        theirs: the base's.
        renaming: any one of the base's numbers; the better it is, the fewer bytes.
        max_size: bytes of the body.

    Raises:
        LimitError: a text has more digits than are taken, or the new lines would take more bytes than the body.
    """
    base = renaming.of(theirs)
    order, new = _told_apart(ours, base, max_size)
    parts = new.to_bytes()
    if len(parts) > _room(max_size):
        raise LimitError(f"the new lines of a splice program take {len(parts):,} bytes, and all of it {max_size:,}")
    frame = zstd.compress(_bytes(order) + parts, level=_LEVEL, dictionary=_dictionary(base))
    return renaming.to_bytes() + number(len(order)) + frame


def _told_apart(ours: Lines, base: Lines, max_size: int) -> tuple[Ints, Lines]:
    """Where each line comes from, and the new ones."""
    texts = ours.texts(max_size=max_size)
    known = {line: i for i, line in enumerate(base.texts(max_size=MAX_TEXT))}
    count = len(base.which)
    where = np.array([known.get(line, -1) for line in texts], np.int64)
    fresh = where < 0
    where[fresh] = count + 1 + np.arange(np.count_nonzero(fresh))
    order = where[ours.order]
    first = np.unique(ours.order, return_index=True)[1]  # of each distinct line
    order[first[fresh]] = count
    lines = [line for line in texts if line not in known]
    return order, Lines.of(b"\n".join(lines)) if lines else Lines.none()


def decode(cursor: Cursor, base: bytes, *, max_size: int) -> bytes:
    """The body, from what is left of bytes that nobody vouches for.

    Raises:
        MalformedError: they do not follow the format.
        LimitError: the body, its lines, or the base with its numbers exchanged, are too many or too large.
    """
    renaming = Renaming.read(cursor)
    count = cursor.number(min(MAX_LINES, max_size + 1))
    frame = cursor.take(cursor.left).tobytes()
    size = zstd.declared_size(frame, limit=_WIDTH * count + _room(max_size))
    theirs = renaming.of(Lines.of(base))
    content = zstd.decompress(frame, size=size, dictionary=_dictionary(theirs))
    parts = Cursor(content)
    order = _numbers(parts.take(_WIDTH * count))
    new = Lines.read(parts, max_size=max_size).texts(max_size=max_size)
    texts = theirs.texts(max_size=MAX_TEXT)
    return joined(texts + new, _resolved(order, len(texts), len(new)), max_size=max_size)


def _room(max_size: int) -> int:
    """The most bytes that a body's new lines take."""
    return min(max_size, MAX_TEXT) + _SLACK


def _dictionary(base: Lines) -> bytes:
    return _bytes(base.order) + replace(base, order=np.arange(len(base.which))).to_bytes()


def _bytes(values: Ints) -> bytes:
    return values.astype(">i4").view(np.uint8).reshape(-1, 4)[:, 4 - _WIDTH :].tobytes()


def _numbers(data: memoryview) -> Ints:
    rows = np.frombuffer(data, np.uint8).reshape(-1, _WIDTH).astype(np.int64)
    values: Ints = rows @ (256 ** np.arange(_WIDTH - 1, -1, -1))
    return values


def _resolved(order: Ints, known: int, new: int) -> Ints:
    """The line that each line is, the new ones behind the ``known``."""
    first = order == known
    if np.count_nonzero(first) != new or np.any(order > known + new):
        raise MalformedError("the lines of a splice program name new ones that it does not have")
    resolved: Ints = np.where(first, known - 1 + np.cumsum(first), order - (order > known))
    return resolved
