"""Hosts that share a store over a network file system whose locks do nothing, and whose clocks jump."""

from __future__ import annotations

import os

import pytest
from faults.hosts import live
from faults.tally import LONG, tally
from workers import together

from wszoo.schema.decode import MAX_DOCUMENT, decode
from wszoo.schema.oci import REF_NAME, Index
from wszoo.store.gc import collect
from wszoo.store.store import Store
from wszoo.store.verify import verify

ROUNDS = 25 if LONG else 4


@pytest.mark.parametrize("hosts", [2, 3])
def test_hosts_without_locks_lose_nothing_that_another_wrote(origin, tmp_path, hosts):
    root = tmp_path / "shared"
    Store(root).layout.create()
    names = [f"host{number}" for number in range(hosts)]
    arguments = [(name, seed, str(root), str(origin.layout.root), ROUNDS) for seed, name in enumerate(names)]
    made = together(live, arguments, timeout=500 if LONG else 100)
    store = Store(root)
    expected = {"net:1", *(tag for tags in made for tag in tags)}
    assert {entry.ref.tagged for entry in store.refs.all()} == expected
    assert verify(store).problems == ()
    assert store.refs.swap(
        next(iter(store.refs.all())).ref, store.refs.all()[0].descriptor, held=None, expected=store.refs.all()[0]
    )
    index = decode(store.layout.index.read_bytes(), Index, what="index.json", limit=MAX_DOCUMENT)
    assert {each.annotations[REF_NAME] for each in index.manifests} == expected
    tally("rounds of hosts that share a store without locks", hosts * ROUNDS)


def shift(store, seconds):
    """Let the file system's clock jump: every file looks that much older than what is written from now on."""
    for path in store.layout.root.rglob("*"):
        if path.is_file():
            then = path.stat().st_mtime - seconds
            os.utime(path, (then, then))


@pytest.mark.parametrize("seconds", [-400 * 86_400, -7200, -1000, 1000, 7200, 6 * 86_400])
@pytest.mark.parametrize("grace", [0, 3600])
def test_a_clock_that_jumps_while_work_goes_on_takes_nothing_from_it(store, seconds, grace):
    with store.lease():
        mine = store.blobs.put(b"not reachable yet")
        shift(store, seconds)
        later = store.blobs.put(b"written after the jump")
        assert collect(store, grace=grace).deleted == ()
        assert set(store.blobs.all()) == {mine, later}
    tally("faults injected: clock jumps")


@pytest.mark.parametrize("seconds", [-400 * 86_400, -7200, 7200, 400 * 86_400])
def test_a_clock_that_jumps_between_works_only_delays_gc_or_hastens_it(origin, seconds):
    before = set(origin.blobs.all())
    origin.blobs.put(b"garbage")
    shift(origin, seconds)
    collect(origin)
    assert before <= set(origin.blobs.all())
    assert verify(origin).problems == ()
    tally("faults injected: clock jumps")
