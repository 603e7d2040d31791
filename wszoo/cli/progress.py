"""Progress on stderr: bars on a terminal, one line for each stage that took over a second elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wszoo.cli.output import hint
from wszoo.text import human

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress as LiveBars
    from rich.progress import TaskID

_WORTH_TELLING = 1.0  # seconds


class Bars:
    """Implements :class:`wszoo.progress.Progress` for people who watch."""

    def __init__(self) -> None:
        self._live: LiveBars | None = None
        self._open = 0

    @contextmanager
    def stage(self, label: str, total: int | None = None, unit: str = "B") -> Iterator[Callable[[int], None]]:
        """See :class:`wszoo.progress.Progress`."""
        with self._bar(label, total, unit) if sys.stderr.isatty() else _line(label, unit) as advance:
            yield advance

    @contextmanager
    def _bar(self, label: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
        """One display for all stages that are open: a terminal has only one last line."""
        if self._live is None:
            self._live = _bars()
            self._live.start()
        self._open += 1
        live, task = self._live, self._live.add_task(label, total=total, amount="")
        try:
            yield lambda amount: _advance(live, task, amount, unit)
        finally:
            live.remove_task(task)
            self._open -= 1
            if not self._open:
                live.stop()
                self._live = None


def _bars() -> LiveBars:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _advance(live: LiveBars, task: TaskID, amount: int, unit: str) -> None:
    live.advance(task, amount)
    state = next((each for each in live.tasks if each.id == task), None)
    if state is None:
        return
    sizes = [f"{number:.0f}" if unit != "B" else human(number) for number in (state.completed, state.total or 0)]
    rate = f" {human(state.speed)}/s" if unit == "B" and state.speed else ""
    live.update(task, amount=f"{sizes[0]} of {sizes[1]}{rate}" if state.total else sizes[0])


@contextmanager
def _line(label: str, unit: str) -> Iterator[Callable[[int], None]]:
    started, done, lock = time.monotonic(), 0, threading.Lock()

    def advance(amount: int) -> None:
        nonlocal done
        with lock:
            done += amount

    yield advance
    took = time.monotonic() - started
    if took >= _WORTH_TELLING:
        amount = human(done) if unit == "B" else f"{done} {unit}"
        hint(f"{label}: {amount} in {took:.1f} s" if done else f"{label}: {took:.1f} s")
