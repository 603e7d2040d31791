"""Whatever the plan and the tensors: encode, to bytes, from bytes, apply gives the plan; and what is there is found."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wszoo.errors import MalformedError
from wszoo.plans.splice import Program, Recipe, apply, pack, unpack
from wszoo.plans.splice.encode import encode
from wszoo.plans.splice.recipes import Scale
from wszoo.plans.splice.views import bind
from wszoo.tree import CHUNK
from wszoo.weights.tensor import DTYPES, Tensor

PROFILE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
FLOATS = ("float32", "float16", "bfloat16")


def tensor(name, dtype, shape, seed=0, entropy="random"):
    """A tensor of seeded random bits (or few-valued ones, or one value)."""
    size = (int(np.prod(shape, dtype=np.int64)) * DTYPES[dtype].bits + 7) // 8
    rng = np.random.default_rng(seed)
    high = {"random": 256, "few": 3, "zeros": 1}[entropy]
    raw = rng.integers(0, high, size, dtype=np.uint8)
    raw.setflags(write=False)
    return Tensor(name, DTYPES[dtype], tuple(shape), lambda: raw)


def floats(name, dtype, shape, seed=0):
    """A tensor of normally distributed numbers."""
    values = np.random.default_rng(seed).normal(0, 0.05, shape).astype(np.float32).astype(DTYPES[dtype].numpy)
    raw = values.reshape(-1).view(np.uint8)
    return Tensor(name, DTYPES[dtype], tuple(shape), lambda: raw)


def round_trip(plan, tensors, scales=()):
    plan = np.frombuffer(bytes(plan), np.uint8)
    program = encode(plan, tensors, scales=scales)
    body = program.to_bytes()
    parsed = Program.from_bytes(unpack(pack(body), max_size=len(body)), tensors, plan_size=len(plan))
    assert parsed.to_bytes() == body
    out = bytearray()
    digest = apply(parsed, tensors, out.extend)
    assert out == plan.tobytes()
    chunks = (plan[start : start + CHUNK] for start in range(0, len(plan), CHUNK))
    leaves = b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)
    assert digest.hex == hashlib.sha256(leaves).hexdigest()
    return parsed


def view_bytes(tensor, recipe):
    return bind(recipe, tensor.dtype, tensor.shape).block(tensor.load())


shapes = st.lists(st.integers(0, 12), max_size=4).map(tuple)
any_tensors = st.lists(
    st.builds(
        tensor,
        st.just("t"),
        st.sampled_from(sorted(DTYPES)),
        shapes,
        st.integers(0, 3),
        st.sampled_from(["random", "few", "zeros"]),
    ),
    max_size=5,
)


@PROFILE
@given(plan=st.binary(max_size=600), tensors=any_tensors)
def test_any_bytes_are_restored(plan, tensors):
    round_trip(plan, tensors)


@PROFILE
@given(data=st.data(), tensors=any_tensors)
def test_plans_of_tensor_scraps_are_restored(data, tensors):
    plan = b""
    for _ in range(data.draw(st.integers(0, 12))):
        raw = data.draw(st.sampled_from(tensors)).load() if tensors else np.zeros(8, np.uint8)
        low = data.draw(st.integers(0, len(raw)))
        high = data.draw(st.integers(low, len(raw)))
        plan += raw[low:high].tobytes() * data.draw(st.integers(1, 3)) + data.draw(st.binary(max_size=9))
    round_trip(plan, tensors)


def samples(dtype, size, seed, order):
    """By kind: a tensor and a recipe such that the encoder is meant to find the view."""
    other = {"float32": "float16", "float16": "float32", "bfloat16": "float32"}[dtype]
    scalar = np.array([0.353], DTYPES[dtype].numpy).tobytes()
    return {
        "stored": (floats(str(seed), dtype, (size, 33), seed), Recipe()),
        "kernel": (floats(str(seed), dtype, (size, 16, 3, 3), seed), Recipe(permutation=(0, 2, 3, 1))),
        "1x1": (floats(str(seed), dtype, (size, 32, 1, 1), seed), Recipe(permutation=(1, 0, 2, 3))),
        "transposed": (floats(str(seed), dtype, (size, 48), seed), Recipe(permutation=(1, 0))),
        "pad": (floats(str(seed), dtype, (size, 3, 7, 7), seed), Recipe(pad=(1, 4), permutation=(0, 2, 3, 1))),
        "scale": (floats(str(seed), dtype, (size, 64), seed), Recipe(scale=scalar)),
        "scaled and transposed": (floats(str(seed), dtype, (size, 64), seed), Recipe(scale=scalar, permutation=(1, 0))),
        "cast": (floats(str(seed), dtype, (size, 64), seed), Recipe(cast=other)),
        "int4": (tensor(str(seed), "int4", (size, 128), seed), Recipe(permutation=(1, 0))),
        "any order": (floats(str(seed), dtype, (size, 8, 24), seed), Recipe(permutation=order)),
    }


found_recipes = st.builds(
    lambda kind, *arguments: samples(*arguments)[kind],
    st.sampled_from(list(samples("float16", 16, 0, (0, 1, 2)))),
    st.sampled_from(FLOATS),
    st.sampled_from([16, 24, 40, 64]),
    st.integers(0, 1 << 30),
    st.permutations(range(3)).map(tuple),
)


@PROFILE
@given(
    choices=st.lists(found_recipes, min_size=1, max_size=4, unique_by=lambda choice: choice[0].name),
    fillers=st.lists(st.binary(max_size=40), min_size=5, max_size=5),
)
def test_views_of_a_plan_are_found(choices, fillers):
    scales = [Scale(name, np.array([0.353], DTYPES[name].numpy).tobytes()) for name in FLOATS]
    plan = b"\7" * 16
    for (tensor_, recipe), filler in zip(choices, fillers, strict=False):
        plan += view_bytes(tensor_, recipe).tobytes() + filler
    program = round_trip(plan, [tensor_ for tensor_, _ in choices], scales)
    assert len(program.literals) <= 16 + sum(map(len, fillers)) + 128 * len(choices)


@PROFILE
@given(
    seed=st.integers(0, 1 << 30),
    widths=st.lists(st.sampled_from([16, 24, 40, 64, 100]), min_size=2, max_size=6),
    rows=st.integers(12, 80),
    lead=st.integers(0, 40),
)
def test_matrices_concatenated_by_columns_become_one_block(seed, widths, rows, lead):
    tensors = [floats(str(i), "float16", (rows, width), seed + i) for i, width in enumerate(widths)]
    joined = np.concatenate([t.load().reshape(rows, -1) for t in tensors], axis=1)
    program = round_trip(b"\1" * lead + joined.tobytes() + b"\2" * 30, tensors)
    assert len(program.literals) <= lead + 30 + 8 * len(widths)
    assert len(program.blocks.rows) <= 3


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_a_matrix_cut_into_column_halves_is_found(parts):
    whole = floats("w", "float16", (64, 5120), 7)
    cut = np.split(whole.load().reshape(64, -1), parts if 10240 % parts == 0 else [3000, 7000], axis=1)
    program = round_trip(b"head" * 5 + b"".join(part.tobytes() for part in cut), [whole])
    assert len(program.literals) == 20
    assert len(program.blocks.rows) == len(cut)


def test_duplicate_constant_and_zero_tensors_do_not_slow_it_down():
    row = np.random.default_rng(0).integers(0, 256, 512, dtype=np.uint8)
    repeated = np.tile(row, 8192)
    zeros = np.zeros(4 << 20, np.uint8)
    blobs = [repeated, repeated, zeros, zeros, np.full(4 << 20, 7, np.uint8), np.tile(row[:8], 1 << 19)]
    tensors = [Tensor(str(i), DTYPES["uint8"], (len(b) // 512, 512), lambda b=b: b) for i, b in enumerate(blobs)]
    program = round_trip(b"x" * 100 + b"".join(b.tobytes() for b in blobs), tensors)
    assert len(pack(program.to_bytes())) < 20_000


def test_body_for_other_tensors_is_refused():
    one = floats("w", "float16", (64, 64), 1)
    program = round_trip(view_bytes(one, Recipe()).tobytes(), [one])
    with pytest.raises(MalformedError):
        Program.from_bytes(program.to_bytes(), [], plan_size=program.plan_size)


def test_a_plan_like_a_diffusion_unet_takes_one_block_a_matrix():
    def half(tensor_):
        return tensor_.load().view(np.float16).reshape(tensor_.shape)

    scale = np.float16(0.3535)
    keys = [floats(f"key {i}", "float16", (256, 160), 100 + i) for i in range(20)]
    times = [floats(f"time {i}", "float16", (64 + 64 * (i % 2), 160), 200 + i) for i in range(7)]
    gate = floats("gate", "float16", (160, 1280), 300)
    attention = [floats(f"attention {i}", "float16", (160, 160), 400 + i) for i in range(3)]
    matrices = [
        np.concatenate([half(key) for key in keys], axis=1),
        np.concatenate([half(time).T for time in times], axis=1),
        half(gate)[:, :640],
        half(gate)[:, 640:],
        np.concatenate([half(attention[0]) * scale, half(attention[1]) * scale, half(attention[2])], axis=1),
    ]
    plan = b"".join(bytes([i + 1]) * (20 + 4 * i) + matrix.tobytes() for i, matrix in enumerate(matrices))
    tensors = [*keys, *times, gate, *attention]
    program = round_trip(plan, tensors, [Scale("float16", scale.tobytes())])
    assert len(program.blocks.rows) == len(matrices)
    assert len(program.literals) == sum(20 + 4 * i for i in range(len(matrices)))


def test_progress_only_grows_up_to_the_plans_size():
    weight = floats("w", "float16", (64, 64), 1)
    plan = np.concatenate([weight.load(), np.arange(5000, dtype=np.uint8)])
    seen = []
    encode(plan, [weight], progress=lambda done, total: seen.append((done, total)))
    assert [total for _, total in seen] == [len(plan)] * len(seen)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (len(plan), len(plan))
