"""How a zoo's verbs grow with it: simulated zoos of 100, 1,000 and 10,000 models with twelve plans each.

Every verb runs as its own process, as users start it; told are its time, the CPU time in it, and its peak of memory.
The zoos are kept under ``--work`` between runs. See docs/scale.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import scale_zoo

from wszoo.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZES = (100, 1000, 10_000)
REF = "cnn/network-00000:1.0"
FORGOTTEN = 100  # one model in so many is forgotten before gc


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took."""

    seconds: float
    cpu: float  # seconds, of all threads, the kernel's for it too
    peak: int  # bytes


def run(*words: str) -> Cost:
    """Run a verb."""
    environment = {**os.environ, "WSZOO_CONFIG": os.devnull}
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "wszoo", *words], stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{words} failed with {child.returncode}")
    return Cost(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def zoo(work: Path, models: int) -> Path:
    """A simulated zoo, made unless it is there."""
    root = work / f"zoo-{models}"
    if not (root / "index.json").is_file():
        shutil.rmtree(root, ignore_errors=True)
        scale_zoo.fill(root, models)
    return root


def forget(root: Path) -> None:
    """Forget some models, so that gc has something to do."""
    store = Store(root)
    for entry in store.refs.all()[1::FORGOTTEN]:
        assert store.refs.swap(entry.ref, None, held=None, expected=entry)


def steps(root: Path, scratch: Path) -> dict[str, Callable[[], Cost]]:
    """What is measured, in this order; each on the zoo as the one before left it."""
    common = ("--quiet", "--json", "--store", str(root))

    def verb(*words: str) -> Callable[[], Cost]:
        return lambda: run(*words, *common)

    def collect() -> Cost:
        copy = scratch / "copy"
        # Hard links: the copy can be collected without 280,000 files being copied.
        subprocess.run(["cp", "--archive", "--link", str(root), str(copy)], check=True)
        forget(copy)
        return run("gc", "--grace", "0", "--quiet", "--json", "--store", str(copy))

    return {
        "list": verb("list"),
        "show": verb("show", REF),
        "resolve": verb("resolve", REF, "--gpu", "sm89"),
        "gc --dry-run": verb("gc", "--dry-run"),
        "gc, 1 % forgotten": collect,
        "verify": verb("verify", "--fresh"),
        "push to an empty folder": verb("push", REF, str(scratch / "fresh")),
        "push to a zoo as large": verb("push", REF, str(scratch / "copy"), "--as", "new:1"),
        "tag": verb("tag", REF, "cnn/network-00000:again"),
        "site, first": verb("site", "-o", str(scratch / "site")),
        "site, nothing new": verb("site", "-o", str(scratch / "site")),
    }


def table(sizes: Sequence[int], found: dict[int, dict[str, Cost]]) -> None:
    """Print markdown."""
    print("| verb |" + "".join(f" {size:,} models: s | CPU s | MiB |" for size in sizes))
    print("|---|" + "---|---|---|" * len(sizes))
    for name in found[sizes[0]]:
        row = [found[size][name] for size in sizes]
        print(f"| {name} |" + "".join(f" {each.seconds:.1f} | {each.cpu:.1f} | {each.peak >> 20} |" for each in row))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/bench-scale"))
    parser.add_argument("--models", type=int, nargs="+", default=list(SIZES))
    given = parser.parse_args()
    found: dict[int, dict[str, Cost]] = {}
    for size in given.models:
        root = zoo(given.work, size)
        with tempfile.TemporaryDirectory(dir=given.work) as scratch:
            found[size] = {}
            for name, step in steps(root, Path(scratch)).items():
                found[size][name] = step()
                print(f"{size} {name}: {found[size][name]}", file=sys.stderr)
    table(given.models, found)


if __name__ == "__main__":
    main()
