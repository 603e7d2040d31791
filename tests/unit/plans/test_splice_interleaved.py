"""Many matrices in one: their rows interleaved, as a diffusion unet's cross-attention, or their very bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wszoo.plans.source import SplicedSource
from wszoo.plans.splice import Program, Recipe, View, apply, reader, scan, tile, views
from wszoo.plans.splice.encode import encode
from wszoo.plans.splice.recipes import Scale
from wszoo.plans.splice.views import bind
from wszoo.plans.splice.window import Windows
from wszoo.tree import CHUNK
from wszoo.weights.tensor import DTYPES, Loading, Tensor

SCALE = np.float16(0.3535)


def tensor(name, dtype, shape, seed):
    bits = np.random.default_rng(seed).integers(0, 1 << 16, int(np.prod(shape)), dtype=np.uint16)
    raw = (bits & 0xBFFF).view(np.uint8) if dtype == "float16" else bits.astype(np.uint8)  # no NaN or infinity
    raw = raw[: raw.size // 2].copy() if dtype == "int4" else raw
    raw.setflags(write=False)
    return Tensor(name, DTYPES[dtype], shape, lambda: raw)


def matrix(tensor_):
    return tensor_.load().view(tensor_.dtype.numpy).reshape(tensor_.shape)


def restored(program, tensors):
    out = bytearray()
    apply(Program.from_bytes(program.to_bytes(), tensors, plan_size=program.plan_size), tensors, out.extend)
    return out


WIDTHS = [640, 1280, 1280, 1280, 1280, 1280, 1280] * 20  # 140 matrices: a row of all takes 332,800 bytes, as in SDXL
ROWS = 96  # seven regions of the search: narrower matrices came after wider ones that each region had found again


@pytest.fixture(scope="module")
def attention():
    """Keys and values of many layers; every second matrix is scaled."""
    return [tensor(str(i), "float16", (ROWS, width), i) for i, width in enumerate(WIDTHS)]


@pytest.fixture(scope="module")
def attention_plan(attention):
    parts = [matrix(one) * SCALE if i % 2 else matrix(one) for i, one in enumerate(attention)]
    head = np.arange(20_011, dtype=np.uint32).view(np.uint8)[:80_008]
    return np.concatenate([head, np.concatenate(parts, axis=1).reshape(-1).view(np.uint8)])


@pytest.fixture
def coarse(monkeypatch):
    """Plans over 2 GB are covered in grains of 64 bytes, in which the ends of rows stay open."""
    monkeypatch.setattr(scan, "_COARSE", 0)


class Work:
    """Bytes that some methods gave."""

    def __init__(self, monkeypatch, kind, *methods):
        self.bytes = 0
        for name in methods:
            monkeypatch.setattr(kind, name, self.counted(getattr(kind, name)))

    def counted(self, function):
        def call(*arguments, **options):
            data = function(*arguments, **options)
            self.bytes += (data.data if isinstance(data, Loading) else data).nbytes
            return data

        return call


@pytest.mark.usefixtures("coarse")
def test_narrow_ones_of_140_interleaved_matrices_are_found_where_half_stay_unknown(
    attention, attention_plan, monkeypatch
):
    """What stays unknown leads to its neighbours again in every region; copies found twice crowded narrow ones out."""
    monkeypatch.setattr(tile, "_MAX_RECTANGLES", 300)  # 20,000 for a plan of 160 regions
    program = encode(attention_plan, attention)
    unknown = sum(one.nbytes for one in attention[1::2])
    assert len(program.literals) == 80_008 + unknown
    assert len(program.blocks.rows) == 1


@pytest.mark.usefixtures("coarse")
def test_140_interleaved_matrices_are_one_block_and_compared_once(attention, attention_plan, monkeypatch):
    work = Work(monkeypatch, reader.Reader, "read", "rows")
    program = encode(attention_plan, attention, scales=[Scale("float16", SCALE.tobytes())])
    assert len(program.literals) == 80_008
    assert len(program.blocks.rows) == 1
    assert len(program.pieces.view) == len(attention)
    assert work.bytes < 4 * len(
        attention_plan
    )  # once (counted twice), and samples to tell the width of columns; was 21
    assert restored(program, attention) == attention_plan.tobytes()


@pytest.mark.usefixtures("coarse")
def test_unknown_neighbours_do_not_make_it_compare_again(attention, attention_plan, monkeypatch):
    work = Work(monkeypatch, reader.Reader, "read", "rows")
    encode(attention_plan, attention)
    assert work.bytes < 3 * len(attention_plan)


def test_interleaved_matrices_are_computed_once_when_a_plan_is_put_together(attention, attention_plan, monkeypatch):
    program = encode(attention_plan, attention, scales=[Scale("float16", SCALE.tobytes())])
    monkeypatch.setattr(reader, "_SLABS", 4 << 20)  # fewer than the matrices have, as with larger ones
    work = Work(monkeypatch, views.Layout, "block", "piece", "gather")
    assert restored(program, attention) == attention_plan.tobytes()
    assert work.bytes <= len(attention_plan)


def test_matrices_that_are_not_all_kept_are_loaded_a_few_times_and_not_for_every_window(
    attention, attention_plan, monkeypatch
):
    """Each load may decode: SDXL's unet, 5.2 GB, loaded 123 GB."""
    program = encode(attention_plan, attention, scales=[Scale("float16", SCALE.tobytes())])
    monkeypatch.setattr(reader, "_LOADED", 1 << 20)  # fewer than the matrices have, as with larger ones
    work = Work(monkeypatch, reader, "load")
    assert len(attention_plan) > 7 * CHUNK
    assert restored(program, attention) == attention_plan.tobytes()
    assert work.bytes <= 2 * len(attention_plan)  # the strip of all rows but the last, and that


