"""One target, or ``all``, under atheris: ``one.py TARGET [libFuzzer's options and folders]``."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["wszoo", "fuzz"], enable_loader_override=False):
    from fuzz.targets import TARGETS, run


def _any(data):
    """All targets by turns: the first byte tells which."""
    if data:
        run(list(TARGETS)[data[0] % len(TARGETS)], data[1:])


def main():
    """Fuzz until libFuzzer has had enough."""
    target, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], _any if target == "all" else lambda data: run(target, data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
