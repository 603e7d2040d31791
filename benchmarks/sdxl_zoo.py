"""All of Stable Diffusion XL for five targets in one zoo, built and pulled by the commands that people type.

    python benchmarks/sdxl_zoo.py [--work build/bench-sdxl-zoo] [--gpu sm89] [--executor local]

Seeded weights in the published configurations; `wszoo build` exports and compares all five networks and builds every
plan, and `wszoo pull` fetches what one GPU needs into an empty store and assembles its plans. No GPU is needed. About
22 GB of memory and 45 GB of disk; with `--executor local`, which builds several plans at once, 17 GB more for each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import sdxl_model
from measure import table
from sdxl import COMPONENTS, TARGETS

HEADER = (
    "components | plans | weights MB (stored) | zoo MB | of the weights | full plans MB | build s | "
    "fetched for one GPU MB | pull + assemble s | MiB anonymous"
)


def run(*words: str) -> tuple[dict[str, Any], float, int]:
    """A command's JSON, its seconds, and the peak of its anonymous memory in MiB."""
    start, peak = time.perf_counter(), 0
    command = [sys.executable, "-m", "wszoo", *words, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "HF_HUB_OFFLINE": "1"}) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        said = b""
        while process.poll() is None:
            said += process.stdout.read() or b""
            peak = max(peak, _anonymous(process.pid))
            time.sleep(0.01)
        said += process.stdout.read() or b""
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}: {said[:2000]!r}")
    return json.loads(said), time.perf_counter() - start, peak


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) >> 10 for line in lines if line.startswith("RssAnon")), 0)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "blobs").rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/bench-sdxl-zoo"), help="emptied before and after")
    parser.add_argument("--components", default=",".join(COMPONENTS), help="with commas between")
    parser.add_argument("--targets", default=",".join(TARGETS), help="with commas between")
    parser.add_argument("--gpu", default="sm89", help="whose plans are pulled")
    # In a process for each plan the builder's 17 GB would stand beside what this one holds of the export.
    parser.add_argument("--executor", default="inline", help="as for 'wszoo build'")
    options = parser.parse_args()
    work = options.work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    sdxl_model.make(work / "source", *options.components.split(","))
    zoo, client = work / "zoo", work / "client"
    what = [
        "--source",
        str(work / "source"),
        "--target",
        options.targets,
        "--option",
        f"components={options.components}",
    ]
    where = ["--store", str(zoo), "--executor", options.executor]
    built, seconds, _ = run("build", "sdxl", *what, "--tag", "sdxl:1", *where)
    shutil.rmtree(work / "source")
    _, pulling, peak = run("pull", "sdxl:1", "--from", str(zoo), "--gpu", options.gpu, "--store", str(client))
    view = built["model"]
    cells = [
        str(len(view["components"])),
        str(len(view["plans"])),
        f"{view['weight_bytes'] / 1e6:.0f} ({view['weight_stored_bytes'] / 1e6:.0f})",
        f"{size(zoo) / 1e6:.0f}",
        f"{size(zoo) / view['weight_bytes']:.4f}",
        f"{sum(plan['engine_bytes'] for plan in view['plans']) / 1e6:.0f}",
        f"{seconds:.0f}",
        f"{size(client) / 1e6:.0f}",
        f"{pulling:.0f}",
        str(peak),
    ]
    print(table(HEADER, [f"| {' | '.join(cells)} |"]))
    for plan in view["plans"]:
        own = plan["plan_bytes"] - plan["shared_bytes"]
        print(
            f"{plan['component']} {plan['target']}: {plan['engine_bytes']} B, shipped {plan['plan_bytes']}, own {own}"
        )
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
