"""The same 24 builds in processes of this machine and on three Ray nodes of it; then once more, with nothing to do.

    python benchmarks/fleet.py --work build/bench-fleet

Real TensorRT-RTX plans: eight fp16 networks of eight layers, each for three compute capabilities. Three builds at once
either way: three processes, or three nodes with one CPU each. Starting nodes and workers is not counted: a first, other
matrix warms both up, as a cluster that stands would be.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from ray_nodes import ray_nodes
from zoos import job, network

from wszoo.executors.labels import labels_of
from wszoo.executors.local import LocalCrew
from wszoo.executors.memory import available
from wszoo.fleet.publishing import Settings
from wszoo.fleet.run import Matrix
from wszoo.gpu.nvml import detect
from wszoo.places import open_for_push
from wszoo.plugins import registry
from wszoo.progress import Silent
from wszoo.store.store import Store

TARGETS = ("rtx-sm86", "rtx-sm89", "rtx-sm120")
MODELS, LAYERS, SIZE, NODES = 8, 8, 2048, 3
ROUNDS = 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, default=Path("build/bench-fleet"))
    work = parser.parse_args().work.absolute()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    sources = [network(work / f"{seed}.onnx", seed, size=SIZE, layers=LAYERS) for seed in range(MODELS)]
    warm = [network(work / f"warm{seed}.onnx", 100 + seed, size=256) for seed in range(NODES)]
    crew = LocalCrew(NODES, available(), work)
    local = Side(work, "local", crew, remote=True)
    labels = labels_of(detect(), registry().backends.values())
    with ray_nodes(work) as nodes:
        for _ in range(NODES):
            nodes.add(labels)
        with registry().executor("ray").open(nodes.address, None) as ray_crew:
            sides = (local, Side(work, "ray", ray_crew, remote=True))
            for side in sides:
                side.run("warm", warm)
            rows = [[side.run(f"round{number}", sources) for side in sides] for number in range(ROUNDS)]
            again = [side.run(f"round{ROUNDS - 1}", sources) for side in sides]
    crew.close()
    report(rows, again)


class Side:
    """One executor with a store and a remote of its own for each round; nodes forget what they built, too."""

    def __init__(self, work: Path, name: str, crew: object, *, remote: bool) -> None:
        self._work, self._name, self._crew, self._remote = work, name, crew, remote

    def run(self, label: str, sources: list[Path]) -> tuple[float, float, int]:
        """Seconds in all, seconds of builds on the nodes added up, and how many were built."""
        for built in self._work.glob("node-*/wszoo/built"):
            shutil.rmtree(built)
            built.mkdir()
        folder = self._work / self._name / label
        remote = open_for_push(str(folder / "remote")) if self._remote else None
        settings = Settings(executor=self._name, remote=remote, single=False)
        jobs = [job(f"net{number}:1", source, *TARGETS) for number, source in enumerate(sources)]
        started = time.perf_counter()
        done = Matrix(Store(folder / "store"), registry(), settings, self._crew, Silent()).build(jobs)  # type: ignore[arg-type]
        took = time.perf_counter() - started
        cells = [cell for model in done.models for cell in model.cells]
        assert not done.failed, done
        return took, sum(cell.seconds for cell in cells), sum(cell.state == "built" for cell in cells)


def report(rows: list[list[tuple[float, float, int]]], again: list[tuple[float, float, int]]) -> None:
    print("| round | plans | local s | ray s | overhead of ray |")
    print("|---|---|---|---|---|")
    for number, (local, ray) in enumerate(rows, 1):
        print(f"| {number} | {ray[2]} | {local[0]:.1f} | {ray[0]:.1f} | {ray[0] / local[0] - 1:+.0%} |")
    local, ray = (min(row[side][0] for row in rows) for side in (0, 1))
    print(f"| best | | {local:.1f} | {ray:.1f} | {ray / local - 1:+.0%} |")
    print(f"| again | {again[1][2]} | {again[0][0]:.1f} | {again[1][0]:.1f} | |")


if __name__ == "__main__":
    main()
