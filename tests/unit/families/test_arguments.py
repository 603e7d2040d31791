from __future__ import annotations

import argparse

import pytest

from wszoo.families.arguments import number, whole


@pytest.mark.parametrize("text", ["0", "11", "-1", "1.5", "", "٣", "1e1"])
def test_whole_numbers_outside_of_the_bounds_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="from 1 to 10"):
        whole(1, 10)(text)


@pytest.mark.parametrize("text", ["-0.1", "1.01", "nan", "inf", "x", ""])
def test_numbers_outside_of_the_bounds_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="from 0 to 1"):
        number(0, 1)(text)


def test_bounds_belong_to_the_range() -> None:
    assert [whole(1, 10)("1"), whole(1, 10)("10"), number(0, 1)("0"), number(0, 1)("1")] == [1, 10, 0, 1]
