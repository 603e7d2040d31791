"""Phases as TensorRT-RTX 1.7 reports them; the builder itself runs in tests/e2e/test_rtx_builder.py."""

from hypothesis import given
from hypothesis import strategies as st

from wszoo.backends.trt_progress import TOTAL, Phases


def test_a_phase_inside_of_a_step_counts_as_a_part_of_it():
    phases = Phases()
    phases.start("build", None, 2)
    assert phases.step("build", 0) == 50
    phases.start("optimize", "build", 5)
    assert [phases.step("optimize", number) for number in range(5)] == [10, 10, 10, 10, 10]
    assert phases.finish("optimize") == 0
    assert phases.step("build", 1) == 0
    assert phases.finish("build") == 0


def test_the_end_of_the_root_is_the_end_of_the_bar():
    phases = Phases()
    phases.start("build", None, 6)
    assert phases.step("build", 0) == 16
    assert phases.finish("build") == TOTAL - 16


def test_phases_of_no_steps_and_unknown_phases_do_no_harm():
    phases = Phases()
    phases.start("build", None, 0)
    phases.step("unknown", 3)
    phases.finish("unknown")
    assert phases.finish("build") == TOTAL


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["start", "step", "finish"]), st.integers(0, 9))))
def test_a_bar_never_goes_back_or_past_its_end(events):
    phases = Phases()
    phases.start("root", None, 4)
    total = 0
    for name, what, number in events:
        if what == "start":
            phases.start(name, "root", number)
        else:
            total += phases.finish(name) if what == "finish" else phases.step(name, number)
        assert 0 <= total <= TOTAL