def test_a_stream_loads_matrices_that_are_not_all_kept_a_few_times_too(attention, attention_plan, monkeypatch):
    """Two reads of whole rows, and of parts of rows at their ends; with windows of 4 MiB it was 18 times."""
    program = encode(attention_plan, attention, scales=[Scale("float16", SCALE.tobytes())])
    monkeypatch.setattr(reader, "_LOADED", 1 << 20)
    work = Work(monkeypatch, reader, "load")
    source, streamed = SplicedSource(Windows(program, attention), "the plan"), bytearray()
    while data := source.read(len(streamed), CHUNK):
        streamed += data
    assert streamed == attention_plan.tobytes()
    assert work.bytes <= 6 * len(attention_plan)


def test_interleaved_transposed_matrices_are_computed_once_when_a_plan_is_put_together(monkeypatch):
    tensors = [tensor(str(i), "float16", (512, 256), i) for i in range(80)]
    plan = np.concatenate([matrix(one).T for one in tensors], axis=1).reshape(-1).view(np.uint8)
    program = encode(plan, tensors)
    assert len(program.literals) == 0
    monkeypatch.setattr(reader, "_SLABS", 4 << 20)  # fewer than the matrices have, as with larger ones
    work = Work(monkeypatch, views.Layout, "block", "piece", "gather")
    assert restored(program, tensors) == plan.tobytes()
    assert work.bytes <= 3 * len(plan)  # once, and whole slabs for the few rows at the end


stacks = st.tuples(st.sampled_from([2, 3, 4]), st.sampled_from([(64, 128), (96, 96), (128, 80)]), st.booleans())


