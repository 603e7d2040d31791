from __future__ import annotations

import numpy as np
import pytest

from wszoo.errors import BuildError
from wszoo.families.compare import TOLERANCES, Comparison, Tolerance, compare_outputs

FP32 = TOLERANCES["fp32"]


def compared(*cases: tuple[object, object], tolerance: Tolerance = FP32) -> Comparison:
    result = Comparison(tolerance=tolerance)
    for ours, theirs in cases:
        result = compare_outputs(result, {"y": np.array(ours)}, {"y": np.array(theirs)}, "net")
    return result


def test_greatest_error_of_all_cases_is_kept() -> None:
    result = compared(([1.0, 2.00001], [1.0, 2.0]), ([5.00003, 6.0], [5.0, 6.0]), ([1.0], [1.0]))
    result.require_meaning("net")
    assert result.cases == 3
    assert result.max_abs_error["y"] == pytest.approx(3e-5)
    assert result.as_options()["max_abs_error"] == "3e-05"
    assert result.as_options()["tolerance"] == "1e-06 + 0.0001 * max|output| + 3 * torch's own"


def test_error_names_output_error_and_tolerance() -> None:
    with pytest.raises(BuildError, match=r"'y' of 'net' differs from torch by 0\.5, and 0\.000301 is allowed"):
        compared(([1.0, 3.5], [1.0, 3.0]))


def test_tolerance_is_relative_to_the_greatest_number() -> None:
    compared(([1000.0, 0.05], [1000.0, 0.0]))
    with pytest.raises(BuildError):
        compared(([1.0, 0.05], [1.0, 0.0]))


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([1.0], [1.0, 2.0], r"the shape \[1\], and \[2\] in torch"),
        ([1.0], [np.nan], "1 numbers that are not finite in torch"),
        ([np.inf], [1.0], "1 numbers that are not finite in ONNX Runtime"),
    ],
)
def test_shapes_and_numbers_that_are_not_finite(ours: list[float], theirs: list[float], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        compared((ours, theirs))


def test_comparison_that_any_export_would_pass_is_refused() -> None:
    with pytest.raises(BuildError, match="compared on no inputs"):
        compared().require_meaning("net")
    with pytest.raises(BuildError, match="proves nothing: on 2 different inputs"):
        compared(([0.5, 1e-30], [0.5, 2e-30]), ([0.5, 0.0], [0.5, 3e-30])).require_meaning("net")


def test_what_the_original_is_off_itself_is_allowed_three_times() -> None:
    one = {"y": np.array([1.0])}
    compare_outputs(Comparison(tolerance=FP32), {"y": np.array([1.29])}, one, "net", noise={"y": 0.1})
    with pytest.raises(BuildError, match=r"3 \* 0\.1 that torch is off itself"):
        compare_outputs(Comparison(tolerance=FP32), {"y": np.array([1.31])}, one, "net", noise={"y": 0.1})


def test_empty_outputs_are_equal() -> None:
    assert compared(([], [])).max_abs_error == {"y": 0.0}
