"""Pulling over HTTP from a server that fails in every way a network can."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import pytest
from builders import around
from faults.server import Fault, FaultServer

from wszoo.distribution.pull import pull
from wszoo.errors import IntegrityError, NotFoundError, RemoteError
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.remotes.http import HttpType
from wszoo.store.gc import collect
from wszoo.store.verify import verify
from wszoo.transfer import Tuning

QUICK = Tuning(segment=4 << 10, backoff=0.01, backoff_cap=0.1, stall=0.4, poll=0.01)


@pytest.fixture
def server(origin):
    with FaultServer(origin.layout.root).running() as running:
        yield running


@pytest.fixture
def ref(origin):
    entry = origin.refs.get(Ref.parse("net:1"))
    return entry.ref.pinned(entry.descriptor.digest)


class Watched(Silent):
    """Adds up one stage and looks that it only grows."""

    def __init__(self):
        self.total, self.seen, self.lock = 0, 0, threading.Lock()

    @contextmanager
    def stage(self, label, total=None, unit="B"):
        self.total = total

        def advance(count):
            assert count > 0
            with self.lock:
                self.seen += count

        yield advance


def pulled(server, store, ref, **options):
    options = {"tuning": QUICK, **options}
    return pull(store, HttpType().open(server.url), ref, around("sm89"), **options)


def sometimes(fault, *, every=3, most=40):
    """Let each ``every``-th request for a blob fail, ``most`` times in all."""

    def decide(request):
        if fault.kind == "short" and not request.start:
            return None  # a blob that is shorter than its descriptor says is refused at once
        return fault if request.number % every == 1 and request.number < every * most else None

    return decide


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cut"),
        Fault("stall"),
        Fault("short"),
        Fault("range"),
        Fault("status", 503),
        Fault("status", 503, "0"),
        Fault("status", 429, "0.1"),
        Fault("status", 500),
    ],
    ids=["cut", "stall", "short", "wrong range", "503", "503 retry", "429 retry", "500"],
)
def test_a_server_that_fails_now_and_then_is_outlasted(server, store, ref, fault):
    server.fault, watched = sometimes(fault, most=6), Watched()
    report = pulled(server, store, ref, progress=watched)
    assert verify(store).problems == ()
    assert watched.seen == watched.total, "retries are not counted twice"
    assert server.blob_bytes < 2 * report.fetched_bytes
    assert list(store.layout.partials.iterdir()) == []


def test_a_slow_server_is_waited_for_as_long_as_bytes_come(server, store, ref):
    server.rate = 40_000
    pulled(server, store, ref, tuning=Tuning(segment=16 << 10, stall=2.0))
    assert verify(store).problems == ()


def test_a_bit_that_flips_on_the_way_is_fetched_again(server, store, ref):
    flipped = []

    def once(request):
        if request.start != 8 << 10 or flipped:
            return None
        flipped.append(request)
        return Fault("flip")

    server.fault = once
    pulled(server, store, ref)
    assert flipped
    assert verify(store).problems == ()


def test_a_server_that_always_flips_a_bit_is_refused_and_nothing_is_kept(server, store, ref):
    server.fault = lambda request: Fault("flip") if request.start else None
    with pytest.raises(IntegrityError, match="damaged"):
        pulled(server, store, ref)
    assert store.refs.all() == []
    assert verify(store).problems == ()
    time.sleep(0.02)
    collect(store, grace=0)
    assert list(store.layout.partials.iterdir()) == []


@pytest.mark.parametrize("kind", ["cut", "stall", "status", "flip"])
def test_a_mirror_takes_over(server, origin, store, ref, kind):
    server.fault = lambda request: Fault(kind) if request.number > 6 else None
    with FaultServer(origin.layout.root).running() as mirror:
        pulled(server, store, ref, mirrors=[HttpType().open(mirror.url)])
        assert mirror.blob_bytes > 0
    assert verify(store).problems == ()


def test_a_blob_that_only_the_mirror_has_is_found_there(server, origin, store, ref, tmp_path):
    import shutil

    from wszoo.publish import read_published

    copy = shutil.copytree(origin.layout.root, tmp_path / "copy")
    pack = read_published(origin, Ref.parse("net:1")).model.config.packs[0]
    origin.blobs.path(pack).unlink()
    with pytest.raises(NotFoundError, match=pack.hex):
        pulled(server, store, ref)
    with FaultServer(copy).running() as mirror:
        pulled(server, store, ref, mirrors=[HttpType().open(mirror.url)])
    assert verify(store).problems == ()


def test_a_server_that_is_gone_ends_in_an_error_and_the_next_pull_goes_on(server, store, ref):
    server.fault = lambda request: Fault("status", 503) if request.start >= 12 << 10 else None
    with pytest.raises(RemoteError, match="503"):
        pulled(server, store, ref)
    assert store.refs.all() == []
    before = server.blob_bytes
    server.fault = None
    report = pulled(server, store, ref)
    assert verify(store).problems == ()
    documents = sum(
        each.size
        for each in report.selection.model.manifest.layers
        if each.digest not in report.selection.model.config.packs
    )
    assert server.blob_bytes <= report.fetched_bytes + before + documents + (4 << 10)
    assert server.blob_bytes - before < before + report.fetched_bytes


def test_an_hour_of_retry_after_is_told_and_not_waited_for(server, store, ref):
    server.fault = lambda request: Fault("status", 429, "3600") if request.number > 6 else None
    with pytest.raises(RemoteError, match="429") as caught:
        pulled(server, store, ref)
    assert "3600 s" in caught.value.hint


def test_a_login_page_is_no_model(server, store, ref):
    server.fault = lambda _: Fault("html")
    with pytest.raises((RemoteError, IntegrityError)):
        pulled(server, store, ref)
    assert store.refs.all() == []


def test_a_server_without_ranges_serves(server, store, ref):
    server.ranges = False
    pulled(server, store, ref)
    assert verify(store).problems == ()


def test_everything_is_fetched_once(server, store, ref):
    report = pulled(server, store, ref)
    assert server.blob_bytes == report.fetched_bytes
