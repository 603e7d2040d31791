"""What the full-size benchmarks share: stages with their memory, restoring a plan against `cp`, Markdown tables."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wszoo.model import PulledComponent
    from wszoo.store.store import Store
    from wszoo.weights.tensor import Tensor

ROUNDS = 3


class Stages:
    """For every stage: seconds, and the process's memory when it began and at its peak.

    Attributes:
        found: by stage: ``seconds``; ``anonymous`` and ``resident``, in MiB at the peak; ``began``, anonymous MiB.
    """

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}

    @contextmanager
    def stage(
        self, label: str, _total: int | None = None, _unit: str = "B", **_: object
    ) -> Iterator[Callable[[int], None]]:
        with Memory() as memory:
            start = time.perf_counter()
            yield lambda _: None
            seconds = time.perf_counter() - start
        self.found[label] = {"seconds": seconds, **memory.report()}
        line = ", ".join(f"{key} {value:.1f}" for key, value in self.found[label].items())
        print(f"{label}: {line}", file=sys.stderr, flush=True)


class Memory:
    """Peak of this process's memory while the context lasts, sampled every 5 ms.

    Anonymous pages are its own; resident ones include pages of mapped files, which the system may drop at any time.
    """

    def __enter__(self) -> Self:
        self._began = self._anonymous = status("RssAnon")
        self._resident, self._done = status("VmRSS"), threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(0.005):
            self._anonymous = max(self._anonymous, status("RssAnon"))
            self._resident = max(self._resident, status("VmRSS"))

    def report(self) -> dict[str, float]:
        """In MiB."""
        return {
            "began": self._began / 1024,
            "anonymous": self._anonymous / 1024,
            "resident": self._resident / 1024,
        }


def status(key: str) -> int:
    """A number from this process's status file, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def against_cp(store: Store, part: PulledComponent, work: Path, *, keep_store: bool = True) -> dict[str, Any]:
    """Putting a plan together from raw weights, and `cp` of the same file on the same disk: in turns, best of three.

    Args:
        store: where the plan was pulled to.
        part: its component.
        work: a folder on the disk to measure.
        keep_store: False removes the store's blobs when they have been read, where the disk is small.

    Returns:
        ``seconds`` and ``cp``; ``residual`` and ``body``, bytes of the plan without its weights before compression.
    """
    from wszoo.plans import splice
    from wszoo.plans.spliced import read_body

    engine, config, out = part.assemble(), part.plan.config, work / "out.plan"
    assert engine is not None
    body = read_body(store, part.plan.manifest, config)
    tensors = raw_tensors(part._assembled.graph.tensors, work / "weights.raw")  # noqa: SLF001 - packs are compressed
    program = splice.Program.from_bytes(body, tensors, plan_size=config.engine_bytes)
    if not keep_store:
        shutil.rmtree(store.layout.root / "blobs")
    seconds: dict[str, list[float]] = {"cp": [], "seconds": []}
    for _ in range(ROUNDS):
        seconds["cp"].append(timed(lambda: subprocess.run(["cp", engine, out], check=True), out))
        seconds["seconds"].append(timed(lambda: splice.apply(program, tensors, out), out))
    best = {key: min(values) for key, values in seconds.items()}
    return {**best, "residual": len(program.literals), "body": len(body)}


def timed(function: Callable[[], object], out: Path) -> float:
    out.unlink(missing_ok=True)
    start = time.perf_counter()
    function()
    seconds = time.perf_counter() - start
    out.unlink()
    return seconds


def raw_tensors(tensors: Sequence[Tensor], path: Path) -> list[Tensor]:
    """The same, mapped from one file."""
    import numpy as np

    with path.open("wb") as file:
        for tensor in tensors:
            file.write(tensor.load())
    whole, start, found = np.memmap(path, np.uint8, "r"), 0, []
    for tensor in tensors:
        found.append(replace(tensor, load=partial(whole.__getitem__, slice(start, start + tensor.nbytes))))
        start += tensor.nbytes
    return found


def table(header: str, rows: list[str]) -> str:
    return "\n".join([f"| {header} |", f"|{' --- |' * (header.count('|') + 1)}", *rows])
