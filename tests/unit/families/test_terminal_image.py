from __future__ import annotations

import numpy as np
import pytest

from wszoo.errors import UsageError
from wszoo.families.terminal_image import RAMP, images_from_array, render, wants_colour


def test_ramp_runs_from_dark_to_light() -> None:
    (image,) = images_from_array(np.repeat(np.linspace(0, 1, 10)[None], 2, axis=0), "y")
    assert render([image], colour=False) == RAMP


def test_half_blocks_hold_two_pixels_each() -> None:
    (image,) = images_from_array(np.array([[0.0, 1.0], [1.0, 0.0]]), "y")
    assert render([image], colour=True) == "\x1b[38;5;232;48;5;255m▀\x1b[38;5;255;48;5;232m▀\x1b[0m"


def test_images_stand_side_by_side_within_the_width() -> None:
    images = images_from_array(np.ones((3, 1, 40, 200)), "y")
    lines = render(images, colour=False, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split("  ") == ["@" * 25] * 3


@pytest.mark.parametrize("shape", [(5, 6), (2, 5, 6), (2, 1, 5, 6), (2, 3, 5, 6), (2, 5, 6, 3), (20, 5, 6)])
def test_accepted_shapes(shape: tuple[int, ...]) -> None:
    images = images_from_array(np.zeros(shape, np.uint8), "y")
    assert images[0].shape == (5, 6)
    assert len(images) == (1 if len(shape) == 2 else min(shape[0], 8))


@pytest.mark.parametrize("shape", [(), (3,), (2, 4, 5, 6), (1, 1, 1, 1, 1), (0, 5, 6), (1, 0, 6)])
def test_other_shapes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"'y' of shape .* is not an image"):
        images_from_array(np.zeros(shape), "y")


def test_bytes_unit_floats_and_signed_floats_use_the_full_range() -> None:
    for array in (np.array([[0, 255]], np.uint8), np.array([[0.0, 1.0]]), np.array([[-1.0, 1.0]])):
        (image,) = images_from_array(array, "y")
        assert (image.min(), image.max()) == (0, 1)


def test_numbers_that_are_not_finite_do_not_break_it() -> None:
    (image,) = images_from_array(np.array([[np.nan, np.inf], [0.0, 1.0]]), "y")
    assert np.isfinite(image).all()


def test_no_colour_where_stdout_is_no_terminal_or_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert wants_colour()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    assert not wants_colour()
