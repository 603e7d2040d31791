"""TensorRT's log: kept for error messages, passed on to :mod:`logging`, never printed."""

from __future__ import annotations

import logging
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

_KEPT = 500  # messages; a parser error takes about six
_LEVELS = {"INTERNAL_ERROR": logging.INFO, "ERROR": logging.INFO, "WARNING": logging.INFO}
_ERRORS = frozenset({"INTERNAL_ERROR", "ERROR"})
# Said on every machine without a driver beside any other error, and about nothing that a build needs.
_NOISE = re.compile(r"catchCudaError|While parsing node number|--- (?:Begin|End) node ---")
_WHERE = re.compile(r"\s*In \w+ at [^()\s]+:\d+\)?$")
_WHO = re.compile(r"^\w+::\w+: Error Code \d+: (?:API Usage Error |Myelin )?\(?")


@dataclass(slots=True)
class Log:
    """Messages of one module of the TensorRT family, shared by all that it does in this process.

    TensorRT keeps the first logger that it is given and ignores all later ones, so there is one a process. Work that
    runs at the same time in several threads shares it: an error message may then quote the other's reason as well.
    """

    name: str
    _errors: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _count: int = 0

    def add(self, severity: str, message: str) -> None:
        """Take a message.

        Args:
            severity: TensorRT's name for it: ``INTERNAL_ERROR``, ``ERROR``, ``WARNING``, ``INFO``, ``VERBOSE``.
            message: as TensorRT words it.
        """
        if severity in _ERRORS:
            self._count += 1
            self._errors.append((self._count, message))
        logging.getLogger(self.name).log(_LEVELS.get(severity, logging.DEBUG), "%s: %s", severity, message)

    def mark(self) -> int:
        """Where the log stands now, for :meth:`errors`."""
        return self._count

    def errors(self, since: int) -> list[str]:
        """Error messages since a mark, oldest first."""
        return [message for number, message in self._errors if number > since]

    def reason(self, since: int) -> str:
        """What went wrong since a mark, in TensorRT's words, without its source positions and its noise."""
        messages = self.errors(since)
        useful = [message for message in messages if not _NOISE.search(message)] or messages
        return "; ".join(dict.fromkeys(clean(message) for message in useful)) or "it gave no reason"


_LOGS: dict[str, tuple[Log, Any]] = {}


def logger(module: Any) -> tuple[Log, Any]:  # noqa: ANN401 - the module has no type information
    """The log of a TensorRT module, and the ``ILogger`` that fills it; one of each a process.

    Args:
        module: ``tensorrt_rtx``, or a sibling with the same classes.
    """
    name = str(module.__name__)
    if name not in _LOGS:
        log = Log(f"wszoo.{name}")

        class Forward(module.ILogger):  # type: ignore[misc] # a class without type information
            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
                log.add(severity.name, message)

        _LOGS[name] = log, Forward()
    return _LOGS[name]


def clean(message: str) -> str:
    """One message without the positions in TensorRT's sources that mean nothing to its users."""
    lines = [line for line in message.strip().splitlines() if not _NOISE.search(line)] or message.splitlines()
    text = " ".join(_WHERE.sub("", _WHO.sub("", line.strip())).strip() for line in lines)
    return text.removesuffix(".").strip() or message.strip()
