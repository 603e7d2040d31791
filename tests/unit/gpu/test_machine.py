from __future__ import annotations

import pytest

from wszoo.gpu.machine import Gpu, product_key


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 3090",
        "GeForce RTX 3090",
        "geforce rtx-3090",
        "NVIDIA(R) GeForce(TM) RTX 3090",
        "GeForceRTX3090",
    ],
)
def test_one_product_has_one_key_whatever_the_driver_calls_it(name):
    assert product_key(name) == "geforcertx3090"


def test_products_that_differ_in_memory_or_suffix_have_different_keys():
    names = ["A100-SXM4-40GB", "A100-SXM4-80GB", "GeForce RTX 3090", "GeForce RTX 3090 Ti", "L40", "L40S"]
    assert len({product_key(name) for name in names}) == len(names)


def test_a_gpu_is_shown_with_its_compute_capability():
    assert str(Gpu(name="NVIDIA H200", compute_capability="9.0")) == "NVIDIA H200 (compute capability 9.0)"
