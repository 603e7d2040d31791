"""``make torture``: everything that CI samples, tried in full, and counted.

``python tests/torture.py [--fuzz SECONDS] [-- PYTEST OPTIONS]``. Exits with 1 when anything was lost or accepted.
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

TESTS = [
    "faults",
    "hostile",
    "fuzz",
    "property/test_store_states.py",
    "unit/store",
    "unit/plans/test_splice_hostile.py",
]


def main() -> int:
    """Run the tests, then the fuzzer, and print what was counted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fuzz", type=int, default=600, metavar="SECONDS")
    parser.add_argument("options", nargs="*", help="for pytest")
    wanted = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = Path(folder, "counts")
        environment = {**os.environ, "WSZOO_TORTURE": "1", "WSZOO_KILLS": "200", "WSZOO_TALLY": str(counts)}
        tests = [str(HERE / each) for each in TESTS]
        pytest = [sys.executable, "-m", "pytest", "-q", *tests, *wanted.options]
        failed = subprocess.run(pytest, env=environment, check=False).returncode
        campaign = [sys.executable, str(HERE / "fuzz" / "campaign.py"), f"--seconds={wanted.fuzz}"]
        found = subprocess.run(campaign, env=environment, check=False).returncode if wanted.fuzz else 0
        lines = [f"{count:>12,}  {what}" for what, count in sorted(totals(counts).items())]
    sys.stdout.write("\n".join(["", *lines, ""]))
    sys.stdout.write(f"lost or accepted: {'nothing' if not failed and not found else 'see above'}; ")
    sys.stdout.write(f"{(time.monotonic() - began) / 60:.0f} minutes\n")
    return 1 if failed or found else 0


if __name__ == "__main__":
    sys.exit(main())
