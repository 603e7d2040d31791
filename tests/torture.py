"""``make torture``: everything that CI samples, tried in full, and counted.

``python tests/torture.py [--fuzz SECONDS] [--processes N] [--part NAME ...]``. The parts run one after another, each in
several processes. Exits with 1 when anything was lost or accepted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from faults.tally import totals  # noqa: E402 - found through the path above

PARTS = {
    "crashes": ["faults/test_crashes.py"],
    "system calls": ["faults/test_system_calls.py"],
    "disk errors": ["faults/test_disk_errors.py"],
    "network": ["faults/test_torture.py", "faults/test_faults.py"],
    "hosts": ["faults/test_hosts.py", "property/test_store_states.py"],
    "hostile": ["hostile", "unit/store", "unit/trust", "unit/plans/test_splice_hostile.py", "fuzz"],
}


def main() -> int:
    """Run the parts, then the fuzzer, and print what was counted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fuzz", type=int, default=300, metavar="SECONDS", help="in all; 0 for none")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="for tests")
    parser.add_argument("--part", action="append", choices=PARTS, help="only these")
    wanted = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder, "counts")
        environment = {**os.environ, "WSZOO_TORTURE": "1", "WSZOO_KILLS": "200", "WSZOO_TALLY": str(counts)}
        failed = [name for name in wanted.part or PARTS if not _tests(name, wanted.processes, environment)]
        campaign = [str(HERE / "fuzz" / "campaign.py"), f"--seconds={wanted.fuzz}"]
        if wanted.fuzz and not _timed("fuzz", campaign, environment):
            failed.append("fuzz")
        counted = totals(counts)
    kinds = {what.partition(":")[0] for what in counted}
    sums = {kind: sum(count for what, count in counted.items() if what.partition(":")[0] == kind) for kind in kinds}
    for each in (counted, sums):
        sys.stdout.write("\n".join(["", *(f"{count:>12,}  {what}" for what, count in sorted(each.items())), ""]))
    said = f"see above: {', '.join(failed)}" if failed else "nothing"
    sys.stdout.write(f"\nlost or accepted: {said}; {(time.monotonic() - began) / 60:.0f} minutes\n")
    return 1 if failed else 0


def _tests(name: str, processes: int, environment: dict[str, str]) -> bool:
    workers = ["--numprocesses", str(processes), "--dist", "worksteal"]
    tests = [str(HERE / each) for each in PARTS[name]]
    return _timed(name, ["-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, *tests], environment)


def _timed(name: str, words: list[str], environment: dict[str, str]) -> bool:
    sys.stdout.write(f"\n== {name}\n")
    sys.stdout.flush()
    began = time.monotonic()
    done = subprocess.run([sys.executable, *words], env=environment, check=False).returncode == 0
    sys.stdout.write(f"== {name}: {'done' if done else 'FAILED'}, {(time.monotonic() - began) / 60:.1f} minutes\n")
    sys.stdout.flush()
    return done


if __name__ == "__main__":
    sys.exit(main())
