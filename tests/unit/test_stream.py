"""Tensors that are used while the rest of their model is on its way."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from builders import leftovers
from faults.server import Fault, FaultServer

import wszoo
from wszoo.errors import IntegrityError, NotFoundError, RemoteError, TrustError
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.publish import publish, write_model, write_plan
from wszoo.schema.model import GRAPH, Component, Graph, ModelConfig
from wszoo.schema.plan import Kind, PlanConfig, Target
from wszoo.store.store import Store
from wszoo.store.verify import verify
from wszoo.transfer import GivenUp, Tuning
from wszoo.transfer import tuning as tunings
from wszoo.weights.packs import PACK, Packer, weights_digest
from wszoo.weights.tensor import tensor_from_array

COUNT = 8
QUICK = Tuning(segment=16 << 10, start=1, workers=1, backoff=0.01, backoff_cap=0.1, stall=5.0, attempts=3, poll=0.01)


def values(number):
    rng = np.random.default_rng(number)
    return rng.standard_normal((100, 250)).astype(np.float16 if number % 2 else np.float32)


def publish_weights(store, ref, components, *, pack_bytes=1):
    """A model of weights alone, a pack for every tensor unless more is asked for."""
    packer = Packer(store.blobs, {}, pack_bytes=pack_bytes)
    infos = {name: packer.add(tensors, Silent()) for name, tensors in components.items()}
    proto, table = store.blobs.put(b"graph"), packer.table()
    graph = Graph(digest=proto, size=5, layer=proto)
    made = {name: Component(graph=graph, inputs=(), outputs=(), tensors=each) for name, each in infos.items()}
    config = ModelConfig(family="onnx", components=made, packs=table.packs, frames=table.frames)
    plans = [
        PlanConfig(
            component=name,
            target=Target(name="portable", backend="onnxruntime"),
            kind=Kind.PORTABLE,
            engine_digest=proto,
            engine_bytes=5,
            graph=proto,
            weights=weights_digest(each),
        )
        for name, each in infos.items()
    ]
    written = [write_plan(store, plan, [(GRAPH, proto)]) for plan in plans]
    publish(store, Ref.parse(ref), write_model(store, config), written)
    return store.refs.get(Ref.parse(ref)).descriptor.digest


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("origin"))
    tensors = [tensor_from_array(f"t{number}", values(number)) for number in range(COUNT)]
    digest = publish_weights(store, "net:1", {"net": tensors[:-1], "small": tensors[-1:]})
    store.pinned = f"net:1@{digest}"
    return store


@pytest.fixture
def server(origin, monkeypatch):
    monkeypatch.setattr(tunings, "DEFAULT", QUICK)
    with FaultServer(origin.layout.root).running() as running:
        yield running


@pytest.fixture
def zoo(tmp_path):
    return wszoo.Zoo(tmp_path / "mine")


# A process of its own: its anonymous memory, as it is after each tensor, with those ahead decoded.
WATCHED = """
import re, sys, time, wszoo
store, url, ref = sys.argv[1:]
peak = count = 0
for tensor in wszoo.Zoo(store).stream(ref, gpu="none", source=url):
    time.sleep(0.5 if count == 0 else 0)
    status = open("/proc/self/status").read()
    peak = max(peak, int(re.search(r"RssAnon:\\s+(\\d+) kB", status)[1]))
    count += tensor.array.nbytes
