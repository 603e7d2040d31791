"""Tensors as packs arrive: verified, bounded, and clear about what goes wrong."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from unit.weights.test_packs import arrays, packed, tensors

from wszoo.errors import IntegrityError, NotFoundError, RemoteError
from wszoo.weights import arriving
from wszoo.weights.arriving import ArrivingTensors
from wszoo.weights.packs import PackReader
from wszoo.weights.tensor import DTYPES, Loading, Tensor


@pytest.fixture
def arrivals():
    made = []

    def make(**options):
        made.append(ArrivingTensors(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def several(store, count=4, size=20_000):
    """Tensors with a pack each, and the config."""
    given = tensors(**{f"t{number}": array for number, array in enumerate(arrays(0, *[size] * count))})
    return given, packed(store, given, pack_bytes=1)


def taken(stream):
    found = []
    while (each := stream.take()) is not None:
        found.append(each)
    return found


def test_tensors_come_when_their_packs_do_with_the_bytes_they_had(store, arrivals):
    given, config = several(store)
    stream = arrivals()
    stream.expect(PackReader(store.blobs, config), ["c0"], here=())
    for number in (3, 1, 2, 0):
        stream.arrived(config.packs[number], store.blobs.map(config.packs[number]))
        component, tensor, data = stream.take()
        assert (component, tensor.name) == ("c0", f"t{number}")
        np.testing.assert_array_equal(tensor.shaped(data), given[number].array())
    stream.end()
    assert stream.take() is None


def test_a_tensor_that_takes_long_to_decode_holds_up_no_other(store, arrivals, monkeypatch):
    monkeypatch.setattr(arriving, "BATCH", 0)
    _, config = several(store)
    reader, go_on = PackReader(store.blobs, config), threading.Event()
    first = next(reader.stored("c0"))
    slow, load = Loading(np.zeros(first.tensor.nbytes, np.uint8), (lambda: go_on.wait(30),)), PackReader._begin
    monkeypatch.setattr(PackReader, "_begin", lambda r, info, *at: slow if info.name == "t0" else load(r, info, *at))
    monkeypatch.setattr(arriving, "cores", lambda: 2)
    stream = arrivals()
    stream.expect(reader, ["c0"], here=())
    for pack in config.packs:
        stream.arrived(pack, store.blobs.map(pack))
    stream.end()
    try:
        others = {stream.take()[1].name for _ in range(3)}
    finally:
        go_on.set()
    assert others == {"t1", "t2", "t3"}
    assert stream.take()[1].name == "t0"


def test_a_tensor_waits_for_all_of_its_packs(store, arrivals, monkeypatch):
    monkeypatch.setattr("wszoo.weights.packs.FRAME", 16_384)
    given, config = several(store, count=1, size=30_000)
    assert len(config.packs) > 2
    stream = arrivals()
    stream.expect(PackReader(store.blobs, config), ["c0"], here=())
    for pack in config.packs:
        assert not stream._begun
        stream.arrived(pack, store.blobs.map(pack))
    stream.end()
    ((_, tensor, data),) = taken(stream)
    np.testing.assert_array_equal(tensor.shaped(data), given[0].array())


def test_no_more_is_decoded_ahead_than_allowed(store, arrivals, monkeypatch):
    monkeypatch.setattr(arriving, "BATCH", 0)
    given, config = several(store, count=6)
    each = given[0].nbytes
    stream = arrivals(ahead=2 * each)
    stream.expect(PackReader(store.blobs, config), ["c0"], here=())
    for pack in config.packs:
        stream.arrived(pack, store.blobs.map(pack))
    stream.end()
    for left in range(6, 0, -1):
        assert stream._held == each * min(2, left)
        stream.take()
    assert stream.take() is None


def test_a_tensor_larger_than_the_bound_comes_alone(store, arrivals):
    _, config = several(store, count=3)
    stream = arrivals(ahead=1)
    stream.expect(PackReader(store.blobs, config), ["c0"], here=config.packs)
    stream.end()
    assert len(taken(stream)) == 3


def test_a_damaged_pack_of_the_store_is_found_by_its_tensor(store, arrivals, monkeypatch):
    monkeypatch.setattr(arriving, "BATCH", 0)
    given, config = several(store, count=2)
    path = store.blobs.path(config.packs[1])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    stream = arrivals()
    stream.expect(PackReader(store.blobs, config), ["c0"], here=config.packs)
    stream.end()
    found = []
    with pytest.raises(IntegrityError, match="t1"):  # before the good one, or after it
        found.extend(iter(stream.take, None))
    for _, tensor, raw in found:
        assert tensor.name == "t0"
        np.testing.assert_array_equal(tensor.shaped(raw), given[0].array())


def test_what_did_not_arrive_and_is_not_in_the_store_is_an_error(store, arrivals):
    _, config = several(store, count=1)
    store.blobs.path(config.packs[0]).unlink()
    stream = arrivals()
    stream.expect(PackReader(store.blobs, config), ["c0"], here=())
    stream.end()
    with pytest.raises(NotFoundError):
        stream.take()


def test_an_error_of_the_transfer_is_raised_where_tensors_are_taken(store, arrivals):
    _, config = several(store, count=2)
    stream = arrivals()
    stream.expect(PackReader(store.blobs, config), ["c0"], here=())
    stream.arrived(config.packs[0], store.blobs.map(config.packs[0]))
    assert stream.take() is not None
    threading.Timer(0.05, stream.end, [RemoteError("the line is down")]).start()
    with pytest.raises(RemoteError, match="the line is down"):
        stream.take()


def test_an_error_before_anything_is_known_is_raised_too(arrivals):
    stream = arrivals()
    stream.end(NotFoundError("no such ref"))
    with pytest.raises(NotFoundError, match="no such ref"):
        stream.take()


def test_empty_and_packed_tensors_arrive(store, arrivals):
    raw = np.arange(7, dtype=np.uint8)
    empty, nibbles = np.empty(0, np.uint8), Tensor("n", DTYPES["int4"], (13,), lambda: raw)
    config = packed(store, [Tensor("e", DTYPES["float16"], (0, 3), lambda: empty), nibbles])
    stream = arrivals()
    stream.expect(PackReader(store.blobs, config), ["c0"], here=())
    for pack in config.packs:
        stream.arrived(pack, store.blobs.map(pack))
    stream.end()
    found = {tensor.name: tensor.shaped(data) for _, tensor, data in taken(stream)}
    assert found["e"].shape == (0, 3)
    np.testing.assert_array_equal(found["n"], raw)


def test_large_tensors_are_decoded_by_several_threads(store, arrivals, monkeypatch):
    monkeypatch.setattr("wszoo.weights.packs.FRAME", 16_384)
    monkeypatch.setattr(arriving, "BATCH", 1)
    monkeypatch.setattr(arriving, "cores", lambda: 4)
    threads, decode = set(), arriving.ArrivingTensors._decode

    def watched(self, batch, part):
        threads.add(threading.get_ident())
        time.sleep(0.02)
        decode(self, batch, part)

    monkeypatch.setattr(arriving.ArrivingTensors, "_decode", watched)
    given, config = several(store, count=1, size=100_000)
    stream = arrivals()
    stream.expect(PackReader(store.blobs, config), ["c0"], here=config.packs)
    stream.end()
    ((_, tensor, data),) = taken(stream)
    np.testing.assert_array_equal(tensor.shaped(data), given[0].array())
    assert len(threads) == 4


def test_what_was_being_decoded_at_the_end_of_interest_is_not_waited_for(store, arrivals):
    _, config = several(store, count=6)
    stream = arrivals(ahead=1)
    stream.expect(PackReader(store.blobs, config), ["c0"], here=config.packs)
    stream.close()
    assert stream.take() is None


def test_nothing_is_decoded_after_the_end_of_interest(store, arrivals):
    _, config = several(store, count=2)
    stream = arrivals()
    stream.close()
    stream.expect(PackReader(store.blobs, config), ["c0"], here=config.packs)
    stream.end()
    assert stream.take() is None
