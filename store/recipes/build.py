"""Rebuild the sample zoo from its recipes' committed graphs: ``python store/recipes/build.py store``."""

from __future__ import annotations

import sys
from pathlib import Path

from sample_zoo import MODELS, TAGS, blobs_of, rebuilt, replace


def main(arguments: list[str]) -> None:
    """Build elsewhere, then replace what is in the folder that the first argument names."""
    if len(arguments) != 1:
        raise SystemExit("usage: build.py STORE_DIR")
    store = Path(arguments[0])
    with rebuilt() as built:
        replace(store, built)
    for recipe in MODELS:
        print(f"{recipe.name}: {len(blobs_of(store, recipe.name))} blobs, tags {', '.join(TAGS)}")
    size = sum(path.stat().st_size for path in (store / "blobs").rglob("*") if path.is_file())
    print(f"{store}: {size:,} bytes of blobs")


if __name__ == "__main__":
    main(sys.argv[1:])
