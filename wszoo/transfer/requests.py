"""One segment from whichever source gives it: asked again until it is whole, or nobody can."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

from wszoo.errors import IntegrityError, NotFoundError, RemoteError
from wszoo.transfer.sources import pieces, too_long

if TYPE_CHECKING:
    import threading

    from wszoo.transfer.download import Attempt, Download
    from wszoo.transfer.items import Segment
    from wszoo.transfer.sources import Source, Sources

_PROGRESS = 64 << 10  # bytes; a connection that always breaks after less gets nowhere
_SHORT = 2  # answers without a byte, and without an error, until a source is taken to have no more


class Stopped(Exception):  # noqa: N818 - no error: the transfer is over, or the segment is someone else's
    """The thread has nothing to do any more."""


class Host(Protocol):
    """The engine, as far as a request needs it."""

    stopping: threading.Event

    def begin(self, download: Download, segment: Segment, source: Source) -> Attempt:
        """Start an attempt that the watchdog sees."""
        ...

    def received(self, attempt: Attempt, count: int) -> None:
        """Count bytes that were written."""
        ...

    def failed(self, attempt: Attempt, error: RemoteError) -> None:
        """Note a failure; raises it when it was one too many."""
        ...

    def end(self, attempt: Attempt) -> None:
        """The attempt is over."""
        ...


def fetch_segment(host: Host, sources: Sources, download: Download, segment: Segment) -> None:
    """Bring a segment here.

    Raises:
        NotFoundError: no source has its blob.
        IntegrityError: a source sends more or less than it should.
        RemoteError: the sources failed again and again.
        StorageError: the file system refuses.
        Stopped: it is not this thread's any more.
    """
    while segment.reached < segment.length:
        source = sources.pick(download.refused, max(0, download.round - 1))
        if host.stopping.wait(max(0.0, source.not_before - time.monotonic())):
            raise Stopped
        attempt, before = host.begin(download, segment, source), segment.reached
        try:
            _attempt(host, attempt)
        except NotFoundError as error:
            download.refused[source] = error
        except RemoteError as error:
            if attempt.abandoned:
                raise Stopped from error
            if segment.reached - before >= _PROGRESS:
                segment.failures = 0
            host.failed(attempt, error)
        finally:
            host.end(attempt)


def _attempt(host: Host, attempt: Attempt) -> None:
    """One request after the other, as long as the source answers well."""
    segment, download, remote = attempt.segment, attempt.download, attempt.source.remote
    while segment.reached < segment.length:
        wanted, before = segment.rest(), segment.reached
        # To the end of the blob, where that is wanted, without a length: then a blob that is too long is noticed.
        to_end = download.item.whole and wanted.offset + wanted.length == wanted.blob.size
        left = wanted.length
        attempt.answer = remote.open(wanted.blob, wanted.offset, None if to_end else wanted.length)
        with closing(pieces(remote, wanted.blob, attempt.answer)) as answer:
            for piece in answer:
                if len(piece) > left:
                    raise too_long(wanted.blob, remote, wanted.blob.size)
                if host.stopping.is_set() or not attempt.write(piece, time.monotonic()):
                    raise Stopped
                left -= len(piece)
                host.received(attempt, len(piece))
        if left:
            _short(attempt, wanted.offset + wanted.length - left, before)


def _short(attempt: Attempt, end: int, before: int) -> None:
    segment, url = attempt.segment, attempt.source.remote.url
    blob = segment.rest().blob
    message = f"blob {blob.digest} from {url} ends after {end} of {blob.size} bytes"
    if segment.reached == before and segment.failures >= _SHORT - 1:
        raise IntegrityError(message, hint="the source is damaged: run 'wszoo verify' there, or pull from elsewhere")
    if segment.reached > before:
        segment.failures = 0
    raise RemoteError(message)
