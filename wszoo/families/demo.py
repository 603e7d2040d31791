"""The generic demo: run a component once and say what came out. Families with nothing better to show use it too."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from wszoo.errors import NotFoundError, StorageError, UsageError
from wszoo.families.arrays import (
    arrays_from_bytes,
    check_together,
    fit,
    parse_input,
    random_array,
)
from wszoo.families.protocol import DemoResult
from wszoo.families.reports import accuracy, best_classes, describe, labels_from_asset
from wszoo.families.terminal_image import images_from_array, render, wants_colour
from wszoo.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from wszoo.families.protocol import PulledModel, RunnableComponent
    from wszoo.progress import Progress
    from wszoo.schema.model import Value

    Arrays = dict[str, NDArray[Any]]

SAMPLES = "samples.npz"
LABELS = "labels.txt"
MAX_SHOWN = 3  # rows of a batch that the table of classes lists


class DemoParser(argparse.ArgumentParser):
    """A parser for ``wszoo run REF ARGUMENTS`` that raises instead of leaving the process."""

    def __init__(self, description: str) -> None:
        super().__init__(prog="wszoo run REF", description=description, add_help=False, allow_abbrev=False)
        self.add_argument("--help", "-h", action="store_true", help="show what this model's demo takes")

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print.

        Raises:
            UsageError: always.
        """
        raise UsageError(message, hint=f"{self.format_usage().strip()}\nsee 'wszoo run REF --help'")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raise instead of leaving.

        Raises:
            UsageError: always.
        """
        self.error(message or f"exit status {status}")

    def help_result(self) -> DemoResult:
        """What ``--help`` answers."""
        return DemoResult(values={"help": self.format_help()}, text=self.format_help().rstrip())


def run_demo(model: PulledModel, arguments: Sequence[str], progress: Progress) -> DemoResult:
    """Run one component on given inputs, the model's samples or seeded noise.

    Raises:
        UsageError: the arguments make no sense, or do not fit the component.
        NotFoundError: no such component, output or file.
        MalformedError, LimitError: an asset that is not what it should be.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.help:
        return parser.help_result()
    name = pick_component(model, options.component)
    with progress.stage(f"load {name}"):
        network = model[name].load()
    feed, truth, source = _feed(model, network, options.input)
    with progress.stage(f"run {name}"):
        outputs = run_in_batches(network, feed, options.batch)
    if options.save:
        _save(Path(options.save), outputs)
    pictures = _pictures(options.show, {**feed, **outputs})
    values, lines = _report(model, outputs, truth)
    return DemoResult(
        values={"component": name, "inputs": source, **values},
        text="\n".join([f"{printable(name)} on {source}", *lines, *pictures]),
    )


def pick_component(model: PulledModel, wanted: str) -> str:
    """The component to run: the one asked for, or the first.

    Raises:
        NotFoundError: there is none of that name.
    """
    if wanted and wanted not in model.components:
        raise NotFoundError(f"no component {wanted!r}", hint=f"there is: {', '.join(model.components)}")
    return wanted or model.components[0]


def run_in_batches(network: RunnableComponent, feed: Arrays, batch: int = 0) -> Arrays:
    """Run a network on as many rows as there are, in pieces that it accepts.

    Args:
        network: what to run.
        feed: arrays for all inputs; those of one leading dimension are cut together. A fixed leading dimension is
            filled up by repeating the last row, and what that adds is cut off again.
        batch: rows at once where the number is not fixed; 0 for one, which every usual optimization profile takes.

    Raises:
        UsageError: an array does not fit its input, or dimensions of one name differ.
    """
    values = {value.name: value for value in network.inputs}
    rows = _rows(values, feed)
    leading = next((value.shape[0] for value in network.inputs if value.shape), 0)
    fixed = isinstance(leading, int)
    step = leading if isinstance(leading, int) else batch or 1
    if not rows or rows == step:
        return _run_once(network, values, feed)
    pieces = []
    for start in range(0, rows, step):
        end = start + step if fixed else min(start + step, rows)
        taken = np.minimum(np.arange(start, end), rows - 1)
        pieces.append(_run_once(network, values, {name: array[taken] for name, array in feed.items()}))
    return {name: np.concatenate([piece[name] for piece in pieces])[:rows] for name in pieces[0]}


def _run_once(network: RunnableComponent, values: Mapping[str, Value], feed: Arrays) -> Arrays:
    fitted = {name: fit(values[name], array) for name, array in feed.items()}
    check_together(values, fitted)
    return network(**fitted)


