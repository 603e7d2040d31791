"""Fuzzes every target for a while: ``python tests/fuzz/campaign.py [--seconds N] [TARGET...]``.

What libFuzzer finds is kept in ``regressions/TARGET`` and replayed by ``test_fuzz.py`` ever after.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from faults.tally import tally  # noqa: E402 - found through the path above
from fuzz.targets import TARGETS  # noqa: E402

LIMITS = ["-timeout=20", "-rss_limit_mb=3000", "-max_len=65536", "-print_final_stats=1"]


def fuzz(target, seconds, seed=None, keep=True):
    """Fuzz one target, or ``all`` by turns, for some seconds.

    Returns:
        How many inputs were tried, and what libFuzzer said where one was a finding, else "".
    """
    with tempfile.TemporaryDirectory() as folder:
        found, new = Path(folder, "found"), Path(folder, "new")
        found.mkdir()
        new.mkdir()
        options = [f"-max_total_time={seconds}", f"-artifact_prefix={found}/", *LIMITS]
        options += [f"-seed={seed}"] if seed is not None else []
        command = [sys.executable, str(HERE / "one.py"), target, *options, str(new), *_corpora(target, Path(folder))]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        executed = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
        count = int(executed[1]) if executed else 0
        tally("fuzz executions under atheris", count)
        for artifact in found.iterdir() if keep else ():
            place = HERE / "regressions" / target
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(artifact, place / artifact.name)
    return count, "" if done.returncode == 0 else f"{done.stdout[-3000:]}{done.stderr[-3000:]}"


def _corpora(target, folder):
    if target != "all":
        return [str(each / target) for each in (HERE / "corpus", HERE / "regressions") if (each / target).is_dir()]
    (folder / "all").mkdir()
    for number, name in enumerate(TARGETS):
        for seed in (HERE / "corpus" / name).iterdir():
            (folder / "all" / f"{name}-{seed.name}").write_bytes(bytes([number]) + seed.read_bytes())
    return [str(folder / "all")]


def main():
    """All targets, two at a time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[])
    parser.add_argument("--seconds", type=int, default=600, help="in all, shared by the targets")
    wanted = parser.parse_args()
    targets = wanted.targets or list(TARGETS)
    each = max(1, wanted.seconds * 2 // len(targets))
    failed = 0
    with ThreadPoolExecutor(2) as pool:
        for target, (count, said) in zip(targets, pool.map(lambda t: fuzz(t, each), targets), strict=True):
            sys.stdout.write(f"{target:20} {count:>12,} executions in {each} s{'  FINDING' if said else ''}\n{said}")
            sys.stdout.flush()
            failed += bool(said)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
