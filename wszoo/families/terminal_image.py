"""Images as text, so that a demo shows what a network made without a window or a file.

On a terminal each character is two pixels, one above the other: U+2580 with the upper pixel as its colour and the lower
as its background, in the 24 greys of the 256-colour palette. Anywhere else an ASCII ramp is written, a character for
each two rows, because a character is about twice as high as wide.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Grey = NDArray[np.float32]

RAMP = " .:-=+*#%@"
MAX_IMAGES = 8
_GAP = 2
_WHITE = 255
_GREYS = 24  # colours 232 to 255 of the palette
_FIRST_GREY = 232


def wants_colour() -> bool:
    """True when stdout is a terminal and ``NO_COLOR`` is not set (see no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def images_from_array(array: NDArray[Any], name: str) -> list[Grey]:
    """Find the images in an array.

    Args:
        array: ``(H, W)``, ``(N, H, W)``, ``(N, 1, H, W)``, ``(N, 3, H, W)`` or ``(N, H, W, 3)``, any number type.
        name: for error messages.

    Returns:
        Up to 8 images ``(H, W)``, float32 in 0..1: the numbers as they are where they lie in 0..1, over 255 where they
        lie in 0..255, and else stretched from their least to their greatest.

    Raises:
        UsageError: the shape is none of those.
    """
    grey = _to_grey(array)
    if grey is None or 0 in grey.shape:
        raise UsageError(
            f"{name!r} of shape {list(array.shape)} is not an image",
            hint="--show takes N,1,H,W or N,3,H,W or N,H,W",
        )
    return [_normalised(image) for image in grey[:MAX_IMAGES]]


def render(images: Sequence[Grey], *, colour: bool, width: int = 100) -> str:
    """Draw images side by side.

    Args:
        images: of :func:`images_from_array`.
        colour: half blocks in ANSI greys; otherwise the ASCII ramp.
        width: the most characters a line may take, all images together.

    Returns:
        Lines without a final newline.
    """
    room = max(4, (width - _GAP * (len(images) - 1)) // max(1, len(images)))
    small = [_shrunk(image, room) for image in images]
    height = max(image.shape[0] for image in small)
    padded = [np.pad(image, ((0, height - image.shape[0]), (0, 0))) for image in small]
    gap = np.zeros((height, _GAP), np.float32)
    parts = [part for image in padded for part in (image, gap)][:-1]
    canvas = np.concatenate(parts, axis=1)
    return "\n".join(_blocks(canvas) if colour else _ramp(canvas))


def _to_grey(array: NDArray[Any]) -> Grey | None:
    pixels: Grey = np.asarray(array, np.float32)
    match pixels.shape:
        case (_, 1 | 3, _, _):
            return np.asarray(pixels.mean(axis=1), np.float32)
        case (_, _, _, 1 | 3):
            return np.asarray(pixels.mean(axis=3), np.float32)
        case (_, _):
            return pixels[None]
        case (_, _, _):
            return pixels
    return None


def _normalised(image: Grey) -> Grey:
    finite = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
    least, most = float(finite.min()), float(finite.max())
    if least >= 0 and most <= 1:
        return finite
    if least >= 0 and most <= _WHITE:
        return finite / np.float32(_WHITE)
    return (finite - np.float32(least)) / np.float32(max(most - least, 1e-12))


def _shrunk(image: Grey, width: int) -> Grey:
    # Each pixel of the result is the mean of the pixels that it covers.
    height, old = image.shape
    if old <= width:
        return image
    new_height = max(1, round(height * width / old))
    rows = np.linspace(0, height, new_height, endpoint=False).astype(int)
    columns = np.linspace(0, old, width, endpoint=False).astype(int)
    sums = np.add.reduceat(np.add.reduceat(image, rows, axis=0), columns, axis=1)
    counts = np.outer(np.diff([*rows, height]), np.diff([*columns, old]))
    return np.asarray(sums / counts, np.float32)


def _pairs(canvas: Grey) -> Grey:
    even = np.pad(canvas, ((0, canvas.shape[0] % 2), (0, 0)))
    return even.reshape(-1, 2, canvas.shape[1])


def _ramp(canvas: Grey) -> list[str]:
    levels = np.clip(_pairs(canvas).mean(axis=1) * len(RAMP), 0, len(RAMP) - 1).astype(int)
    return ["".join(RAMP[level] for level in row).rstrip() for row in levels]


def _blocks(canvas: Grey) -> list[str]:
    levels = np.clip(_pairs(canvas) * _GREYS, 0, _GREYS - 1).astype(int) + _FIRST_GREY
    return [
        "".join(f"\x1b[38;5;{above};48;5;{below}m▀" for above, below in zip(*pair, strict=True)) + "\x1b[0m"
        for pair in levels
    ]
