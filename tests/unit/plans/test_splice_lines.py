"""Bodies as lines, templates and numbers, and bases whose numbers are exchanged."""

from __future__ import annotations

import re
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wszoo.codecs import zstd
from wszoo.errors import IntegrityError, LimitError, MalformedError
from wszoo.plans.splice import columns, lines, pack, pack_base, unpack, unpack_base
from wszoo.plans.splice.columns import Cursor
from wszoo.plans.splice.lines import Lines
from wszoo.plans.splice.renaming import Renaming

TEXT = st.lists(
    st.sampled_from([b"name=%d", b"7", b"0", b"00", b"\n", b"%", b" %d", b"x", b"9" * 13, b"\xff", b"1203"]),
    max_size=60,
).map(b"".join)
ROOM = 1 << 20


def generated(shift=0, *, count=3000, extra=()):
    """Text as a builder's: generated names, in calls that repeat them, around the same preamble.

    Names from 1,950,000 on are called ``shift`` more.
    """
    names = np.random.default_rng(5).integers(1_900_000, 2_000_000, count)
    names = (names + shift * (names >= 1_950_000)).tolist()
    calls = [
        b'  call={ name="__mye%d" input={"__mye%d" "__mye%d" } offset=%d }'
        % (name, names[i // 2], names[i // 3], 128 * i)
        for i, name in enumerate(names)
    ]
    preamble = [b"line %d of a kernel: %d" % (i, zlib.crc32(b"%d" % i)) for i in range(400)]
    return b"\n".join([*preamble, *calls[: count // 2], *extra, *preamble, *calls[count // 2 :]])


@given(TEXT | st.binary(max_size=300))
def test_any_body_comes_back_from_its_lines(body):
    made = Lines.of(body)
    assert made.body(max_size=len(body)) == body
    assert Lines.read(Cursor(made.to_bytes()), max_size=ROOM).body(max_size=len(body)) == body
    assert all(set(re.findall(rb"\d", template)) <= {b"0"} for template in made.templates)


@given(TEXT | st.binary(max_size=300), TEXT | st.binary(max_size=300))
def test_any_body_comes_back_with_and_without_a_base(body, base):
    assert unpack_base(pack_base(body), max_size=len(body)) == body
    assert unpack(pack(body, base), max_size=max(len(body), len(base)), base=base) == body
    assert unpack(pack(body), max_size=len(body)) == body


def test_every_method_has_bodies_that_it_is_chosen_for():
    base = generated()
    found = {
        "text": pack_base(base)[0],
        "noise": pack_base(np.random.default_rng(0).bytes(20_000))[0],
        "itself": pack(base, base)[0],
        "shifted": pack(generated(777), base)[0],
        "one line more": pack(generated(extra=[b"another"]), base)[0],
    }
    assert found == {"text": 2, "noise": 1, "itself": 0, "shifted": 4, "one line more": 3}


def test_lines_make_generated_text_smaller_than_xz_alone():
    body = generated()
    stored = pack_base(body)
    assert unpack_base(stored, max_size=len(body)) == body
    assert len(stored) < 20_000  # 55 KB as one xz stream of the body


def test_names_that_shift_cost_next_to_nothing():
    base, body = generated(), generated(777)
    stored = pack(body, base)
    assert unpack(stored, max_size=len(body), base=base) == body
    assert len(stored) < 1600
    with pytest.raises(MalformedError, match="has none"):
        unpack(stored, max_size=len(body))


def test_a_renaming_is_found_by_the_lines_around():
    base, body = Lines.of(generated()), Lines.of(generated(1000))
    found = Renaming.between(base, body)
    assert len(found.old) > 1000
    assert np.all(found.old >= 1_950_000)
    assert np.all(found.new - found.old == 1000)
    assert Renaming.read(Cursor(found.to_bytes())).of(base).body(max_size=ROOM) == generated(1000)


def test_numbers_that_go_far_up_and_far_down_come_back():
    """The difference of two shifts must fit into a column, so such numbers are not exchanged."""
    words = [b"%x of a call" % zlib.crc32(b"%d" % i) for i in range(400)]
    ends = (1000, 999_999_000_000)
    base, body = (b"\n".join(b"%s %d" % (w, ends[(i + o) % 2] + i) for i, w in enumerate(words)) for o in (0, 1))
    assert unpack(pack(body, base), max_size=len(body), base=base) == body


def test_new_lines_cost_what_is_new_in_them():
    calls = [b'  call={ name="__mye%d" offset=%d }' % (3_000_000 + 17 * i, 256 * i) for i in range(500)]
    base, body = generated(), b"\n".join([generated(777), *calls])
    stored = pack(body, base)
    assert unpack(stored, max_size=len(body), base=base) == body
    assert len(stored) < len(pack(generated(777), base)) + 300  # 21 KB of text


def test_a_renaming_is_left_out_where_it_does_not_pay():
    base = b"\n".join(b"value %d" % (i * i + 1000) for i in range(200))
    body = b"\n".join(b"value %d" % (i * i * 7 % 10007 + 1000) for i in range(200)) + b"\n" + base * 2
    stored = pack(body, base)
    assert Renaming.between(Lines.of(base), Lines.of(body)).old.size
    assert stored[:2] == b"\3\0"
    assert unpack(stored, max_size=len(body), base=base) == body


# ---- hostile ------------------------------------------------------------------------------------------------------


def encoded(order=(0,), templates=b"a0", which=(0,), change=(5,), *, jumps=None, head=None):
    """Lines as bytes, right or wrong."""
    steps = np.diff(np.array(order), prepend=-1) - 1
    at = np.flatnonzero(steps) if jumps is None else np.array(jumps, np.int64)
    counts = head or (len(order), len(which), len(at), len(templates))
    return b"".join(
        [
            *map(columns.number, counts),
            columns.encode(np.diff(at, prepend=0)),
            columns.encode_signed(steps[at] if jumps is None else np.ones(len(at), np.int64)),
            columns.encode_signed(np.diff(np.array(which), prepend=-1) - 1),
            templates,
            columns.encode_signed(np.array(change, np.int64)),
        ]
    )


def test_the_encoder_of_these_tests_is_right():
    assert Lines.read(Cursor(encoded((0, 1, 0), b"a0\nb", (0, 1))), max_size=8).body(max_size=8) == b"a5\nb\na5"


@pytest.mark.parametrize(
    ("data", "defect"),
    [
        (encoded((0, 7)), "name a line that they do not define"),
        (encoded(which=(3,)), "name a template that they do not define"),
        (encoded(change=(-1,)), "more than twelve digits"),
        (encoded(change=(10**12,)), "more than twelve digits"),
        (encoded(change=(5, 5)), "has|holds"),
        (encoded(change=()), "holds 0 numbers"),
        (encoded((0, 0), jumps=(1, 1)), "another order"),
        (encoded((0, 0), jumps=(9,)), "another order"),
        (encoded() + b"\0", "garbage"),
        (encoded()[:-1], "ends early|number"),
        (b"", "ends early"),
    ],
    ids=range(11),
)
def test_lines_that_break_the_format_are_refused(data, defect):
    with pytest.raises(MalformedError, match=defect):
        Lines.read(Cursor(data), max_size=ROOM).body(max_size=ROOM)


@pytest.mark.parametrize(
    "data",
    [
        encoded(head=(lines.MAX_LINES + 1, 1, 0, 2)),
        encoded(head=(1, lines.MAX_DISTINCT + 1, 0, 2)),
        encoded(head=(1, 1, 0, 1 << 30)),
        encoded(range(2), b"x" * 60_000 + b"\n" + b"y" * 60_000, which=(0, 1), change=()),
        encoded([0] * 10_000, b"x" * 10_000, change=()),
        encoded(range(2000), b"x" * 100_000, which=[0] * 2000, change=()),
        encoded([0], b"0" * 10_000, which=[0], change=[10**11] * 10_000),
        encoded(range(1000), b"0" * 100_000, which=[0] * 1000, change=()),
    ],
    ids=[
        "lines",
        "distinct lines",
        "templates",
        "text",
        "one line often",
        "one template often",
        "long numbers",
        "numbers",
    ],
)
def test_few_bytes_do_not_become_many(data):
    assert len(data) < 250_000
    with pytest.raises(LimitError):
        Lines.read(Cursor(data), max_size=100_000).body(max_size=100_000)


def against(order, new=b"", *, count=None, renaming=b"\0\0\0"):
    """A body against a base of one line, right or wrong."""
    rows = b"".join(number.to_bytes(3, "big") for number in order)
    known = b"\0\0\0" + Lines.of(b"base").to_bytes()
    frame = zstd.compress(rows + (new or Lines.none().to_bytes()), level=1, dictionary=known)
    return b"\3" + renaming + columns.number(len(order) if count is None else count) + frame


def test_the_encoder_against_a_base_of_these_tests_is_right():
    stored = against((0, 1, 0, 2, 1), Lines.of(b"new\n7").to_bytes())
    assert unpack(stored, max_size=19, base=b"base") == b"base\nnew\nbase\nnew\n7"
    with pytest.raises(LimitError, match="19 bytes"):
        unpack(stored, max_size=18, base=b"base")


@pytest.mark.parametrize(
    "data",
    [
        against((2,)),
        against((1,)),
        against((0,), Lines.of(b"new").to_bytes()),
        against((1, 1), Lines.of(b"new").to_bytes()),
        against((1, 3), Lines.of(b"new").to_bytes()),
        against((0,), b"\1"),
        against((0,), count=2),
        against((0,), count=0),
        against((0,))[:-1],
        against((0,)) + b"\0",
        against((0,), renaming=b"\1\1"),
        b"\3",
        b"\3\0\0\0\1",
    ],
    ids=range(13),
)
def test_bodies_against_a_base_that_break_the_format_are_refused(data):
    with pytest.raises(IntegrityError):
        unpack(data, max_size=1000, base=b"base")


@pytest.mark.parametrize(
    "data",
    [
        against([0] * 1000),
        against((0,), count=1 << 30),
        against((1,), Lines.of(b"x" * 200).to_bytes()),
        against((0,), renaming=columns.number(1 << 20)),
        against((0,), bytes(10_000)),
    ],
    ids=["lines", "count", "a new line", "renaming", "frame"],
)
def test_few_bytes_against_a_base_do_not_become_many(data):
    with pytest.raises(LimitError):
        unpack(data, max_size=100, base=b"base")


def test_a_column_longer_than_its_numbers_can_be_is_refused_before_it_is_read():
    with pytest.raises(MalformedError, match="a column of 1 numbers"):
        Cursor(columns.number(100) + bytes(100)).column(1)


@pytest.mark.parametrize(
    ("old", "shift"), [((5, 5), (1, 0)), ((5,), (-6,)), ((5,), (1 << 40,))], ids=["twice", "below 0", "too large"]
)
def test_a_renaming_that_is_out_of_order_or_reach_is_refused(old, shift):
    data = columns.number(len(old)) + columns.encode(np.diff(np.array(old), prepend=0))
    with pytest.raises(MalformedError, match="renaming"):
        Renaming.read(Cursor(data + columns.encode_signed(np.array(shift, np.int64))))


def test_a_base_of_more_lines_or_digits_than_are_taken_is_not_taken_apart(monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINES", 1000)
    with pytest.raises(LimitError, match="1,001 lines"):
        Lines.of(b"\n" * 1000)
    monkeypatch.setattr(lines, "MAX_DIGITS", 1000)
    with pytest.raises(LimitError, match="1,001 digits"):
        Lines.of(b"1" * 1001)
    body = generated()
    assert unpack_base(pack_base(body), max_size=len(body)) == body  # packed another way


def test_a_body_of_more_text_than_is_taken_is_packed_another_way(monkeypatch):
    monkeypatch.setattr(lines, "MAX_TEXT", 1000)
    with pytest.raises(LimitError, match="1,001 bytes in distinct lines"):
        Lines.of(b"x" * 1000)
    body, base = generated(), generated(777)
    stored, against_base = pack_base(body), pack(body, base)
    assert (stored[0], against_base[0]) == (1, 0)
    assert unpack_base(stored, max_size=len(body)) == body
    assert unpack(against_base, max_size=len(body), base=base) == body


def test_what_a_small_machine_has_no_memory_for_is_refused(monkeypatch):
    def exhausted(*_args, **_options):
        raise MemoryError

    stored, base = pack_base(generated()), generated()
    program = pack(generated(777), base)
    monkeypatch.setattr("wszoo.plans.splice.lines.io.BytesIO", exhausted)
    for unpacked in (lambda: unpack_base(stored, max_size=ROOM), lambda: unpack(program, max_size=ROOM, base=base)):
        with pytest.raises(LimitError, match="more memory to decode than this machine has"):
            unpacked()


@pytest.mark.parametrize("method", range(5, 256, 50))
def test_unknown_methods_are_refused(method):
    for blob in (bytes([method]) + b"data", b""):
        with pytest.raises(MalformedError, match=r"method|empty"):
            unpack(blob, max_size=100)
        with pytest.raises(MalformedError, match=r"method|empty"):
            unpack_base(blob, max_size=100)
