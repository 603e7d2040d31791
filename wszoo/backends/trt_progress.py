"""A builder's progress as one bar: TensorRT reports a tree of phases, each with its number of steps."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

TOTAL = 100  # what a bar counts to: per cent
UNIT = "%"


class Phases:
    """How far the root phase has come, counting the phases inside of its current step.

    The numbers say how many steps are done, not how long they take: the bar moves in jumps, and never back.
    """

    def __init__(self) -> None:
        self._open: dict[str, tuple[str | None, int]] = {}
        self._done: dict[str, int] = {}
        self._shown = 0
        self._lock = Lock()  # phases of several threads report at the same time

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, perhaps inside of another."""
        with self._lock:
            self._open[name], self._done[name] = (parent, max(steps, 1)), 0

    def finish(self, name: str) -> int:
        """A phase ends; how many per cent of the whole were done since the last call."""
        with self._lock:
            parent, _ = self._open.pop(name, ("", 1))
            self._done.pop(name, None)
            return self._advance(1.0 if parent is None else self._fraction(None))

    def step(self, name: str, number: int) -> int:
        """Step ``number``, from 0, of a phase is done; per cent since the last call, as for :meth:`finish`."""
        with self._lock:
            self._done[name] = number + 1
            return self._advance(self._fraction(None))

    def _fraction(self, parent: str | None) -> float:
        inside = [name for name, (above, _) in self._open.items() if above == parent]
        return max((self._of(name) for name in inside), default=0.0)

    def _of(self, name: str) -> float:
        _, steps = self._open[name]
        return min((self._done[name] + self._fraction(name)) / steps, 1.0)

    def _advance(self, fraction: float) -> int:
        more = max(int(fraction * TOTAL) - self._shown, 0)
        self._shown += more
        return more


def monitor(trt: Any, advance: Callable[[int], None], interrupted: list[int]) -> Any:  # noqa: ANN401 - untyped module
    """An ``IProgressMonitor`` that moves a bar of :data:`TOTAL`, and cancels the build when Python wants to stop.

    Its ``error`` is what the one who watches raised; else None. It is raised again after the build, because TensorRT's
    binding would swallow it.

    Args:
        trt: ``tensorrt_rtx`` or a sibling.
        advance: gets what was done since the last call.
        interrupted: no longer empty when the build should stop.
    """
    phases = Phases()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc] # a class without type information
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.error: Exception | None = None

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            phases.start(name, parent, steps)

        def phase_finish(self, name: str) -> None:
            self._report(phases.finish(name))

        def step_complete(self, name: str, step: int) -> bool:
            self._report(phases.step(name, step))
            return self.error is None and not interrupted

        def _report(self, amount: int) -> None:
            try:
                if amount and not interrupted:  # a cancelled build ends all of its phases
                    advance(amount)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not travel through native code
                self.error = self.error or error

    return Monitor()
