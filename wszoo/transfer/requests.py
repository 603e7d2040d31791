"""A run of segments from whichever source gives it: asked again until it is whole, or nobody can."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

from wszoo.errors import IntegrityError, NotFoundError, RemoteError
from wszoo.transfer.sources import pieces, too_long

if TYPE_CHECKING:
    import threading

    from wszoo.transfer.download import Attempt, Download
    from wszoo.transfer.items import Run
    from wszoo.transfer.sources import Source, Sources

_PROGRESS = 64 << 10  # bytes; a connection that always breaks after less gets nowhere
_TELL = 0.05  # seconds between two times that the engine is told of bytes: each takes the lock that all workers share
_SHORT = 2  # answers without a byte, and without an error, until a source is taken to have no more


class Stopped(Exception):  # noqa: N818 - no error: the transfer is over, or the run is someone else's
    """The thread has nothing to do any more."""


class Host(Protocol):
    """The engine, as far as a request needs it."""

    stopping: threading.Event

    def begin(self, download: Download, run: Run, source: Source) -> Attempt:
        """Start an attempt that the watchdog sees."""
        ...

    def received(self, attempt: Attempt) -> None:
        """Count bytes that were written since the last time."""
        ...

    def failed(self, attempt: Attempt, error: RemoteError) -> None:
        """Note a failure; raises it when it was one too many."""
        ...

    def end(self, attempt: Attempt) -> None:
        """The attempt is over."""
        ...


def fetch_run(host: Host, sources: Sources, download: Download, run: Run) -> None:
    """Bring segments here.

    Raises:
        NotFoundError: no source has its blob.
        IntegrityError: a source sends more or less than it should.
        RemoteError: the sources failed again and again.
        StorageError: the file system refuses.
        Stopped: it is not this thread's any more.
    """
    while run.segments:
        source = sources.pick(download.refused, max(0, download.round - 1))
        if host.stopping.wait(max(0.0, source.not_before - time.monotonic())):
            raise Stopped
        attempt = host.begin(download, run, source)
        try:
            _attempt(host, attempt)
        except NotFoundError as error:
            download.refused[source] = error
        except RemoteError as error:
            if attempt.got >= _PROGRESS:
                attempt.segment.failures = 0
            if not attempt.abandoned:
                host.failed(attempt, error)
        finally:
            host.end(attempt)
        if attempt.abandoned:
            raise Stopped


def _attempt(host: Host, attempt: Attempt) -> None:
    """One request after the other, as long as the source answers well."""
    run, download, remote = attempt.run, attempt.download, attempt.source.remote
    while run.segments:
        wanted, before = download.rest(run), attempt.got
        # To the end of the blob, where that is wanted, without a length: then a blob that is too long is noticed.
        to_end = download.item.whole and wanted.offset + wanted.length == wanted.blob.size
        left = wanted.length
        attempt.answer = remote.open(wanted.blob, wanted.offset, None if to_end else wanted.length)
        with closing(pieces(remote, wanted.blob, attempt.answer)) as answer:
            for piece in answer:
                if len(piece) > left:
                    raise too_long(wanted.blob, remote, wanted.blob.size)
                now = time.monotonic()
                if host.stopping.is_set() or not attempt.write(piece, now):
                    raise Stopped
                left -= len(piece)
                if now - attempt.told[1] >= _TELL:
                    host.received(attempt)
                if left and not run.segments:  # another worker has taken the last ones
                    return
        if left:
            _short(attempt, wanted.offset + wanted.length - left, before)


def _short(attempt: Attempt, end: int, before: int) -> None:
    segment, url, came = attempt.segment, attempt.source.remote.url, attempt.got > before
    blob = segment.rest().blob
    message = f"blob {blob.digest} from {url} ends after {end} of {blob.size} bytes"
    if not came and segment.failures >= _SHORT - 1:
        raise IntegrityError(message, hint="the source is damaged: run 'wszoo verify' there, or pull from elsewhere")
    if came:
        segment.failures = 0
    raise RemoteError(message)
