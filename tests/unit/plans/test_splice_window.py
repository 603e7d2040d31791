"""Reading a plan in any order: every range is what applying the whole program gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wszoo.plans.source import FileSource, MemorySource, SplicedSource
from wszoo.plans.splice.encode import encode
from wszoo.plans.splice.window import Windows
from wszoo.weights.tensor import tensor_from_array

RNG = np.random.default_rng(8)


def _plan(pad, gap, tail):
    """Three matrices interleaved by rows, with literals between the columns and behind them, and one as it is."""
    tensors = [tensor_from_array(name, RNG.standard_normal((96, 128), np.float32)) for name in "qkv"]
    tensors.append(tensor_from_array("o", RNG.standard_normal((200, 33), np.float32)))
    rows = []
    for row in range(96):
        parts = [tensor.array()[row].tobytes() for tensor in tensors[:3]]
        rows.append(RNG.bytes(gap).join(parts) + RNG.bytes(tail))
    data = RNG.bytes(pad) + b"".join(rows) + RNG.bytes(pad) + tensors[3].load().tobytes() + RNG.bytes(tail)
    return np.frombuffer(data, np.uint8), tensors


CASES = [_plan(*case) for case in ((0, 0, 0), (700, 24, 0), (64, 0, 8), (1000, 8, 40))]
WINDOWS = [Windows(encode(data, tensors), tensors) for data, tensors in CASES]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_cases_have_copies_of_many_rows(case):
    assert WINDOWS[case]._program.blocks.rows.max() > 50
    assert WINDOWS[case]._program.copied > len(CASES[case][0]) // 2


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_range_is_the_plans(data):
    case = data.draw(st.integers(0, len(CASES) - 1))
    plan, windows = CASES[case][0], WINDOWS[case]
    start = data.draw(st.integers(0, len(plan)))
    stop = data.draw(st.integers(start, min(len(plan), start + data.draw(st.sampled_from([1, 600, 4000, len(plan)])))))
    assert np.array_equal(windows.read(start, stop), plan[start:stop])


def test_sources_give_the_same_bytes_and_none_past_the_end(tmp_path):
    plan, tensors = CASES[3]
    (tmp_path / "plan").write_bytes(plan.tobytes())
    sources = [
        FileSource(tmp_path / "plan"),
        MemorySource(plan.tobytes(), "plan"),
        SplicedSource(Windows(encode(plan, tensors), tensors), "plan"),
    ]
    for source in sources:
        assert source.size == len(plan)
        assert bytes(source.read(1000, 50)) == plan[1000:1050].tobytes()
        assert bytes(source.read(len(plan) - 3, 50)) == plan[-3:].tobytes()
        assert bytes(source.read(len(plan), 50)) == b""
        source.close()
