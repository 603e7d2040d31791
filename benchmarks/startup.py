"""How long ``wszoo --help``, and loading what a pull needs, take more than ``python -c pass``, as a markdown table.

Most of ``wszoo.api`` is NumPy, in a row of its own for comparison; only ``wszoo --help`` and ``import wszoo`` have a
limit to reach.
"""

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
    limits = {"-m wszoo --help": LIMIT, "-c import wszoo": LIMIT, "-c import wszoo.api": "", "-c import numpy": ""}
    for words, limit in limits.items():
        option, rest = words.split(" ", 1)
        took = milliseconds([sys.executable, option, *(rest.split() if option == "-m" else [rest])])
        print(f"| `python {words}` | {took:.0f} | {took - bare:.0f} | {limit} |")


if __name__ == "__main__":
    main()
