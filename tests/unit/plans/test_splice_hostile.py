"""Bodies that nobody vouches for: refused with a wszoo error before anything is written, or assembled within bounds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wszoo.codecs import xz, zstd
from wszoo.errors import IntegrityError, LimitError, MalformedError
from wszoo.plans.splice import Program, apply, pack, reader, restore, unpack
from wszoo.plans.splice import program as program_module
from wszoo.plans.splice.columns import encode as column
from wszoo.plans.splice.columns import encode_signed as signed
from wszoo.plans.splice.columns import number
from wszoo.plans.splice.encode import encode
from wszoo.tree import leaf, tree_digest
from wszoo.weights.tensor import DTYPES, Tensor

PLAN_SIZE = 4096


def make_tensor(name, dtype, shape, seed):
    values = np.random.default_rng(seed).normal(0, 0.05, shape).astype(DTYPES[dtype].numpy)
    raw = values.reshape(-1).view(np.uint8)
    return Tensor(name, DTYPES[dtype], shape, lambda: raw)


TENSORS = [
    make_tensor("a", "float16", (16, 32), 1),
    make_tensor("b", "float16", (16, 32), 2),
    make_tensor("c", "float32", (8, 3, 3, 3), 3),
]


def sample_plan():
    a, b, c = (tensor.load() for tensor in TENSORS)
    joined = np.concatenate([a.reshape(16, -1), b.reshape(16, -1)], axis=1).tobytes()
    kernel = np.zeros((8, 3, 3, 4), np.float32)
    kernel[..., :3] = c.view(np.float32).reshape(8, 3, 3, 3).transpose(0, 2, 3, 1)
    return np.frombuffer(
        b"head" * 10 + joined + b"middle" + kernel.tobytes() + a[100:900].tobytes() + b"tail", np.uint8
    )


PLAN = sample_plan()
BODY = encode(PLAN, TENSORS).to_bytes()


def body(*, recipes=((),), views=((0, 0),), blocks=(), pieces=(), strides=(), literals=0, version=1, counts=None):
    """A body from bare numbers; the defaults are one view of tensor 0 as stored."""
    ints = lambda values: np.array(list(values), np.int64)  # noqa: E731
    declared = counts or (len(recipes), len(views), len(blocks), len(pieces), literals)
    block_columns = list(zip(*blocks, strict=True)) or [(), (), ()]
    piece_columns = list(zip(*pieces, strict=True)) or [(), (), (), ()]
    parts = [number(version), *map(number, declared)]
    parts += [b"".join(map(number, recipe or (0, 0, 0, 0))) for recipe in recipes]
    parts += [column(ints(v[0] for v in views)), signed(ints(v[1] for v in views))]
    parts += [column(ints(values)) for values in block_columns]
    parts += [column(ints(piece_columns[0])), column(ints(piece_columns[1]))]
    parts += [signed(ints(piece_columns[2])), signed(ints(piece_columns[3])), signed(ints(strides))]
    return b"".join(parts) + b"\0" * literals


def parse(data, plan_size=PLAN_SIZE):
    return Program.from_bytes(data, TENSORS, plan_size=plan_size)


ONE = {"blocks": [(0, 0, 0)], "pieces": [(0, 0, 0, 0)]}  # one block: all 1,024 bytes of tensor 0


def test_the_plain_body_that_the_defects_below_start_from_is_valid():
    out = bytearray()
    apply(parse(body(**ONE, literals=PLAN_SIZE - 1024)), TENSORS, out.extend)
    assert out == TENSORS[0].load().tobytes() + b"\0" * (PLAN_SIZE - 1024)


@pytest.mark.parametrize(
    ("defect", "data"),
    [
        ("version", body(version=2)),
        ("too few literals", body(**ONE, literals=PLAN_SIZE - 1025)),
        ("too many literals", body(**ONE, literals=PLAN_SIZE - 1023)),
        ("tensor out of range", body(views=[(0, 3)], **ONE)),
        ("tensor negative", body(views=[(0, -1)], **ONE)),
        ("recipe out of range", body(views=[(1, 0)], **ONE)),
        ("recipe of another rank", body(recipes=[(3, 0, 2, 1, 0, 0, 0)], **ONE)),
        ("recipe repeats an axis", body(recipes=[(2, 0, 0, 0, 0, 0)], **ONE)),
        ("recipe pads to less", body(recipes=[(0, 1, 8, 0, 0)], **ONE)),
        ("recipe pads a missing axis", body(recipes=[(0, 5, 64, 0, 0)], **ONE)),
        ("recipe casts to an integer", body(recipes=[(0, 0, 3, 0)], **ONE)),
        ("recipe casts to nothing known", body(recipes=[(0, 0, 99, 0)], **ONE)),
        ("recipe scales by too few bytes", body(recipes=[(0, 0, 0, 1, 7)], **ONE)),
        ("view never used", body(views=[(0, 0), (0, 0)], **ONE)),
        ("view used before the first", body(blocks=[(0, 0, 0)], pieces=[(0, 1, 0, 0)])),
        ("source negative", body(blocks=[(0, 0, 0)], pieces=[(0, 0, -1, 0)])),
        ("source beyond the end", body(blocks=[(0, 0, 0)], pieces=[(0, 0, 1, 0)])),
        ("length zero", body(blocks=[(0, 0, 0)], pieces=[(0, 0, 0, 1024)])),
        ("length beyond the view", body(blocks=[(0, 0, 0)], pieces=[(0, 0, 0, -1)])),
        ("stride negative", body(blocks=[(1, 0, 0)], pieces=[(0, 0, 512, 512)], strides=[-1024])),
        ("stride beyond the view", body(blocks=[(1, 0, 0)], pieces=[(0, 0, 0, 512)], strides=[1])),
        ("rows beyond the view", body(blocks=[(2, 0, 0)], pieces=[(0, 0, 0, 512)], strides=[0])),
        ("rows overflow", body(blocks=[((1 << 41) - 1, 0, 0)], pieces=[(0, 0, 0, 512)], strides=[-512])),
        ("tail of one row", body(blocks=[(0, 0, 8)], pieces=[(0, 0, 0, 0)])),
        ("tail overflows", body(blocks=[(8, 0, 1 << 41)], pieces=[(0, 0, 0, 1023)], strides=[-1])),
        ("gap beyond the plan", body(blocks=[(0, 0, 0)], pieces=[(1 << 41, 0, 0, 0)])),
        ("more pieces than blocks hold", body(blocks=[(0, 0, 0)], pieces=[(0, 0, 0, 0), (0, 1, 0, 0)])),
        ("block of more pieces", body(blocks=[(0, 1, 0)], pieces=[(0, 0, 0, 0)])),
        ("absurd counts", body(counts=(1, 1 << 40, 0, 0, 0))),
        ("counts without columns", body(counts=(1, 1, 1 << 19, 1 << 19, 0))),
        ("number too long", b"\x01" + b"\xff" * 9),
        ("garbage behind", body(**ONE, literals=PLAN_SIZE - 1024) + b"\0"),
        ("nothing", b""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_defective_bodies_are_refused(defect, data):
    with pytest.raises(IntegrityError):
        parse(data)


def test_a_body_of_few_bytes_that_would_take_hours_to_assemble_is_refused():
    """Each row of half a million pieces of one byte; every window would take as many steps."""
    pieces = 1 << 19
    made = body(
        blocks=[(1023, pieces - 1, 0)],
        pieces=[(0, int(i > 0), 0 if i == 0 else -1, 1023) for i in range(pieces)],
        strides=[-1] * pieces,
    )
    with pytest.raises(LimitError, match="67,108,864 steps"):
        parse(made, plan_size=1024 * pieces)


@pytest.mark.parametrize(("recipe", "kept"), [((2, 1, 0, 0, 0, 0), "_SLABS"), ((), "_LOADED")])
def test_a_body_that_reads_single_bytes_from_everywhere_is_given_up(monkeypatch, recipe, kept):
    """A byte of each of two matrices in turn, of which one is kept: each takes a slab, or a tensor decoded again."""
    monkeypatch.setattr(reader, "SLAB", 1024)
    monkeypatch.setattr(reader, kept, 0)
    monkeypatch.setattr(program_module, "FREE_WORK", 1 << 16)
    count = 4096
    first = [(0, 0, 0, 1023), (0, 0, 0, 1023)]
    again = [(0, 2 - i % 2, -1, 1023) for i in range(2, count)]
    made = body(recipes=[recipe], views=[(0, 0), (0, 0)], blocks=[(0, 0, 0)] * count, pieces=first + again)
    with pytest.raises(LimitError, match="loads and computes more than 327,680 bytes"):
        apply(parse(made, plan_size=count), TENSORS, lambda _window: None)


def test_every_truncation_is_refused():
    for size in range(len(BODY)):
        with pytest.raises(IntegrityError):
            Program.from_bytes(BODY[:size], TENSORS, plan_size=len(PLAN))


def test_a_plan_of_another_size_is_refused():
    with pytest.raises(MalformedError, match="makes"):
        Program.from_bytes(BODY, TENSORS, plan_size=len(PLAN) + 1)
    with pytest.raises(LimitError):
        Program.from_bytes(BODY, TENSORS, plan_size=1 << 50)


def survives(data, plan_size):
    """Refused, or assembled to exactly the declared size."""
    try:
        program = Program.from_bytes(data, TENSORS, plan_size=plan_size)
    except IntegrityError:
        return
    out = bytearray()
    apply(program, TENSORS, out.extend)
    assert len(out) == plan_size


@settings(max_examples=300, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_never_escape(edits):
    data = bytearray(BODY)
    for place, value in edits:
        data[place % min(len(data), 160)] = value
    survives(bytes(data), len(PLAN))


@settings(max_examples=300, deadline=None)
@given(
    data=st.binary(max_size=120), size=st.integers(0, 4096), head=st.sampled_from([b"", b"\1", b"\1\1\1\1\1\0\0\0\0\0"])
)
def test_random_bodies_never_escape(data, size, head):
    survives(head + data, size)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_valid_columns_of_wild_numbers_never_escape(data):
    wild = st.one_of(st.integers(0, 40), st.sampled_from([64, 512, 1023, 1024, 1 << 20, (1 << 40) - 1, 1 << 40]))
    either = st.one_of(wild, wild.map(lambda value: -value))
    blocks = data.draw(st.lists(st.tuples(wild, st.just(0), wild), max_size=3))
    pieces = [data.draw(st.tuples(wild, st.integers(0, 1), either, either)) for _ in blocks]
    several = sum(1 for block in blocks if block[0])
    made = body(
        views=[(0, 0)] * sum(1 for piece in pieces if piece[1] == 0),
        blocks=blocks,
        pieces=pieces,
        strides=[data.draw(either) for _ in range(several)],
        literals=data.draw(st.integers(0, 64)),
    )
    survives(made, data.draw(st.integers(0, 2048)))


def test_short_tensors_are_refused():
    program = Program.from_bytes(BODY, TENSORS, plan_size=len(PLAN))
    short = [Tensor(t.name, t.dtype, t.shape, lambda t=t: t.load()[:-2]) for t in TENSORS]
    with pytest.raises(IntegrityError, match="'a' has 1,022 bytes"):
        apply(program, short, lambda _window: None)


def test_restore_leaves_no_file_with_wrong_bytes(tmp_path):
    program = Program.from_bytes(BODY, TENSORS, plan_size=len(PLAN))
    path = tmp_path / "plan"
    restore(program, TENSORS, path, expected=tree_digest([leaf(PLAN)]))
    assert path.read_bytes() == PLAN.tobytes()
    other = [*TENSORS[:1], *TENSORS[:1], TENSORS[2]]
    with pytest.raises(IntegrityError, match="damaged"):
        restore(program, other, path, expected=tree_digest([leaf(PLAN)]))
    assert not path.exists()


def test_a_writer_that_fails_stops_the_assembly():
    program = Program.from_bytes(BODY, TENSORS, plan_size=len(PLAN))

    def write(_window):
        raise ValueError("full")

    with pytest.raises(ValueError, match="full"):
        apply(program, TENSORS, write)


def test_bodies_over_the_limit_are_not_decoded():
    blob = pack(bytes(1 << 20))
    with pytest.raises(LimitError):
        unpack(blob, max_size=(1 << 20) - 1)
    assert unpack(blob, max_size=1 << 20) == bytes(1 << 20)


@pytest.fixture(scope="module")
def large():
    """A base of 9 MiB, one MiB more than zstd's tree remembers by itself."""
    return np.random.default_rng(0).integers(0, 256, 9 << 20, dtype=np.uint8).tobytes()


