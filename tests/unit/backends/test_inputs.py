import numpy as np
import pytest

from wszoo.backends.inputs import check_names, choose_profile, host_array
from wszoo.errors import IncompatibleError, UsageError
from wszoo.schema.model import Value

X = Value(name="sample", dtype="float16", shape=("batch", 4))
Y = Value(name="steps", dtype="int64", shape=())


def test_unknown_input_suggests_the_nearest_name():
    with pytest.raises(UsageError, match=r"unknown input 'smaple'; did you mean 'sample'\?") as error:
        check_names([X, Y], {"smaple": 0, "steps": 0})
    assert "sample float16 [batch, 4], steps int64 []" in error.value.hint


def test_missing_inputs_are_all_named():
    with pytest.raises(UsageError, match="missing inputs: sample, steps"):
        check_names([X, Y], {})


def test_array_is_taken_without_a_copy():
    given = np.zeros((2, 4), np.float16)
    assert np.shares_memory(host_array(X, given), given)


def test_numpy_scalar_is_an_array_of_rank_0():
    assert host_array(Y, np.int64(7)).shape == ()


@pytest.mark.parametrize("given", [1.0, [[1.0]], None])
def test_what_is_no_array_is_refused(given):
    with pytest.raises(UsageError, match="not an array"):
        host_array(X, given)


@pytest.mark.parametrize(
    "given",
    ["text", b"text", np.array(["a", "b"]), np.array([b"a"]), np.array(["a", None], object), np.str_("a")],
    ids=["str", "bytes", "array", "bytes-array", "objects", "scalar"],
)
def test_text_is_refused_with_the_input_that_it_was_given_for(given):
    with pytest.raises(UsageError, match="input 'sample' takes float16, and strings cannot be given") as error:
        host_array(X, given)
    assert "tokenizer" in error.value.hint


@pytest.mark.parametrize("dtype", [np.float32, np.int8, ">f2", np.uint16])
def test_other_element_type_is_refused_and_never_cast(dtype):
    with pytest.raises(UsageError, match="'sample' takes float16, not"):
        host_array(X, np.zeros((2, 4), dtype))


@pytest.mark.parametrize("shape", [(4,), (2, 5), (1, 2, 4), ()])
def test_other_rank_or_fixed_dimension_is_refused(shape):
    with pytest.raises(IncompatibleError, match=r"takes sample float16 \[batch, 4\]"):
        host_array(X, np.zeros(shape, np.float16))


def test_profile_whose_optimum_is_nearest_is_chosen(profile):
    wide = profile("wide", sample=((1, 4), (16, 4), (32, 4)))
    one = profile("one", sample=((1, 4), (1, 4), (1, 4)))
    assert choose_profile([wide, one], {"sample": (1, 4)}) == 1
    assert choose_profile([wide, one], {"sample": (2, 4)}) == 0
    assert choose_profile([], {"sample": (9, 9)}) == 0


def test_shape_outside_every_profile_lists_them(profile):
    profiles = [profile(f"p{n}", sample=((n, 4), (n, 4), (n, 4))) for n in (1, 2)]
    with pytest.raises(IncompatibleError, match="covers sample 7x4") as error:
        choose_profile(profiles, {"sample": (7, 4), "steps": ()})
    assert error.value.hint == "there is p1: sample 1x4 to 1x4; p2: sample 2x4 to 2x4"
