from __future__ import annotations

import pytest

from wszoo.errors import UsageError
from wszoo.gpu.machine import product_key
from wszoo.gpu.skus import all_skus, find_sku


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RTX 4090", "GeForce RTX 4090"),
        ("4090", "GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "GeForce RTX 4090"),
        ("rtx4090", "GeForce RTX 4090"),
        ("  GEFORCE   rtx-4090 ", "GeForce RTX 4090"),
        ("4090 laptop", "GeForce RTX 4090 Laptop GPU"),
        ("4070tisuper", "GeForce RTX 4070 Ti SUPER"),
        ("4070 ti", "GeForce RTX 4070 Ti"),
        ("5090 d", "GeForce RTX 5090 D"),
        ("2080 super max-q", "GeForce RTX 2080 Super with Max-Q Design"),
        ("RTX 6000 Ada", "RTX 6000 Ada Generation"),
        ("Quadro RTX 6000", "Quadro RTX 6000"),
        ("rtx pro 6000 server", "RTX PRO 6000 Blackwell Server Edition"),
        ("rtx pro 5000", "RTX PRO 5000 Blackwell"),
        ("a6000", "RTX A6000"),
        ("T4", "Tesla T4"),
        ("L40", "L40"),
        ("L40S", "L40S"),
        ("a100 sxm 80 GB", "A100-SXM4-80GB"),
        ("H100 SXM", "H100 80GB HBM3"),
        ("NVIDIA H200", "H200"),
        ("DGX Spark", "GB10"),
    ],
)
def test_a_loose_spelling_finds_the_product(text, name):
    assert find_sku(text).name == name


@pytest.mark.parametrize(
    ("text", "capability", "multiprocessors", "gib"),
    [
        ("RTX 2080 Ti", "7.5", 68, 11),
        ("A100-SXM4-80GB", "8.0", 108, 80),
        ("RTX 3090", "8.6", 82, 24),
        ("RTX 4090", "8.9", 128, 24),
        ("H200", "9.0", 132, 141),
        ("RTX 5090", "12.0", 170, 32),
        ("GB10", "12.1", 48, 128),
    ],
)
def test_a_product_has_its_facts(text, capability, multiprocessors, gib):
    gpu = find_sku(text)
    assert (gpu.compute_capability, gpu.multiprocessors, gpu.memory_bytes) == (capability, multiprocessors, gib << 30)


def test_a_name_that_covers_several_memory_sizes_has_none_until_one_is_given():
    assert find_sku("RTX 3080").memory_bytes is None
    assert find_sku("RTX 3080 12GB").memory_bytes == 12 << 30
    assert find_sku("4060 ti 16 GB").memory_bytes == 16 << 30


def test_a_memory_size_that_contradicts_the_table_is_refused():
    with pytest.raises(UsageError, match="no known GPU is called 'RTX 4090 12GB'"):
        find_sku("RTX 4090 12GB")


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("RTX 6000", ["Quadro RTX 6000 (sm75)", "RTX 6000 Ada Generation (sm89)", "Blackwell Server Edition (sm120)"]),
        ("A100", ["A100-PCIE-40GB (sm80)", "A100-SXM4-80GB (sm80)"]),
        ("GeForce", [" and 51 more"]),
    ],
)
def test_an_ambiguous_name_lists_what_it_may_mean(text, listed):
    with pytest.raises(UsageError, match="is the name of several GPUs") as raised:
        find_sku(text)
    for part in listed:
        assert part in raised.value.hint


def test_a_misspelt_name_lists_what_comes_near():
    with pytest.raises(UsageError, match="no known GPU is called 'RTX 4099'") as raised:
        find_sku("RTX 4099")
    assert raised.value.hint.startswith("did you mean: GeForce RTX 4090 (sm89)")


@pytest.mark.parametrize("text", ["banana", "", "Radeon", "☃", "gb"])
def test_an_unknown_name_points_to_the_compute_capability(text):
    with pytest.raises(UsageError) as raised:
        find_sku(text)
    assert "'sm89'" in raised.value.hint


def test_every_product_is_found_by_its_own_name_and_by_the_drivers():
    for gpu in all_skus():
        assert find_sku(gpu.name) == gpu
        assert find_sku(f"NVIDIA {gpu.name}") == gpu


def test_no_two_products_share_a_key():
    keys = [product_key(gpu.name) for gpu in all_skus()]
    assert len(keys) == len(set(keys))


def test_facts_are_in_the_range_of_real_products():
    for gpu in all_skus():
        assert gpu.multiprocessors is None or 6 <= gpu.multiprocessors <= 188, gpu
        assert gpu.memory_bytes is None or 4 << 30 <= gpu.memory_bytes <= 144 << 30, gpu
