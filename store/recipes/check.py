"""Rebuild the sample zoo elsewhere and compare every byte: ``python store/recipes/check.py store``.

Exit status 1, and what differs and why, when the recipes do not give what is committed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sample_zoo import MODELS, blobs_of, check


def main(arguments: list[str]) -> int:
    """Compare the folder that the first argument names with what the recipes give."""
    if len(arguments) != 1:
        raise SystemExit("usage: check.py STORE_DIR")
    store = Path(arguments[0])
    if found := check(store):
        print(f"{store} is not what its recipes give here:", *found, sep="\n  ", file=sys.stderr)
        print("if the change is meant, or a version above is new: make zoo", file=sys.stderr)
        return 1
    for recipe in MODELS:
        print(f"{recipe.name}: {len(blobs_of(store, recipe.name))} blobs rebuilt, all equal")
    print("index.json: equal")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
