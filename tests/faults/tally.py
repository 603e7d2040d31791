"""Counts for ``make torture``: how much was tried. Written by tests in several processes, so a line at a time."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

LONG = os.environ.get("WSZOO_TORTURE", "") not in {"", "0"}
"""Try everything, not a sample."""


def tally(what, count=1):
    """Add to a count."""
    path = os.environ.get("WSZOO_TALLY")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{count} {what}\n")


def totals(path):
    """What was counted, by name."""
    found = Counter()
    for line in Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else ():
        count, what = line.split(" ", 1)
        found[what] += int(count)
    return found
