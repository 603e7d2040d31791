"""How long ``wszoo --help`` takes more than ``python -c pass``, as a markdown table."""

from __future__ import annotations

import subprocess
import sys
import time

ROUNDS = 15
LIMIT = 150  # milliseconds


def milliseconds(words: list[str]) -> float:
    """The fastest of some runs: noise only adds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run(words, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


def main() -> None:
    """Print the table."""
    bare = milliseconds([sys.executable, "-c", "pass"])
    print("| command | ms | more than `python -c pass` | reach |\n|---|---|---|---|")
    for words in (["-m", "wszoo", "--help"], ["-c", "import wszoo"]):
        took = milliseconds([sys.executable, *words])
        print(f"| `python {' '.join(words)}` | {took:.0f} | {took - bare:.0f} | {LIMIT} |")


if __name__ == "__main__":
    main()
