"""The places that a transfer may fetch from, in the user's order, and which of them to ask next."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wszoo.errors import LimitError, NotFoundError, RemoteError, WszooError
from wszoo.remotes.mirrors import MirroredRemote

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from wszoo.remotes.protocol import Remote
    from wszoo.schema.oci import Descriptor
    from wszoo.transfer.tuning import Tuning


@dataclass(slots=True, eq=False)
class Source:
    """One remote and what is known about its health.

    Attributes:
        remote: the remote.
        not_before: ``time.monotonic()`` before which it is left alone.
    """

    remote: Remote
    not_before: float = 0.0


Refusals = dict[Source, WszooError]
"""Sources that need not be asked for a blob again, with the reason."""


@dataclass(slots=True)
class Sources:
    """Remotes in the order in which they are preferred. Safe to use from several threads.

    Attributes:
        remotes: at least one.
        tuning: how long to wait.
    """

    remotes: Sequence[Remote]
    tuning: Tuning
    all: list[Source] = field(init=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.all = [Source(remote) for remote in self.remotes]

    def pick(self, refused: Refusals, first: int = 0) -> Source:
        """The source to ask now: the first that may be asked at once, else the one that may be soonest.

        Args:
            refused: sources not to ask.
            first: position of the source to prefer.

        Raises:
            WszooError: none is left; the reason of one that may have the blob, if there is such a one.
        """
        order = [source for source in self.all[first:] + self.all[:first] if source not in refused]
        if not order:
            reasons = [refused[source] for source in self.all]
            raise next((each for each in reasons if not isinstance(each, NotFoundError)), reasons[0])
        now = time.monotonic()
        return min(order, key=lambda source: max(source.not_before, now))

    def failed(self, source: Source, error: RemoteError, failures: int, refused: Refusals) -> None:
        """Note a failure, the ``failures``-th in a row; a permanent one is added to ``refused``.

        Raises:
            RemoteError: it was one too many, or the source asks to be left alone for longer than anyone waits and is
                the last.
        """
        tuning = self.tuning
        wait = min(tuning.backoff_cap, tuning.backoff * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)  # noqa: S311
        if error.retry_after is not None:
            wait = max(wait, error.retry_after)
        with self._lock:
            source.not_before = max(source.not_before, time.monotonic() + wait)
        if error.permanent:
            refused[source] = error
            return
        others = any(other not in refused for other in self.all if other is not source)
        if wait > tuning.patience and not others:
            raise RemoteError(error.message, hint=f"it asks to be left alone for {wait:.0f} s") from error
        if failures >= tuning.attempts:
            raise error


def flattened(remotes: Iterable[Remote]) -> list[Remote]:
    """Remotes, with the mirrors of each behind it: the engine knows better than they whom to ask next."""
    return [each for remote in remotes for each in (remote.order() if isinstance(remote, MirroredRemote) else [remote])]


def pieces(
    remote: Remote, what: Descriptor, answer: Iterator[bytes | memoryview]
) -> Generator[bytes | memoryview, None, None]:
    """What a remote sends; what it lets through of the network's own errors becomes ours. Closing it ends the request.

    Raises:
        NotFoundError: it has no such blob.
        RemoteError: it cannot be reached, or broke off.
    """
    try:
        yield from answer
    except OSError as error:
        raise RemoteError(f"{remote.url} broke off in blob {what.digest}: {error}", hint="try again") from error
    finally:
        hang_up(answer)


def hang_up(answer: Iterator[bytes | memoryview] | None) -> None:
    """End a request, if the remote's iterator can; from another thread a generator cannot, and ends by itself later."""
    close = getattr(answer, "close", None)
    if close is not None:
        with suppress(Exception):
            close()


def too_long(what: Descriptor, remote: Remote, limit: int) -> LimitError:
    """The error for a remote that sends more than it was asked for."""
    return LimitError(f"blob {what.digest} from {remote.url} is larger than the {limit} bytes it should have")