def _rows(values: Mapping[str, Value], feed: Arrays) -> int:
    # Rows can be cut only where every input carries them in the same leading dimension.
    leading = {values[name].shape[:1] for name in feed}
    counts = {array.shape[:1] for array in feed.values()}
    if len(leading) != 1 or len(counts) != 1 or leading == {()} or counts == {()}:
        return 0
    return int(next(iter(counts))[0])


def _parser() -> DemoParser:
    parser = DemoParser("Run a component and describe what comes out.")
    parser.add_argument("--component", default="", metavar="NAME", help="which network; the first when left out")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="@FILE.npy, @FILE.npz:KEY, 3,1,4, one number, zeros:1x3x224x224 or random:1x3x224x224; "
        "inputs not given are seeded noise, and with none given the model's samples are used",
    )
    parser.add_argument("--batch", type=_count, default=0, metavar="N", help="rows to run at once")
    parser.add_argument("--show", action="append", default=[], metavar="NAME", help="draw an input or output as images")
    parser.add_argument("--save", default="", metavar="FILE.npz", help="write the outputs there")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= 1 << 20:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {1 << 20}")
    return int(text)


def _feed(
    model: PulledModel, network: RunnableComponent, given: Sequence[str]
) -> tuple[Arrays, NDArray[Any] | None, str]:
    values = {value.name: value for value in network.inputs}
    truth, source, feed = None, "seeded noise", _given(values, given)
    if feed:
        source = "the given inputs" if len(feed) == len(values) else "the given inputs, the rest seeded noise"
    elif SAMPLES in model.assets:
        samples = arrays_from_bytes(model.asset(SAMPLES), SAMPLES)
        feed = {name: array for name, array in samples.items() if name in values}
        if feed:
            truth, source = samples.get("labels"), f"the model's {SAMPLES}"
    bound = {
        dim: size
        for name, array in feed.items()
        for dim, size in zip(values[name].shape, array.shape, strict=False)
        if isinstance(dim, str)
    }
    for name, value in values.items():
        if name not in feed:
            shape = tuple(dim if isinstance(dim, int) else bound.get(dim, 1) for dim in value.shape)
            feed[name] = random_array(value, shape)
    return feed, truth, source


def _given(values: Mapping[str, Value], given: Sequence[str]) -> Arrays:
    found: Arrays = {}
    for text in given:
        # The longest input name that fits, because names such as "a=b" exist.
        names = [name for name in values if text.startswith(f"{name}=")]
        if not names:
            name = text.partition("=")[0]
            raise UsageError(
                f"--input: the component has no input {name!r}",
                hint="it takes: "
                + ", ".join(f"{value.name}={value.dtype}{list(value.shape)}" for value in values.values()),
            )
        name = max(names, key=len)
        if name in found:
            raise UsageError(f"--input: {name!r} is given twice")
        found[name] = parse_input(values[name], text[len(name) + 1 :])
    return found


def _pictures(wanted: Sequence[str], arrays: Arrays) -> list[str]:
    drawn = []
    for name in wanted:
        if name not in arrays:
            raise NotFoundError(f"--show: no input or output {name!r}", hint=f"there is: {', '.join(arrays)}")
        drawn.append(render(images_from_array(arrays[name], name), colour=wants_colour()))
    return drawn


def _save(path: Path, outputs: Arrays) -> None:
    # NumPy stores element types that it does not know (bfloat16) as raw bytes: widen those.
    plain = {
        name: array if array.dtype.kind in "biufc" else array.astype(np.float32) for name, array in outputs.items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **plain)
    try:
        path.write_bytes(buffer.getvalue())
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def _report(model: PulledModel, outputs: Arrays, truth: NDArray[Any] | None) -> tuple[dict[str, object], list[str]]:
    facts = [describe(name, array) for name, array in outputs.items()]
    values: dict[str, object] = {"outputs": [fact for fact, _ in facts]}
    lines = [line for _, line in facts]
    first = next(iter(outputs.values()))
    if truth is not None:
        score, line = accuracy(first, truth)
        values |= score
        lines.append(line)
    if LABELS in model.assets:
        top, table = best_classes(first, labels_from_asset(model.asset(LABELS)), rows=MAX_SHOWN)
        values |= {"top": top} if top else {}
        lines += table
    return values, lines
