"""Group commit: what arrives together is made durable together, and nothing waits for long."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from wszoo.digest import Digest
from wszoo.errors import NotFoundError, StorageError
from wszoo.progress import Silent
from wszoo.schema.oci import Descriptor
from wszoo.store.partials import Partials
from wszoo.transfer import Tuning, commit, fetch
from wszoo.transfer.commit import PAUSE, Shelf

BLOBS = {Digest.of(data): data for data in (bytes([number]) * 5000 for number in range(20))}
WANTED = [Descriptor(media_type="application/x", digest=digest, size=len(data)) for digest, data in BLOBS.items()]
TUNING = Tuning(segment=1000, start=4, workers=4, backoff=0.001, backoff_cap=0.01, attempts=1, poll=0.01)


class Source:
    """Has ``BLOBS``; ``before`` is called with the digest before one is sent."""

    url, trusted = "mem", True

    def __init__(self, before=lambda digest: None):
        self.before = before

    def open(self, descriptor, offset=0, length=None):
        self.before(descriptor.digest)
        yield BLOBS[descriptor.digest][offset : None if length is None else offset + length]


@pytest.fixture
def steps(store, monkeypatch):
    """What is done for blobs: ``sync`` a file, ``rename`` it, ``settle`` the folder, ``release`` the claim."""
    done, original = [], {"adopt": store.blobs.adopt, "settle": store.blobs.settle, "fsync": os.fsync}

    def sync(handle):
        if Path(f"/proc/self/fd/{handle}").readlink().name == "data":
            done.append("sync")
        original["fsync"](handle)

    def adopt(path, digest):
        done.append("rename")
        original["adopt"](path, digest)

    def settle():
        done.append("settle")
        original["settle"]()

    def release(self, key):
        done.append("release")
        released(self, key)

    released = Partials.release
    monkeypatch.setattr(Partials, "release", release)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(store.blobs, "adopt", adopt)
    monkeypatch.setattr(store.blobs, "settle", settle)
    return done


def stored(store):
    return {digest for digest in BLOBS if store.blobs.size(digest) is not None}


def test_what_arrives_in_a_moment_is_made_durable_in_one_go(store, steps):
    fetch(Source(), store, WANTED, Silent(), "fetch", tuning=TUNING)
    assert steps == ["sync"] * 20 + ["rename"] * 20 + ["settle"] + ["release"] * 20
    assert stored(store) == set(BLOBS)


def test_the_disk_begins_with_segments_while_others_are_on_their_way(store, monkeypatch):
    begun, all_but_one = [], threading.Event()

    def begin(file, at, length):
        begun.append((at, length))
        if len(begun) == 4:
            all_but_one.set()

    class Slow(Source):
        def open(self, descriptor, offset=0, length=None):
            data = BLOBS[descriptor.digest]
            yield data[offset:4000]
            assert all_but_one.wait(20)
            yield data[4000:]

    monkeypatch.setattr("wszoo.transfer.download.begin_sync", begin)
    tuning = Tuning(segment=1000, start=1, workers=1, poll=0.01)
    monkeypatch.setattr("wszoo.transfer.engine._SHARES", 1)
    fetch(Slow(), store, WANTED[:1], Silent(), "fetch", tuning=tuning)
    assert begun[:4] == [(at, 1000) for at in range(0, 4000, 1000)]


def test_nothing_waits_for_long_while_other_blobs_are_on_their_way(store, steps, monkeypatch):
    monkeypatch.setattr(commit, "PAUSE", 0.05)
    last, durable = WANTED[-1].digest, threading.Event()

    def hold_up_the_last(digest):
        if digest == last:
            while len(stored(store)) < len(BLOBS) - 1:
                durable.wait(0.01)

    fetch(Source(hold_up_the_last), store, WANTED, Silent(), "fetch", tuning=TUNING)
    assert steps[-4:] == ["sync", "rename", "settle", "release"]
    assert steps.count("sync") == steps.count("rename") == 20
    assert steps.count("settle") < 10


def test_what_is_whole_is_kept_when_the_transfer_fails(store, steps):
    last, whole, others_are_whole = WANTED[-1].digest, [], threading.Event()

    class Follower:
        def arrived(self, blob, path):
            whole.append(blob)
            if len(whole) == 19:
                others_are_whole.set()

        def given_up(self):
            return False

    def lack_the_last(digest):
        if digest == last:
            others_are_whole.wait()
            raise NotFoundError("it is not there")

    with pytest.raises(NotFoundError):
        fetch(Source(lack_the_last), store, WANTED, Silent(), "fetch", tuning=TUNING, follower=Follower())
    assert stored(store) == set(BLOBS) - {last}
    assert steps[:39] == ["sync"] * 19 + ["rename"] * 19 + ["settle"]


def test_a_disk_that_refuses_ends_the_transfer_and_what_was_fetched_is_not_fetched_again(store, monkeypatch):
    def full(path, digest):
        raise StorageError("cannot store a blob: no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store.blobs, "adopt", full)
        with pytest.raises(StorageError, match="no space left"):
            fetch(Source(), store, WANTED, Silent(), "fetch", tuning=TUNING)
    assert stored(store) == set()
    assert list(store.layout.partials.glob("*.claim")) == []

    def nothing_is_asked_for(digest):
        raise AssertionError(digest)

    fetch(Source(nothing_is_asked_for), store, WANTED, Silent(), "fetch", tuning=TUNING)
    assert stored(store) == set(BLOBS)


def test_the_first_on_the_shelf_says_how_long_it_waits():
    now = [100.0]
    shelf = Shelf(lambda: now[0])
    assert shelf.take(left=2) == []
    shelf.put("a")
    now[0] += PAUSE - 0.1
    shelf.put("b")
    assert shelf.take(left=3) == []
    now[0] += 0.1
    assert shelf.take(left=3) == ["a", "b"]
    shelf.put("c")
    assert shelf.take(left=2) == []
    assert shelf.take(left=1) == ["c"]
    assert shelf.take(left=0) == []