print(peak << 10, count)
"""


def check(tensor):
    expected = values(int(tensor.name[1:]))
    assert (tensor.dtype, tensor.shape) == (expected.dtype.name, expected.shape)
    np.testing.assert_array_equal(tensor.array, expected)


def check_all(tensors):
    for tensor in tensors:
        check(tensor)


def stream(zoo, server, origin, **options):
    return zoo.stream(origin.pinned, gpu="none", source=server.url, **options)


def test_every_tensor_arrives_once_and_the_model_is_pulled(zoo, server, origin):
    with stream(zoo, server, origin) as arriving:
        found = list(arriving)
        check_all(found)
        assert sorted((each.component, each.name) for each in found) == sorted(
            ("small" if number == COUNT - 1 else "net", f"t{number}") for number in range(COUNT)
        )
        assert set(arriving.model.components) == {"net", "small"}
    assert str(arriving.model.ref) == origin.pinned
    assert verify(zoo.store).problems == ()
    assert leftovers(zoo.store) == []


def test_tensors_are_handed_out_while_others_are_on_their_way(zoo, server, origin):
    release, held = threading.Event(), 4

    def wait(request):
        packs = {each.path for each in server.requests if int(each.end) > 30_000}
        if len(packs) > held:
            release.wait(20)

    server.fault = wait
    with stream(zoo, server, origin) as arriving:
        first = [next(arriving) for _ in range(held - 1)]
        assert zoo.store.refs.find(Ref.parse("net:1")) is None, "the pull is not over"
        check_all(first)
        release.set()
        assert len(list(arriving)) == COUNT - len(first)


def test_who_takes_slowly_does_not_hold_up_the_transfer(zoo, server, origin):
    with stream(zoo, server, origin) as arriving:
        assert arriving.model.ref.digest
        assert len(list(arriving)) == COUNT


def test_leaving_the_block_ends_the_pull_and_the_next_goes_on(zoo, server, origin):
    server.rate = 100_000
    with stream(zoo, server, origin) as arriving:
        check(next(arriving))
    assert not arriving._thread.is_alive()
    with pytest.raises(GivenUp):
        _ = arriving.model
    assert zoo.store.refs.find(Ref.parse("net:1")) is None
    sent, server.rate = server.blob_bytes, None
    assert len(list(stream(zoo, server, origin))) == COUNT
    whole = sum(origin.blobs.size(digest) for digest in origin.blobs.all())
    assert sent < whole / 2
    assert server.blob_bytes <= whole + 2 * QUICK.segment + 64_000, "what was fetched before is not fetched again"


def test_what_is_here_is_streamed_without_a_connection(zoo, server, origin):
    zoo.pull(origin.pinned, gpu="none", source=server.url)
    server.requests.clear()
    found = list(zoo.stream("net:1", gpu="none", offline=True))
    assert len(found) == COUNT
    assert server.requests == []
    check_all(found)


def test_only_components_that_were_asked_for_are_handed_out(zoo, server, origin):
    (tensor,) = stream(zoo, server, origin, components=["small"])
    assert tensor.component == "small"
    check(tensor)


def test_tensors_of_a_pack_that_is_fetched_in_part_are_handed_out(zoo, tmp_path):
    for ref, numbers in (("a:1", (0, 1, 2, 3, 4)), ("b:1", (0, 1, 2, 3, 9))):
        tensors = [tensor_from_array(f"t{number}", values(number)) for number in numbers]
        publish_weights(Store(tmp_path / ref[0]), ref, {"net": tensors}, pack_bytes=PACK)
    zoo.pull("a:1", gpu="none", source=str(tmp_path / "a"))
    found = list(zoo.stream("b:1", gpu="none", source=str(tmp_path / "b")))
    assert sorted(each.name for each in found) == ["t0", "t1", "t2", "t3", "t9"]
    check_all(found)
    (pack,) = zoo.stream("b:1", gpu="none", offline=True).model.selection.model.config.packs
    assert zoo.store.blobs.size(pack) is None, "four of five tensors were here"


def test_a_flipped_bit_is_never_handed_out(zoo, server, origin):
    server.fault = lambda request: Fault("flip") if request.end > 30_000 else None
    with pytest.raises(IntegrityError):
        check_all(stream(zoo, server, origin))
    assert zoo.store.refs.find(Ref.parse("net:1")) is None


def test_an_error_half_way_is_raised_after_good_tensors(zoo, server, origin):
    server.fault = lambda _: Fault("status", 503) if len(server.sent) > 8 else None
    with pytest.raises(RemoteError):
        check_all(stream(zoo, server, origin))
    server.fault = None
    assert len(list(stream(zoo, server, origin))) == COUNT


@pytest.mark.parametrize(("ref", "error"), [("nothing:1", NotFoundError), ("net:1", TrustError)])
def test_errors_of_a_pull_are_raised_by_the_iteration(zoo, server, ref, error):
    arriving = zoo.stream(ref, gpu="none", source=server.url)
    with pytest.raises(error):
        next(arriving)
    with pytest.raises(error):
        _ = arriving.model


def test_a_blob_that_another_process_brings_is_handed_out(zoo, server, origin):
    """Its tensors are read from the store, and hashed."""
    release = threading.Event()

    def wait(request):
        if request.end > 30_000:
            release.wait(20)

    server.fault = wait
    with stream(zoo, server, origin) as arriving:
        while not server.requests:
            time.sleep(0.01)
        for digest in origin.blobs.all():
            zoo.store.blobs.put(origin.blobs.read(digest, limit=1 << 30))
        release.set()
        found = list(arriving)
    assert len(found) == COUNT
    check_all(found)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_a_stream_of_400_mb_takes_less_than_300_mib_of_memory(tmp_path):
    origin = Store(tmp_path / "origin")
    drawn = np.random.default_rng(0).standard_normal((2000, 1000)).astype(np.float16)
    tensors = [tensor_from_array(f"t{number}", drawn * np.float16(1 + number / 100)) for number in range(100)]
    digest = publish_weights(origin, "big:1", {"net": tensors}, pack_bytes=PACK)
    assert sum(origin.blobs.size(each) for each in origin.blobs.all()) < 380e6, "they have to be decoded"
    with FaultServer(origin.layout.root).running() as server:
        words = [sys.executable, "-c", WATCHED, str(tmp_path / "mine"), server.url, f"big:1@{digest}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    peak, count = map(int, done.stdout.split())
    assert count == 400e6
    assert peak < 300 << 20


def test_blobs_are_told_of_when_they_are_stored_where_open_files_cannot_be_renamed(zoo, server, origin, monkeypatch):
    monkeypatch.setattr("wszoo.transfer.engine.EARLY", False)
    told, original = [], wszoo.Zoo.pull

    def watched(self, *args, follower, **options):
        class Spy:
            chosen, given_up = follower.chosen, follower.given_up

            def arrived(self, blob, path):
                told.append((path, zoo.store.blobs.size(blob)))
                follower.arrived(blob, path)

        return original(self, *args, follower=Spy(), **options)

    monkeypatch.setattr(wszoo.Zoo, "pull", watched)
    assert len(list(stream(zoo, server, origin))) == COUNT
    assert told
    assert all(path is None and size is not None for path, size in told)
