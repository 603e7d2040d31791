"""A small program that ships a lock file instead of models: ``python examples/digits-app/app.py``.

Type numbers: one network writes them by hand, another reads what was written. The first start fetches what this
machine's GPU needs (535 kB for all of the lock's GPUs; with a real model it would be gigabytes) and shows how
far it is. Every later start is offline.

What makes it an app and not a script is in four lines of :func:`main`: the lock stands beside this file, the models go
to the app's own folder, a folder ``models`` beside this file (from ``wszoo bundle``) is used before the network, and
``pull`` does nothing when everything is there.
"""
# ruff: noqa: INP001, T201 - a program that prints

from __future__ import annotations

import argparse
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import platformdirs

import wszoo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
WIDTH = 30  # characters of the progress bar
SHADES = " .:-=+*#%@"
STYLES = 6  # numbers that the writer's style has


def main() -> int:
    """Have the models here, then write and read what the user types."""
    options = parse_options()
    bundle = HERE / "models"
    source = str(bundle) if bundle.is_dir() else None
    models = wszoo.open_lock(HERE / "wszoo.lock", store=options.data / "models", source=source, progress=Bar())
    try:
        models.pull()
    except wszoo.WszooError as error:
        print(f"The models could not be fetched: {error}", file=sys.stderr)
        return 1
    writer, reader = models["digit-writer"]["model"].load(), models["digits-cnn"]["model"].load()
    for line in lines():
        digits = [int(letter) for letter in line if letter in "0123456789"]
        if digits:
            show(digits, writer, reader)
    return 0


def parse_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Write digits and read them again.")
    default = Path(platformdirs.user_data_dir("wszoo-digits-app", appauthor=False))
    parser.add_argument("--data", type=Path, default=default, metavar="DIR", help="where the models are kept")
    return parser.parse_args()


def lines() -> Iterator[str]:
    """What the user types, until there is no more."""
    if sys.stdin.isatty():
        print("Type some digits; an empty line ends.")
    for line in sys.stdin:
        if not line.strip():
            return
        yield line


def show(digits: list[int], writer: Callable[..., dict[str, np.ndarray]], reader: Callable[..., dict]) -> None:
    """Let one network write digits and the other read them; print both."""
    styles = np.random.default_rng(sum(digits)).random((len(digits), STYLES), np.float32)
    images = writer(digit=np.array(digits), style=styles)["image"]
    small = images.reshape(-1, 1, 8, 2, 8, 2).mean((3, 5))
    read = reader(images=small)["scores"].argmax(1)
    for row in np.concatenate(list(small[:, 0]), axis=1):
        print("".join(SHADES[min(int(value * len(SHADES)), len(SHADES) - 1)] * 2 for value in np.clip(row, 0, 1)))
    print("read as:", *read)


class Bar:
    """A progress bar on stderr, as wszoo calls it: a stage with a number of bytes, from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, label: str, total: int | None = None, unit: str = "B") -> Iterator[Callable[[int], None]]:
        """Show one stage; see :class:`wszoo.progress.Progress`."""
        done = 0

        def advance(amount: int) -> None:
            nonlocal done
            with self._lock:
                done += amount
                self._draw(label, done, total, unit)

        yield advance
        if done:
            print(file=sys.stderr)

    @staticmethod
    def _draw(label: str, done: int, total: int | None, unit: str) -> None:
        part = min(done / total, 1.0) if total else 1.0
        filled = round(part * WIDTH)
        bar = "#" * filled + "." * (WIDTH - filled)
        print(f"\r{label:<32} [{bar}] {part:4.0%} of {total or done} {unit}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