@settings(max_examples=20, deadline=None)
@given(choices=st.lists(stacks, min_size=1, max_size=3), lead=st.integers(0, 40), tail=st.integers(0, 40))
def test_bytes_of_several_matrices_stacked_are_found(choices, lead, tail):
    tensors, plan = [], b"\7" * lead
    for count, shape, turned in choices:
        group = [tensor("t", "int8", shape, len(tensors) + i) for i in range(count)]
        plan += np.stack([matrix(one).T if turned else matrix(one) for one in group], axis=-1).tobytes() + b"\1" * tail
        tensors += group
    program = encode(np.frombuffer(plan, np.uint8), tensors)
    assert restored(program, tensors) == plan
    assert len(program.literals) <= lead + (tail + 64) * len(choices)
    assert len(program.blocks.rows) <= 4 * len(choices)


@pytest.mark.parametrize("source", ["float16", "bfloat16"])
@pytest.mark.parametrize("target", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("order", [(), (1, 0)])
def test_tables_give_the_bits_that_arithmetic_gives_for_every_number(source, target, order):
    raw = np.arange(1 << 17, dtype=np.uint32).astype(np.uint16).view(np.uint8)  # every number twice, NaN and infinities
    scale = np.array([-0.3535], DTYPES[target].numpy).tobytes()
    layout = bind(Recipe(cast=target, scale=scale, permutation=order), DTYPES[source], (256, 512))
    by_table = layout.block(raw)
    parts = []
    for start in range(0, layout.nbytes, layout.nbytes // 16):
        views._conversion.cache_clear()  # too few numbers for a table
        rows = slice(start // layout.row_bytes, (start + layout.nbytes // 16) // layout.row_bytes)
        parts.append(layout.block(raw, outer=rows) if order else layout.piece(raw, start, start + layout.nbytes // 16))
    assert np.array_equal(np.concatenate(parts), by_table)


recipes = [
    ("float16", Recipe()),
    ("float16", Recipe(scale=SCALE.tobytes())),
    ("float16", Recipe(cast="float32")),
    ("float16", Recipe(permutation=(1, 0))),
    ("float16", Recipe(permutation=(1, 0), scale=SCALE.tobytes())),
    ("int8", Recipe(permutation=(1, 0))),
    ("int4", Recipe(permutation=(1, 0))),
]


def test_nibbles_are_transposed_and_packed_again_low_first():
    one = tensor("t", "int4", (6, 10), 1)
    numbers = np.stack((one.load() & 15, one.load() >> 4), axis=1).reshape(6, 10).T.reshape(-1)
    expected = numbers[0::2] | numbers[1::2] << 4
    layout = bind(Recipe(permutation=(1, 0)), one.dtype, one.shape)
    assert np.array_equal(layout.block(one.load()), expected)
    assert np.array_equal(layout.block(one.load(), outer=slice(3, 8)), expected.reshape(10, 3)[3:8].reshape(-1))


@pytest.mark.parametrize("case", range(len(recipes)))
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_bytes_and_rows_of_a_view_are_those_of_the_whole(case, data):
    dtype, recipe = recipes[case]
    one = tensor("t", dtype, (40, 64), 1)
    layout = bind(recipe, one.dtype, one.shape)
    whole = layout.block(one.load())
    kept = reader.Reader([one], [View(tensor=0, recipe=recipe)])
    start = data.draw(st.integers(0, layout.nbytes))
    stop = data.draw(st.integers(start, layout.nbytes))
    assert np.array_equal(kept.read(0, start, stop), whole[start:stop])
    stride = data.draw(st.sampled_from([0, 1, 8, 24, layout.row_bytes, layout.row_bytes * 2]))
    rows = data.draw(st.integers(1, max(1, min(30, layout.nbytes // max(1, stride) - 1))))
    length = data.draw(st.integers(1, 64))
    source = data.draw(st.integers(0, layout.nbytes - (rows - 1) * stride - length))
    expected = [whole[source + row * stride :][:length] for row in range(rows)]
    for _ in range(2):  # the second time a slab may be there
        fresh = reader.Reader([one], [View(tensor=0, recipe=recipe)])
        assert np.array_equal(fresh.rows(0, source, stride, rows, length), expected)
        assert np.array_equal(kept.rows(0, source, stride, rows, length), expected)
