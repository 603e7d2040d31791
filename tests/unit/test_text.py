"""Sizes that people type."""

from __future__ import annotations

import pytest

from wszoo.errors import UsageError
from wszoo.text import human, nearest, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("10", 10),
        ("10 B", 10),
        ("1.5kB", 1500),
        ("500MB", 500_000_000),
        ("20 GB", 20_000_000_000),
        ("20g", 20_000_000_000),
        ("1 GiB", 1 << 30),
        ("2 TiB", 2 << 40),
        (" 3 mb ", 3_000_000),
    ],
)
def test_a_size_is_read_in_decimal_and_binary_units(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-1", "1e9", "1 XB", "ten", "1,5 GB", "9" * 30, "1 GB more", "nan", "\u0661"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize("size", [0, 999, 1500, 47_600_000, 20_000_000_000])
def test_what_is_printed_can_be_typed(size):
    assert parse_size(human(size)) == size


@pytest.mark.parametrize(
    ("word", "says"), [("pul", "did you mean 'pull'?"), ("show", "did you mean 'show'?"), ("x", "")]
)
def test_the_nearest_word_is_named_if_one_is_near(word, says):
    assert nearest(word, ["pull", "show", "verify"]) == says
