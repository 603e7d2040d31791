"""``wszoo run sdxl --prompt TEXT -o out.png``: draw pictures."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wszoo.errors import StorageError, UsageError
from wszoo.families.demo import DemoParser
from wszoo.families.protocol import DemoResult
from wszoo.families.terminal_image import images_from_array, render, wants_colour
from wszoo.text import printable
from wszoo_sdxl.picture import load_picture, save_picture
from wszoo_sdxl.pipeline import MAX_EDGE, Wish
from wszoo_sdxl.pipeline import draw as draw_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wszoo.families.protocol import PulledModel
    from wszoo.progress import Progress

PROMPT = "a photograph of a lighthouse on a cliff at sunset"
MAX_STEPS = 1000
MAX_COUNT = 4


def draw(model: PulledModel, arguments: Sequence[str], progress: Progress) -> DemoResult:
    """Draw the given prompt.

    Raises:
        UsageError: the arguments make no sense, or a size that the model does not take.
        NotFoundError: the model lacks a component or an asset, or there is no such image.
        StorageError: the picture cannot be written.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.help:
        return parser.help_result()
    outputs = _outputs(Path(options.output), options.count)
    wish = _wish(options)
    pictures = draw_pictures(model, wish, progress)
    for path, picture in zip(outputs, pictures, strict=True):
        save_picture(path, picture)
    height, width = pictures.shape[1:3]
    files = ", ".join(printable(str(path)) for path in outputs)
    lines = [f"{printable(wish.prompt)}", f"{width}x{height}, {wish.steps} steps, seed {wish.seed}: {files}"]
    if options.show:
        lines += [render(images_from_array(pictures, "the pictures"), colour=wants_colour())]
    values = {
        "prompt": wish.prompt,
        "files": [str(path) for path in outputs],
        "height": height,
        "width": width,
        "steps": wish.steps,
        "seed": wish.seed,
        "guidance": wish.guidance,
    }
    return DemoResult(values=values, text="\n".join(lines))


def _wish(options: argparse.Namespace) -> Wish:
    image = load_picture(Path(options.image)) if options.image else None
    if image is not None and (options.height or options.width):
        raise UsageError("--image brings its own size", hint="leave --height and --width out")
    return Wish(
        prompt=options.prompt,
        negative=options.negative,
        steps=options.steps,
        guidance=options.guidance,
        seed=options.seed,
        height=options.height,
        width=options.width,
        count=options.count,
        image=image,
        strength=options.strength,
    )


def _outputs(path: Path, count: int) -> list[Path]:
    if path.suffix.lower() not in {".png", ".jpg", ".jpeg", ".webp"}:
        raise UsageError(f"-o {path}: not a picture's name", hint="end it in .png, .jpg or .webp")
    if not path.parent.is_dir():
        raise StorageError(f"no such folder: {path.parent}", hint="make it, or write the picture elsewhere")
    return [path] if count == 1 else [path.with_stem(f"{path.stem}-{number}") for number in range(1, count + 1)]


def _parser() -> DemoParser:
    parser = DemoParser("Draw pictures.")
    add: Any = parser.add_argument
    add("--prompt", default=PROMPT, metavar="TEXT", help=f'what should be seen ("{PROMPT}")')
    add("--negative", metavar="TEXT", help="what should not be seen")
    add("--steps", type=_whole(1, MAX_STEPS), default=30, metavar="N", help="of denoising (30; Turbo: 1 to 4)")
    add(
        "--guidance",
        type=_number(0, 100),
        default=5.0,
        metavar="G",
        help="how strongly the prompt counts (5; Turbo: 0)",
    )
    add("--seed", type=_whole(0, (1 << 63) - 1), default=0, metavar="S", help="another number, another picture (0)")
    add("--height", type=_whole(1, MAX_EDGE), default=0, metavar="PIXELS", help="the model's own when left out")
    add("--width", type=_whole(1, MAX_EDGE), default=0, metavar="PIXELS", help="the model's own when left out")
    add("--count", type=_whole(1, MAX_COUNT), default=1, metavar="N", help=f"pictures, up to {MAX_COUNT} (1)")
    add("--image", metavar="FILE", help="start from this picture instead of noise, as the refiner does")
    add("--strength", type=_number(0, 1), default=0.3, metavar="X", help="how much of --image may change, 0 to 1 (0.3)")
    add("--output", "-o", default="out.png", metavar="FILE", help="where to write the picture (out.png)")
    add("--show", action="store_true", help="also draw it in the terminal")
    return parser


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return int(text)

    return parse


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not least <= number <= most:  # also when it is not a number
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least:g} to {most:g}")
        return number

    return parse
