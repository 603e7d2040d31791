"""From an image file to what a classifier takes, by the numbers that were published with it.

The graph takes normalised pixels, so that it has no opinion about image files; the numbers travel as the asset
``preprocess.json``. They come from a remote: every size in them is bounded before memory is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np

from wszoo.errors import MalformedError, NotFoundError, StorageError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

ASSET = "preprocess.json"

_MAX_RESIZED = 1 << 15

Edge = Annotated[int, msgspec.Meta(ge=1, le=8192)]
Interpolation = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]


class Preprocess(msgspec.Struct, frozen=True, kw_only=True):
    """How an image becomes an array.

    Attributes:
        shortest_edge: what the shorter side is resized to, the ratio kept; None when ``resize`` says it, or nothing.
        resize: ``(height, width)`` to resize to; None when ``shortest_edge`` says it, or nothing.
        crop: ``(height, width)`` cut from the middle, filled up with black where the image is smaller; None for all.
        interpolation: Pillow's filter.
        scale: factor on pixel values 0..255.
        offset: subtracted after scaling.
        mean: subtracted next, for red, green, blue.
        std: divided by last.
        assumed: the checkpoint says nothing, and these are ImageNet's customary numbers.
    """

    # Two fields: in msgspec 0.22 a union of a bounded integer and a fixed-length tuple reads outside of its memory.
    shortest_edge: Edge | None = None
    resize: tuple[Edge, Edge] | None = None
    crop: tuple[Edge, Edge] | None = None
    interpolation: Interpolation = "bicubic"
    scale: float = 1 / 255
    offset: float = 0.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    assumed: bool = False

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of what comes out; None when it depends on the image."""
        return self.crop or self.resize

    def resized(self, height: int, width: int) -> Preprocess:
        """The same at another size: the part of the image that the crop keeps stays the same."""
        if self.crop is None:
            return msgspec.structs.replace(self, shortest_edge=None, resize=(height, width))
        down, across = height / self.crop[0], width / self.crop[1]
        resize = self.resize and (round(self.resize[0] * down), round(self.resize[1] * across))
        edge = self.shortest_edge and round(self.shortest_edge * max(down, across))
        return msgspec.structs.replace(self, shortest_edge=edge, resize=resize, crop=(height, width))


def load_image(path: Path) -> Image:
    """Read an image file as RGB, turned as its EXIF data say.

    Raises:
        NotFoundError: no such file.
        UsageError: not an image that Pillow reads, or one of over 179 million pixels (Pillow's bomb limit).
        StorageError: it cannot be read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise NotFoundError(f"no such file: {path}") from None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # Pillow's own have none
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        raise UsageError(f"{path} is not a usable image: {error}", hint="give a PNG, JPEG or WebP file") from error


def noise_image(height: int, width: int, seed: int = 0) -> Image:
    """An RGB image of seeded noise."""
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def to_array(image: Image, how: Preprocess) -> NDArray[np.float32]:
    """Resize, crop, scale and normalise.

    Args:
        image: RGB.
        how: the published numbers.

    Returns:
        ``(3, height, width)``, float32.

    Raises:
        MalformedError: a standard deviation of 0.
        UsageError: so long an image that resizing its shorter side makes it over 32,768 pixels long.
    """
    from PIL import Image

    target = how.resize or (how.shortest_edge and _ratio_kept(image.size, how.shortest_edge))
    if target:
        image = image.resize((target[1], target[0]), Image.Resampling[how.interpolation.upper()])
    pixels = np.asarray(image, np.uint8).transpose(2, 0, 1)
    if how.crop is not None:
        pixels = _center_crop(pixels, *how.crop)
    mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in (how.mean, how.std))
    if not std.all():
        raise MalformedError(f"{ASSET} has a standard deviation of 0: {how.std}")
    scaled = pixels.astype(np.float32) * np.float32(how.scale) - np.float32(how.offset)
    return np.asarray((scaled - mean) / std, np.float32)


def _ratio_kept(size: tuple[int, int], edge: int) -> tuple[int, int]:
    short = min(size)
    width, height = (edge if side == short else int(edge * side / short) for side in size)
    if max(width, height) > _MAX_RESIZED:
        raise UsageError(f"an image of {size[0]}x{size[1]} would be resized to {width}x{height} pixels")
    return height, width


def _center_crop(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    down, across = max(0, height - pixels.shape[1]), max(0, width - pixels.shape[2])
    if down or across:
        # The odd pixel goes before the image, as in transformers' center_crop.
        pixels = np.pad(pixels, ((0, 0), (-(-down // 2), down // 2), (-(-across // 2), across // 2)))
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    return pixels[:, top : top + height, left : left + width]
