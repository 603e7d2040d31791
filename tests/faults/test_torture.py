"""SIGKILL at random moments, many pulls at once, and a model larger than the memory that a pull may take.

``WSZOO_KILLS=200`` (``make torture-transfer``) kills often; CI kills 15 times.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from builders import network, publish_model
from faults.server import FaultServer

from wszoo.names import Ref
from wszoo.store.gc import collect
from wszoo.store.store import Store
from wszoo.store.verify import verify
from wszoo.transfer.tuning import DEFAULT
from wszoo.weights.packs import PACK

KILLS = int(os.environ.get("WSZOO_KILLS", "15"))
SEGMENT = 64 << 10
DOCUMENTS = 64 << 10  # an index, two manifests and two configs, which every process reads anew
CHILD = Path(__file__).parent / "child.py"


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A store with a model of random weights: 24 MB, or 3 MB for each kill."""
    store = Store(tmp_path_factory.mktemp("large") / "origin")
    publish_model(store, "net:1", targets=(), model=network(0, int((max(24, 3 * KILLS) * 1e6 / 6) ** 0.5)))
    return store


def child(store, server, ref, segment=SEGMENT):
    words = [sys.executable, str(CHILD), str(store.layout.root), server.url, str(ref), str(segment)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def pinned(store):
    entry = store.refs.get(Ref.parse("net:1"))
    return entry.ref.pinned(entry.descriptor.digest)


def size_of(store):
    return sum(store.blobs.size(digest) for digest in store.blobs.all())


def test_a_pull_that_is_killed_again_and_again_ends_whole(large, store):
    rng, killed = random.Random(4), 0
    with FaultServer(large.layout.root, rate=1.5e6).running() as server:
        while killed < KILLS:
            with child(store, server, pinned(large)) as process:
                assert process.stdout.readline() == "ready\n"
                time.sleep(rng.uniform(0, 0.4))
                if process.poll() is not None:
                    break
                process.kill()
                killed += 1
        server.rate = None
        with child(store, server, pinned(large)) as process:
            assert process.stdout.read().endswith("done\n")
        served = server.blob_bytes
    assert killed >= min(KILLS, 10)
    assert verify(store).problems == ()
    # For each worker, what came of a segment, and what was in the connection: not much less than such a small segment.
    assert served <= size_of(large) + (killed + 1) * (2 * DEFAULT.start * SEGMENT + DOCUMENTS)
    time.sleep(0.02)
    for folder in (store.layout.leases,):  # those of the killed expire in 15 minutes
        for path in folder.iterdir():
            os.utime(path, (1, 1))
    collect(store, grace=0)
    for folder in (store.layout.partials, store.layout.tmp, store.layout.leases):
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("count", [2, 8])
def test_pulls_at_once_share_the_work(large, store, count):
    with FaultServer(large.layout.root, rate=10e6).running() as server:
        children = [child(store, server, pinned(large), 1 << 20) for _ in range(count)]
        said = [each.communicate(timeout=120)[0] for each in children]
        served = server.blob_bytes
    assert all(text.endswith("done\n") for text in said)
    assert verify(store).problems == ()
    assert served <= 1.1 * size_of(large)
    assert list(store.layout.partials.iterdir()) == []


def test_a_pull_of_600_mb_takes_less_than_300_mib_of_memory(tmp_path, store):
    big = Store(tmp_path / "big")
    publish_model(big, "net:1", targets=(), model=noise(600))
    with FaultServer(big.layout.root).running() as server, child(store, server, pinned(big), 8 << 20) as process:
        said = process.stdout.read().split()
    assert said[-1] == "done"
    assert size_of(big) > 500e6 > PACK
    assert int(said[1]) < 300 << 20
    assert verify(store).problems == ()


def noise(megabytes):
    """A model of incompressible bytes, made in a blink."""
    from builders import onnx_model
    from onnx import helper

    rows = megabytes * 1_000_000 // 4096
    table = np.frombuffer(np.random.default_rng(0).bytes(rows * 4096), np.float32).reshape(rows, 1024)
    return onnx_model(
        [helper.make_node("MatMul", ["x", "w"], ["z"])],
        [("x", 1, ["n", rows])],
        [("z", 1, ["n", 1024])],
        [("w", table)],
    )
