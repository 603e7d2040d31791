"""What one request fetches: segments in a row, of which each is kept as soon as it is whole."""

from __future__ import annotations

import time
from collections import deque

import pytest

from wszoo.digest import Digest
from wszoo.errors import RemoteError
from wszoo.progress import Silent
from wszoo.schema.oci import Descriptor
from wszoo.store.partials import Partial
from wszoo.transfer import Tuning, download, fetch
from wszoo.transfer.items import Item, Range, Run, cut

SEGMENT = 1000
DATA = bytes(range(250)) * 400
BLOB = Descriptor(media_type="application/x", digest=Digest.of(DATA), size=len(DATA))
TUNING = Tuning(segment=SEGMENT, start=4, workers=4, backoff=0.001, backoff_cap=0.01, attempts=1, poll=0.01)


class Source:
    """Sends ``DATA`` in pieces that fit no segment, as ``send`` passes them on, and notes what it was asked for."""

    url, trusted = "mem", True

    def __init__(self, send=lambda offset, pieces: pieces):
        self.send, self.asked, self.sent = send, [], 0

    def open(self, descriptor, offset=0, length=None):
        self.asked.append(offset)
        stop = len(DATA) if length is None else offset + length
        pieces = (DATA[at : min(at + 333, stop)] for at in range(offset, stop, 333))
        for piece in self.send(offset, pieces):
            self.sent += len(piece)
            yield piece


def run(store, source, tuning=TUNING):
    fetch(source, store, [BLOB], Silent(), "x", tuning=tuning)
    assert store.blobs.read(BLOB.digest, limit=1 << 20) == DATA


def test_most_of_a_blob_comes_in_few_requests_and_every_byte_once(store):
    source = Source()
    run(store, source)
    assert len(source.asked) <= len(DATA) // SEGMENT // 2
    assert source.sent == len(DATA)


def test_segments_that_were_whole_when_a_request_broke_off_are_kept(store):
    def broken(offset, pieces):
        for number, piece in enumerate(pieces):
            if number == 10:  # 3330 bytes
                raise RemoteError("gone", permanent=True)
            yield piece

    one = Tuning(segment=SEGMENT, start=1, workers=1, attempts=1)
    with pytest.raises(RemoteError, match="gone"):
        run(store, Source(broken), one)
    source = Source()
    run(store, source, one)
    assert source.asked[0] == 3 * SEGMENT
    assert source.sent == len(DATA) - 3 * SEGMENT


def test_the_end_of_a_request_that_takes_long_is_fetched_by_others(store, monkeypatch):
    monkeypatch.setattr(download, "_LONG", 0.2)

    def slow(offset, pieces):
        for piece in pieces:
            time.sleep(0 if offset else 0.05)
            yield piece

    source, began = Source(slow), time.monotonic()
    run(store, source)
    assert time.monotonic() - began < 1.5, "alone, the first request would take 1.8 s for its share of an eighth"
    assert len(DATA) <= source.sent < len(DATA) + SEGMENT, "the one who was helped stops where the others began"


def run_of(*ranges):
    item = Item(key=BLOB.digest, ranges=ranges, present=lambda: False, place=lambda _: None, whole=False)
    return Run(deque(cut(item, SEGMENT)), 0.0)


def test_a_request_goes_as_far_as_the_bytes_stand_in_a_row():
    together = run_of(Range(BLOB, 500, 1500), Range(BLOB, 2000, 1000), Range(BLOB, 9000, 700))
    assert together.rest() == Range(BLOB, 500, 1500)  # two ranges share the second segment
    together.segments[0].reached = 1000
    together.segments.popleft()
    together.segments[0].reached = 500
    assert together.rest() == Range(BLOB, 2000, 1000)  # and the second range goes on in the third segment
    together.segments.popleft()
    assert together.rest() == Range(BLOB, 2500, 500)


def test_segments_of_one_range_are_asked_for_together():
    whole = run_of(Range(BLOB, 500, 3200))
    whole.segments[0].reached = 10
    assert whole.rest() == Range(BLOB, 510, 3190)
    assert whole.left == 3190


def test_how_long_a_run_lasts_is_told_from_how_it_went():
    of_four = run_of(Range(BLOB, 0, 4000))
    assert of_four.lasts(3.0) == 3.0, "nothing came: at least as long again"
    of_four.got = of_four.segments[0].reached = 1000
    assert of_four.lasts(3.0) == 9.0


def test_a_blob_is_not_at_its_end_before_its_last_segment_is_noted(tmp_path):
    """Else its folder goes while someone writes into it that the segment is here."""
    item = Item(
        key=BLOB.digest,
        ranges=(Range(BLOB, 0, 2 * SEGMENT),),
        present=lambda: False,
        place=lambda _: None,
        check=lambda _: None,
        arrived=lambda _: None,
    )
    partial = Partial(tmp_path / "part", 2 * SEGMENT, SEGMENT)
    partial.start()
    both = download.Download(item, partial, set(), lambda _: None)
    runs = [both.take(SEGMENT), both.take(SEGMENT)]
    for each in runs:
        (segment,) = each.segments
        along = both.hash_along(segment)
        along.update(DATA[segment.at : segment.at + SEGMENT])
        segment.reached = SEGMENT
        both.hashed_along(segment, along)
        assert not both.catch_up()
        both.whole(each)
    assert both.catch_up()
    assert both.finished().digest == Digest.of(DATA[: 2 * SEGMENT])
