"""Rebuild the sample zoo elsewhere and compare every byte: ``python store/recipes/check.py store``.

Exit status 1, and what differs and why, when the recipes do not give what is committed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sample_zoo import MODELS, blobs_of, differences, rebuilt


def main(arguments: list[str]) -> int:
    """Compare the folder that the first argument names with what the recipes give."""
    if len(arguments) != 1:
        raise SystemExit("usage: check.py STORE_DIR")
    store = Path(arguments[0])
    with rebuilt() as built:
        found = differences(store, built)
        counts = {recipe.name: len(blobs_of(built, recipe.name)) for recipe in MODELS}
    if found:
        print(f"{store} is not what its recipes give here:", *found, sep="\n  ", file=sys.stderr)
        print("if the change is meant, or a version above is new: make zoo", file=sys.stderr)
        return 1
    for name, count in counts.items():
        print(f"{name}: {count} blobs rebuilt, all equal")
    print("index.json: equal")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
