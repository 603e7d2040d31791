"""Against the real builder of tensorrt_rtx, which needs no GPU."""

import pytest
import tensorrt_rtx as trt

from wszoo.backends.trt_log import logger
from wszoo.backends.trt_profiles import add_profiles
from wszoo.errors import UsageError


@pytest.fixture
def add():
    """Add profiles to a network of inputs ``x`` [-1, 3, -1] and ``m`` [2]."""
    builder = trt.Builder(logger(trt)[1])
    network = builder.create_network(0)
    network.add_input("x", trt.float32, (-1, 3, -1))
    network.add_input("m", trt.float32, (2,))
    config = builder.create_builder_config()

    def call(*profiles):
        add_profiles(builder, network, config, profiles)
        return config.num_optimization_profiles

    return call


def test_profiles_are_added_in_order(add, profile):
    x = ((1, 3, 4), (2, 3, 8), (4, 3, 8))
    assert add(profile("a", x=x), profile("b", x=x, m=((2,), (2,), (2,)))) == 2


def test_dynamic_input_without_a_profile_shows_the_syntax(add):
    with pytest.raises(UsageError, match="dynamic input 'x' has no optimization profile") as error:
        add()
    assert "--profile x=1x3x1:1x3x1:8x3x8" in error.value.hint


def test_profile_that_leaves_a_dynamic_input_out(add, profile):
    with pytest.raises(UsageError, match="profile 'p' gives no shapes for the dynamic input 'x'"):
        add(profile("p"))


def test_profile_for_an_unknown_input(add, profile):
    with pytest.raises(UsageError, match="profile 'p' names 'y', which is no input"):
        add(profile("p", x=((1, 3, 4),) * 3, y=((1,),) * 3))


@pytest.mark.parametrize(
    "limits",
    [
        ((1, 3), (1, 3), (1, 3)),
        ((2, 3, 4), (1, 3, 4), (4, 3, 4)),
        ((1, 3, 4), (4, 3, 4), (2, 3, 4)),
        ((1, 4, 4), (1, 4, 4), (1, 4, 4)),
        ((1, 3, 4), (1, 3, 4), (1, 4, 4)),
        ((1, 3, 4), (1, 3, 4), (1, 3)),
    ],
)
def test_range_that_does_not_fit_is_refused(add, profile, limits):
    with pytest.raises(UsageError, match="profile 'p' does not fit input 'x'"):
        add(profile("p", x=limits))
