"""Facts as text for people: sizes, shares, and names from outside that must not steer a terminal."""

from __future__ import annotations

import re
from difflib import get_close_matches
from math import floor, log10
from typing import TYPE_CHECKING

from wszoo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_UNITS = ("B", "kB", "MB", "GB", "TB")
_STEP = 1000
_SIZE = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,6})?) *(?:(?P<unit>[kmgt])(?P<binary>i)?)?b?", re.IGNORECASE)
_HUNDRED = 100
_TEN = 10


def human(nbytes: float) -> str:
    """A size for people, in decimal units with three digits: ``47.6 MB``."""
    power = 0
    while nbytes >= _STEP and power < len(_UNITS) - 1:
        nbytes, power = nbytes / _STEP, power + 1
    digits = 0 if power == 0 or nbytes >= _HUNDRED else 1 if nbytes >= _TEN else 2
    return f"{nbytes:.{digits}f} {_UNITS[power]}"


def parse_size(text: str) -> int:
    """``20 GB``, ``500MB``, ``1.5 GiB`` or a bare number of bytes, as bytes.

    Raises:
        UsageError: it is none of these.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"not a size: {text!r}", hint="write it as in '20 GB', '500MB' or '1.5 GiB'")
    power = " kmgt".index(match["unit"].lower()) if match["unit"] else 0
    base = 1024 if match["binary"] else _STEP
    return int(float(match["number"]) * base**power)


def share(part: int, whole: int) -> str:
    """A ratio as a percentage with two significant digits: ``0.042 %``; ``-`` of nothing."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    digits = 0 if percent >= _TEN or not percent else 1 - floor(log10(percent))
    return f"{percent:.{digits}f} %"


def counted(number: int, noun: str) -> str:
    """A number of things: ``1 plan``, ``2 plans``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean 'pull'?`` for a word that is spelled nearly as one that is known; else empty."""
    near = get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def printable(text: str) -> str:
    """Text from outside with everything that could steer a terminal replaced by ``?``."""
    return "".join(char if char.isprintable() else "?" for char in text)
