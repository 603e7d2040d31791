"""Bodies as lines, templates and numbers: what TensorRT-RTX's text becomes small as.

Nearly all of a body is text: kernels' source code, of which SDXL's unet holds the same 150 KB some 300 times, and
descriptions of tensors and calls that differ only in the numbers of generated names, `__mye1903573_dconst`. So each
distinct line is kept once, as a *template* (its text with every number as `0`) and its numbers; and these stand
together by template and place, each as its difference from the one before it there. Log compressors do the same (CLP,
Denum). The unet's 51 MB are 1.2 MB of such columns, of which xz makes 89 KB, and 174 KB of the body itself.

A *number* is `0` or up to twelve digits that begin with another one, the longest from the left: any run of digits is a
row of them, so that a template has no other digit than `0`, and filling in is all that it takes to get the line back.

Byte format
-----------
A body has one form: distinct lines, and templates, are counted in the order in which they first occur. Numbers are
LEB128; columns, and signed ones (s), are those of :mod:`wszoo.plans.splice.columns`.

1. Lines; distinct lines; jumps; length of the templates' text in bytes.
2. Columns over jumps, lines that are not the distinct line behind their predecessor's (the first's is -1): position of
   the line - the previous jump's; its distinct line - (the one behind the predecessor's) (s).
3. Column over distinct lines: template - (the previous line's template + 1) (s).
4. The templates, with a newline between.
5. Column over numbers, by template, place in it, and line: number - the one before in the same place, or 0 (s).
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from wszoo.errors import LimitError, MalformedError
from wszoo.plans.splice import columns

if TYPE_CHECKING:
    from wszoo.plans.splice.columns import Cursor, Ints, Mask

MAX_LINES = 1 << 21  # of a body; SDXL's unet has 573,000
MAX_DISTINCT = 1 << 20  # lines, and templates; the unet has 21,000, and each takes 200 bytes of memory
MAX_DIGITS = 1 << 22  # in distinct lines, and numbers there; the unet has a million digits in 249,000 numbers
MAX_TEXT = 64 << 20  # bytes of distinct lines with a newline each, hence of templates; the unet has 4 MB
_TOGETHER = 1 << 14  # lines; to join a line takes 120 bytes of memory, twice what it has
END = 10**12  # numbers are less
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,11}")
_DIGITS = b"0123456789"
_MARK = b"0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """A body as lines.

    Attributes:
        order: the distinct line that each line is.
        templates: texts with `0` for each number, none of them with a newline.
        which: the template of each distinct line.
        numbers: of all distinct lines, one line after the other.
    """

    order: Ints
    templates: tuple[bytes, ...]
    which: Ints
    numbers: Ints

    @classmethod
    def of(cls, body: bytes) -> Self:
        """Take a body apart.

        Raises:
            LimitError: more lines, text or digits than are taken.
        """
        _limit("lines", body.count(b"\n") + 1, MAX_LINES)
        seen: dict[bytes, int] = {}
        order = np.array([seen.setdefault(line, len(seen)) for line in body.split(b"\n")], np.int64)
        _limit("distinct lines", len(seen), MAX_DISTINCT)
        _limit("bytes in distinct lines", sum(map(len, seen)) + len(seen), MAX_TEXT)
        _limit("digits", sum(len(line) - len(line.translate(None, _DIGITS)) for line in seen), MAX_DIGITS)
        templates: dict[bytes, int] = {}
        which = [templates.setdefault(_NUMBER.sub(_MARK, line), len(templates)) for line in seen]
        numbers = [int(number) for line in seen for number in _NUMBER.findall(line)]
        return cls(
            order=order,
            templates=tuple(templates),
            which=np.array(which, np.int64),
            numbers=np.array(numbers, np.int64),
        )

    @classmethod
    def none(cls) -> Self:
        """No lines at all; no body is that, the empty one has an empty line."""
        empty = np.zeros(0, np.int64)
        return cls(order=empty, templates=(b"",), which=empty, numbers=empty)

    def body(self, *, max_size: int) -> bytes:
        """The body.

        Raises:
            LimitError: it has more than ``max_size`` bytes, or more text than is taken.
        """
        return joined(self.texts(max_size=max_size), self.order, max_size=max_size)

    def texts(self, *, max_size: int) -> list[bytes]:
        """The distinct lines.

        Raises:
            LimitError: they have more than ``max_size`` bytes, or ``MAX_TEXT``.
        """
        widths = self.widths()[self.which]
        ends = np.cumsum(widths)
        digits = np.searchsorted(10 ** np.arange(1, 12), self.numbers, side="right")  # beyond the template's one
        sizes = np.array([len(template) for template in self.templates], np.int64)[self.which]
        _limit("bytes in distinct lines", int(sizes.sum()) + int(digits.sum()), min(max_size, MAX_TEXT))
        forms = [template.replace(b"%", b"%%").replace(_MARK, b"%d") for template in self.templates]
        numbers = self.numbers.tolist()
        spans = zip(self.which.tolist(), (ends - widths).tolist(), ends.tolist(), strict=True)
        return [forms[form] % tuple(numbers[start:end]) for form, start, end in spans]

    def widths(self) -> Ints:
        """How many numbers each template takes."""
        return _widths(self.templates)

    def to_bytes(self) -> bytes:
        """As described at the top of this module; not compressed."""
        steps = np.diff(self.order, prepend=-1) - 1
        jumps = np.flatnonzero(steps)
        text = b"\n".join(self.templates)
        at, opens = _by_place(self.widths(), self.which)
        change = np.diff(self.numbers[at], prepend=0)
        change[opens] = self.numbers[at][opens]
        counts = (len(self.order), len(self.which), len(jumps), len(text))
        parts = [
            *map(columns.number, counts),
            columns.encode(np.diff(jumps, prepend=0)),
            columns.encode_signed(steps[jumps]),
            columns.encode_signed(np.diff(self.which, prepend=-1) - 1),
            text,
            columns.encode_signed(change),
        ]
        return b"".join(parts)

    @classmethod
    def read(cls, cursor: Cursor, *, max_size: int) -> Self:
        """Parse what is left of bytes that nobody vouches for, as :meth:`to_bytes` wrote it.

        Of a body of up to ``max_size`` bytes, which bounds what is allocated.

        Raises:
            MalformedError: they do not follow the format.
            LimitError: a count is over what any body needs.
        """
        lines = min(MAX_LINES, max_size + 1)
        limits = (lines, min(MAX_DISTINCT, lines), lines, min(cursor.left, max_size, MAX_TEXT))
        n_lines, n_distinct, n_jumps, n_text = (cursor.number(limit) for limit in limits)
        order = _read_order(cursor, n_lines, n_jumps)
        _require(not np.any((order < 0) | (order >= n_distinct)), "name a line that they do not define")
        which = np.cumsum(cursor.signed_column(n_distinct) + 1) - 1
        text = cursor.take(n_text).tobytes()
        _limit("templates", text.count(b"\n") + 1, MAX_DISTINCT)
        templates = tuple(text.split(b"\n"))
        _require(not np.any((which < 0) | (which >= len(templates))), "name a template that they do not define")
        widths = _widths(templates)
        count = int(widths[which].sum())
        _limit("numbers", count, min(MAX_DIGITS, max_size))
        change = cursor.signed_column(count)
        _require(not cursor.left, f"are followed by {cursor.left:,} bytes of garbage")
        return cls(order=order, templates=templates, which=which, numbers=_summed(change, widths, which))


def joined(texts: list[bytes], order: Ints, *, max_size: int) -> bytes:
    """The lines ``order`` of ``texts``, with a newline between.

    Raises:
        LimitError: they have more than ``max_size`` bytes.
    """
    sizes = np.array([len(text) for text in texts], np.int64)
    _limit("bytes", int(sizes[order].sum()) + len(order) - 1, max_size)
    out = io.BytesIO()
    for start in range(0, len(order), _TOGETHER):
        out.write(b"\n" if start else b"")
        out.write(b"\n".join([texts[line] for line in order[start : start + _TOGETHER].tolist()]))
    return out.getvalue()


def _widths(templates: tuple[bytes, ...]) -> Ints:
    return np.array([template.count(_MARK) for template in templates], np.int64)


def _read_order(cursor: Cursor, n_lines: int, n_jumps: int) -> Ints:
    at = np.cumsum(cursor.column(n_jumps))
    _require(not np.any(np.diff(at) <= 0) and not np.any(at >= n_lines), "jump in another order than that of the lines")
    steps = np.ones(n_lines, np.int64)
    steps[at] += cursor.signed_column(n_jumps)
    return np.cumsum(steps) - 1


def _summed(change: Ints, widths: Ints, which: Ints) -> Ints:
    """Numbers in the order of lines, from differences in the order of places."""
    at, opens = _by_place(widths, which)
    total = np.cumsum(change)
    starts = np.flatnonzero(opens)
    lengths = np.diff(np.concatenate((starts, [len(change)])))
    numbers: Ints = np.empty_like(total)
    numbers[at] = total - np.repeat((total - change)[starts], lengths)
    _require(not np.any((numbers < 0) | (numbers >= END)), "hold a number of more than twelve digits")
    return numbers


def _by_place(widths: Ints, which: Ints) -> tuple[Ints, Mask]:
    """Indices of numbers by template, place and line; and which are the first of their place."""
    counts = widths[which]
    template = np.repeat(which, counts)
    ends = np.cumsum(counts)
    place = np.arange(len(template)) - np.repeat(ends - counts, counts)
    at = np.lexsort((place, template))  # stable: lines stay in order
    opens = (np.diff(template[at], prepend=-1) != 0) | (np.diff(place[at], prepend=-1) != 0)
    return at, opens


def _limit(what: str, found: int, limit: int) -> None:
    if found > limit:
        raise LimitError(f"the lines of a splice program have {found:,} {what}, over the limit of {limit:,}")


def _require(holds: bool, defect: str) -> None:
    if not holds:
        raise MalformedError(f"the lines of a splice program {defect}")
