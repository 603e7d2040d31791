"""Reading and writing picture files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from wszoo.errors import NotFoundError, StorageError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_PIXELS = 1 << 26


def load_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture.

    Returns:
        ``(height, width, 3)``, 0..255.

    Raises:
        NotFoundError: no such file.
        UsageError: not a picture, or an enormous one.
    """
    if not path.is_file():
        raise NotFoundError(f"no such image: {path}")
    try:
        with Image.open(path) as image:
            fits = image.width * image.height <= MAX_PIXELS
            pixels = np.asarray(image.convert("RGB"), np.uint8) if fits else None
    except Exception as error:  # decoders raise anything on damaged files
        raise UsageError(f"{path} is not a usable image: {error}", hint="give a PNG, JPEG or WebP file") from error
    if pixels is None:
        raise UsageError(f"{path} has more than {MAX_PIXELS} pixels", hint="make it smaller")
    return pixels


def save_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a picture of shape ``(height, width, 3)``; the name's end says in which format.

    Raises:
        StorageError: the file system refuses.
    """
    try:
        Image.fromarray(pixels).save(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
