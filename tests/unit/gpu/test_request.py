from __future__ import annotations

import pytest

from wszoo.errors import UsageError
from wszoo.gpu.request import How, parse_gpu


@pytest.mark.parametrize(
    ("text", "how"), [("auto", How.AUTO), ("none", How.NONE), (" AUTO ", How.AUTO), ("None", How.NONE)]
)
def test_words_name_no_gpu(text, how):
    request = parse_gpu(text)
    assert (request.how, request.gpu) == (how, None)


@pytest.mark.parametrize(("text", "capability"), [("sm89", "8.9"), ("SM120", "12.0"), (" sm75", "7.5"), ("8.6", "8.6")])
def test_a_compute_capability_is_a_gpu_of_which_nothing_else_is_known(text, capability):
    gpu = parse_gpu(text).gpu
    assert gpu is not None
    assert (gpu.compute_capability, gpu.memory_bytes, gpu.multiprocessors) == (capability, None, None)


def test_a_product_is_looked_up():
    request = parse_gpu("RTX 4090")
    assert request.how is How.GIVEN
    assert request.gpu is not None
    assert request.gpu.name == "GeForce RTX 4090"


def test_a_target_is_no_gpu_and_the_hint_says_which_gpu_it_is_for():
    with pytest.raises(UsageError, match="is a target") as raised:
        parse_gpu("rtx-sm89.same-cc")
    assert "--gpu sm89" in raised.value.hint


@pytest.mark.parametrize("text", ["", "  ", "sm", "sm8", "sm8900", "RTX", "8.95"])
def test_anything_else_is_a_usage_error_with_advice(text):
    with pytest.raises(UsageError) as raised:
        parse_gpu(text)
    assert "sm89" in raised.value.hint