def test_a_large_base_is_found_from_its_beginning_to_its_end(large):
    sibling = b"changed" + large
    blob = pack(sibling, large)
    assert len(blob) < 500  # 1.0 MB with zstd's own parameters, and a kilobyte without xz around it
    assert unpack(blob, max_size=len(sibling), base=large) == sibling


def test_layers_of_large_bases_without_xz_are_still_read(large):
    blob = b"\0" + zstd.compress(large[5:], level=3, dictionary=large)
    assert unpack(blob, max_size=len(large), base=large) == large[5:]


@pytest.mark.parametrize("method", [b"\3", b"\4"])
@pytest.mark.parametrize("inside", [bytes(17 << 20), b"", b"no frame", xz.compress(b""), bytes(3)], ids=len)
def test_an_xz_stream_with_anything_but_a_frame_is_refused(method, inside):
    with pytest.raises(IntegrityError):
        unpack(method + xz.compress(inside), max_size=1 << 30, base=b"base")


def test_a_sibling_as_base_makes_a_body_small_and_is_needed_to_unpack():
    base = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
    sibling = base[:150_000] + b"changed" + base[150_000:]
    blob = pack(sibling, base)
    assert len(blob) < 200
    assert unpack(blob, max_size=len(sibling), base=base) == sibling
    with pytest.raises(IntegrityError):
        unpack(blob, max_size=len(sibling), base=base[:1000])
