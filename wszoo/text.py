"""Facts as text for people: sizes, shares, and names from outside that must not steer a terminal."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB")
_STEP = 1000
_HUNDRED = 100
_TEN = 10


def human(nbytes: float) -> str:
    """A size for people, in decimal units with three digits: ``47.6 MB``."""
    power = 0
    while nbytes >= _STEP and power < len(_UNITS) - 1:
        nbytes, power = nbytes / _STEP, power + 1
    digits = 0 if power == 0 or nbytes >= _HUNDRED else 1 if nbytes >= _TEN else 2
    return f"{nbytes:.{digits}f} {_UNITS[power]}"


def share(part: int, whole: int) -> str:
    """A ratio as a percentage with two significant digits: ``0.042 %``; ``-`` of nothing."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= _TEN else f"{percent:.2g} %"


def printable(text: str) -> str:
    """Text from outside with everything that could steer a terminal replaced by ``?``."""
    return "".join(char if char.isprintable() else "?" for char in text)
