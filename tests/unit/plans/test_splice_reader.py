"""A second reader of bodies that are packed as lines, written from docs/format.md alone: the page is enough."""

from __future__ import annotations

import itertools
import lzma
import random
import re

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from wszoo.plans.splice import against, pack, pack_base
from wszoo.plans.splice.lines import Lines
from wszoo.plans.splice.renaming import Renaming

NUMBER = re.compile(rb"0|[1-9][0-9]{0,11}")
WORDS = [b"call", b"0", b"007", b"1999999999990", b"\n", b"\n", b" ", b"%d", b"12", b"1203", b"\xff", b"999999999999"]
TEXT = st.lists(st.sampled_from(WORDS), max_size=80).map(b"".join)


def generated(shift=0):
    """Calls between a few lines that come again and again; names from 1,950,000 on are called ``shift`` more."""
    chosen = random.Random(5)
    names = [chosen.randrange(1_900_000, 2_000_000) for _ in range(900)]
    names = [name + shift * (name >= 1_950_000) for name in names]
    calls = [b'call={ name="__mye%d" input="__mye%d" }' % (name, names[i // 3]) for i, name in enumerate(names)]
    return b"\n".join(line for i, call in enumerate(calls) for line in (call, b"kernel %d" % (i % 50)))


class Bytes:
    """What is left of some bytes."""

    def __init__(self, data):
        self.data = data

    def take(self, count):
        taken, self.data = self.data[:count], self.data[count:]
        assert len(taken) == count
        return taken

    def number(self):
        (byte,) = self.take(1)
        return byte if byte < 128 else byte - 128 + (self.number() << 7)

    def column(self, count):
        column = Bytes(self.take(self.number()))
        found = [column.number() for _ in range(count)]
        assert not column.data
        return found

    def signed(self, count):
        return [-(number + 1) // 2 if number % 2 else number // 2 for number in self.column(count)]


def encoded(value):
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + encoded(value // 128)


def column(values):
    data = b"".join(map(encoded, values))
    return encoded(len(data)) + data


def signed(values):
    return column([2 * value if value >= 0 else -2 * value - 1 for value in values])


def places(lines, templates):
    """Line and place of each number, sorted by template, place and line."""
    found = [(t, place, line) for line, t in enumerate(lines) for place in range(templates[t].count(b"0"))]
    return sorted(found)


def read_lines(data):
    """Lines, as numbers of distinct ones, and the distinct ones."""
    n_lines, n_distinct, n_jumps, n_text = (data.number() for _ in range(4))
    at = list(itertools.accumulate(data.column(n_jumps)))
    jumps = dict(zip(at, data.signed(n_jumps), strict=True))
    order, previous = [], -1
    for line in range(n_lines):
        previous += 1 + jumps.get(line, 0)
        order.append(previous)
    which, previous = [], -1
    for step in data.signed(n_distinct):
        previous += 1 + step
        which.append(previous)
    templates = data.take(n_text).split(b"\n")
    where = places(which, templates)
    filled, before = {}, (None, 0)
    for (template, place, line), change in zip(where, data.signed(len(where)), strict=True):
        number = change + (before[1] if before[0] == (template, place) else 0)
        before = ((template, place), number)
        filled[line, place] = number
    assert not data.data
    distinct = []
    for line, template in enumerate(which):
        text = templates[template].split(b"0")
        numbers = [b"%d" % filled[line, place] for place in range(len(text) - 1)]
        distinct.append(b"".join(itertools.chain.from_iterable(itertools.zip_longest(text, numbers, fillvalue=b""))))
    return order, distinct


def body_of(order, distinct):
    return b"\n".join(distinct[line] for line in order)


def dictionary(base, shifts):
    """What the frame of a body against a base is compressed with, and the base's lines."""
    rows = base.split(b"\n")
    distinct = list(dict.fromkeys(rows))
    templates = [NUMBER.sub(b"0", line) for line in distinct]
    names = list(dict.fromkeys(templates))
    which = [names.index(template) for template in templates]
    exchanged = [[shifts.get(int(each), 0) + int(each) for each in NUMBER.findall(line)] for line in distinct]
    changes, before = [], (None, 0)
    for template, place, line in places(which, names):
        number = exchanged[line][place]
        changes.append(number - (before[1] if before[0] == (template, place) else 0))
        before = ((template, place), number)
    text = b"\n".join(names)
    steps = [template - previous - 1 for previous, template in itertools.pairwise([-1, *which])]
    lines = b"".join(map(encoded, (len(distinct), len(distinct), 0, len(text)))) + column([]) + signed([])
    lines += signed(steps) + text + signed(changes)
    order = b"".join(distinct.index(row).to_bytes(3, "big") for row in rows)
    filled = []
    for line, numbers in zip(distinct, exchanged, strict=True):
        given_out = iter(numbers)
        filled.append(NUMBER.sub(lambda _, each=given_out: b"%d" % next(each), line))
    return order + lines, filled


def read_against(data, base):
    entries = data.number()
    old = list(itertools.accumulate(data.column(entries)))
    shifts = dict(zip(old, itertools.accumulate(data.signed(entries)), strict=True))
    n_lines = data.number()
    known, distinct = dictionary(base, shifts)
    raw = zstandard.ZstdCompressionDict(known, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    content = Bytes(zstandard.ZstdDecompressor(dict_data=raw).decompress(data.data))
    order = [int.from_bytes(content.take(3), "big") for _ in range(n_lines)]
    _, new = read_lines(content)
    count, opened, found = len(distinct), itertools.count(), []
    for line in order:
        if line < count:
            found.append(distinct[line])
        else:
            found.append(new[next(opened) if line == count else line - count - 1])
    return b"\n".join(found)


def read(blob, base):
    method, data = blob[0], blob[1:]
    if method == 0:
        raw = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if base else None
        return zstandard.ZstdDecompressor(dict_data=raw).decompress(data) or base
    if method == 2:
        return body_of(*read_lines(Bytes(lzma.decompress(data))))
    return read_against(Bytes(lzma.decompress(data) if method == 4 else data), base)


@pytest.mark.parametrize("body", [generated(), generated() + b"\n"], ids=["text", "an empty last line"])
def test_a_base_of_lines_is_read(body):
    stored = pack_base(body)
    assert stored[0] == 2
    assert read(stored, None) == body


@pytest.mark.parametrize("shift", [0, 17])
@pytest.mark.parametrize("renamed", [False, True])
def test_a_body_is_read_against_its_base(shift, renamed):
    base, body = generated(), b"\n".join([generated(shift), b"new 12", b"newer 13", b"new 12"])
    ours, theirs = Lines.of(body), Lines.of(base)
    renaming = Renaming.between(theirs, ours) if renamed else Renaming.none()
    assert bool(len(renaming.old)) == bool(renamed and shift)
    content = against.encode(ours, theirs, renaming, max_size=len(body))
    assert read(b"\3" + content, base) == body
    assert read(b"\4" + lzma.compress(content), base) == body


@given(TEXT, TEXT)
def test_any_text_is_read(base, body):
    assert read(pack(body, base), base) == body
