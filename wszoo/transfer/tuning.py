"""The transfer engine's numbers, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How hard to try, and how much at once.

    Attributes:
        segment: bytes a request at most; what a killed process loses for each worker.
        start: workers at first. From a server on the same machine eight are the fastest, on 2 and on 32 cores; where
            more are, the governor adds them.
        workers: workers at most.
        stall: seconds without a byte after which a request is given up.
        attempts: failures of one segment in a row, none of which brought a byte, that end the transfer.
        backoff: seconds to wait after the first failure; doubled with each further one, and jittered.
        backoff_cap: seconds between attempts at most.
        patience: seconds of Retry-After that are waited for when there is no other source, and seconds for which
            another process may own a blob without getting on before it is fetched here too.
        poll: seconds between looks at what other processes have finished.
    """

    segment: int = 8 << 20
    start: int = 8
    workers: int = 16
    stall: float = 30.0
    attempts: int = 8
    backoff: float = 0.25
    backoff_cap: float = 15.0
    patience: float = 120.0
    poll: float = 0.05


DEFAULT = Tuning()
