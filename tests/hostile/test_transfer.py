"""Sources that lie about ranges, tables that lie about tensors, and leftovers that lie about what is in them."""

from __future__ import annotations

import threading
import time

import msgspec
import pytest
from builders import SimulatedRemote, around, publish_model, replace_in_index

from wszoo.digest import Digest
from wszoo.distribution.pull import pull
from wszoo.errors import IntegrityError, LimitError, NotFoundError, RemoteError, StorageError
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.schema.oci import Descriptor
from wszoo.store.partials import Partial, Partials
from wszoo.store.presence import present
from wszoo.store.store import Store
from wszoo.store.verify import verify
from wszoo.transfer import RemoteDocuments, Tuning, fetch

REF = Ref.parse("net:1")
DATA = bytes(range(256)) * 400
TUNING = Tuning(segment=10_000, backoff=0.001, backoff_cap=0.01, stall=0.3, poll=0.01)
BLOB = Descriptor(media_type="application/x", digest=Digest.of(DATA), size=len(DATA))


class Source:
    """Sends ``DATA`` as ``answer`` changes it."""

    trusted = True

    def __init__(self, answer=lambda data, offset, length: [data], url="mem"):
        self.url, self.answer, self.asked = url, answer, []

    def open(self, descriptor, offset=0, length=None):
        self.asked.append((offset, length))
        data = DATA[offset:] if length is None else DATA[offset : offset + length]
        yield from self.answer(data, offset, length)


def run(store, *sources, tuning=TUNING):
    first, *mirrors = sources
    fetch(first, store, [BLOB], Silent(), "x", mirrors=mirrors, tuning=tuning)
    assert store.blobs.read(BLOB.digest, limit=1 << 20) == DATA


def test_a_range_that_is_too_long_is_refused(store):
    with pytest.raises(LimitError):
        run(store, Source(lambda data, offset, length: [data, b"x"] if offset else [data]))


def test_a_middle_range_that_runs_on_to_the_end_of_the_blob_is_refused_at_the_first_byte_too_many(store):
    read = []

    def endless(data, offset, length):
        for piece in iter(lambda: bytes(1000), None):
            read.append(piece)
            yield piece

    with pytest.raises(LimitError):
        run(store, Source(endless))
    assert len(read) < TUNING.start * 2 * 11 + 50


def test_a_byte_too_many_behind_a_blob_that_is_whole_spoils_nothing(store):
    other = b"a blob that keeps the transfer going"
    second = Descriptor(media_type="application/x", digest=Digest.of(other), size=len(other))
    end_is_here, whole, told = threading.Event(), threading.Event(), threading.Event()

    class Late(Source):
        def open(self, descriptor, offset=0, length=None):
            if descriptor == second:
                told.wait(5)
                time.sleep(0.1)  # in which the blob would be fetched again, while it waits to be made durable
                yield other
                return
            if offset == 0:
                end_is_here.wait(5)
            yield from super().open(descriptor, offset, length)
            if length is None:
                end_is_here.set()
                whole.wait(5)
                told.set()
                yield b"x"

    class Follower:
        def arrived(self, blob, path):
            if blob == BLOB.digest:
                whole.set()

        def given_up(self):
            return False

    source = Late()
    tuning = Tuning(segment=60_000, backoff=0.001, stall=10, poll=0.01)
    fetch(source, store, [BLOB, second], Silent(), "x", tuning=tuning, follower=Follower())
    assert told.is_set()
    assert sorted(source.asked, key=lambda each: each[0]) == [(0, 60_000), (60_000, None)]
    assert store.blobs.read(BLOB.digest, limit=1 << 20) == DATA


@pytest.mark.parametrize("segment", [60_000, 1 << 20])
def test_a_source_that_sends_everything_and_then_does_not_hang_up_holds_up_nothing(store, segment):
    over = threading.Event()

    def go_on(data, offset, length):
        yield data
        over.wait(20)

    began = time.monotonic()
    run(store, Source(go_on), tuning=Tuning(segment=segment, stall=0.3))
    assert time.monotonic() - began < 5
    over.set()


def test_a_source_that_sends_another_range_is_found_out_and_a_good_one_takes_over(store):
    shifted = Source(lambda data, offset, length: [data[1:] + data[:1]])
    with pytest.raises(IntegrityError, match=BLOB.digest):
        run(store, shifted)
    run(store, shifted, Source())


def test_empty_pieces_are_no_bytes(store):
    run(store, Source(lambda data, offset, length: [b"", data[:1], b"", data[1:], b""]))


def test_a_source_that_never_ends_without_a_byte_is_given_up(store):
    def stuck(data, offset, length):
        time.sleep(2)
        yield data

    began = time.monotonic()
    run(store, Source(stuck), Source(), tuning=Tuning(segment=1 << 20, backoff=0.3, stall=0.2))
    assert time.monotonic() - began < 1.9
    time.sleep(2)  # the thread that was stuck wakes up, and must not touch anything
    assert verify(store).problems == ()


def test_credentials_that_are_refused_are_not_tried_again(store):
    def refuse(data, offset, length):
        raise RemoteError("401", permanent=True)

    source = Source(refuse)
    with pytest.raises(RemoteError, match="401"):
        run(store, source)
    assert len(source.asked) <= TUNING.start


def test_a_failure_of_our_own_disk_is_not_blamed_on_the_source(store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wszoo.transfer.download.write_all", full)
    source = Source()
    with pytest.raises(StorageError, match="No space left"):
        run(store, source)
    assert len(source.asked) <= TUNING.start
    assert BLOB.digest not in set(store.blobs.all())


def leftover(store, data, done, header=None):
    """What a dead process left."""
    with present(store.layout) as owner:
        partial, _ = Partials(store.layout, owner).open(BLOB.digest, BLOB.size, TUNING.segment)
        partial.data.write_bytes(data)
        text = header or f"{BLOB.size} {TUNING.segment}\n"
        (partial.folder / "done").write_text(text + "".join(f"{number}\n" for number in done))
    return partial


def test_what_a_dead_process_left_is_used(store):
    leftover(store, DATA, [0, 1, 2, 5])
    source = Source()
    run(store, source)
    assert sum(min(length or 1 << 30, BLOB.size - offset) for offset, length in source.asked) == BLOB.size - 40_000
    assert list(store.layout.partials.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "done", "header"),
    [
        (bytes(len(DATA)), range(11), None),
        (DATA[:5], range(11), None),
        (b"", [], None),
        (DATA, [99, 10**18], None),
        (DATA, [0], "12 34\n"),
        (DATA, [0], "\0\0\0"),
        (DATA, ["", "x", "-1", "0x1"], None),
    ],
    ids=["zeros", "cut", "empty", "numbers", "other cut", "garbage", "words"],
)
def test_leftovers_that_lie_cost_time_and_nothing_else(store, data, done, header):
    leftover(store, data, done, header)
    run(store, Source())
    assert list(store.layout.partials.iterdir()) == []


def test_a_segment_that_was_being_noted_counts_for_nothing(store):
    partial = leftover(store, DATA, [0])
    with (partial.folder / "done").open("a") as file:
        file.write("1")
    assert Partial(partial.folder, partial.size, partial.segment).done() == {0}


def test_documents_come_from_a_mirror_when_the_first_source_lies_or_lacks_them(origin, tmp_path):
    index = origin.refs.get(REF).descriptor
    liar = SimulatedRemote(origin)
    liar.tamper[index.digest] = lambda data: iter([data[:-1] + b"x"])
    bare = Store(tmp_path / "bare")
    bare.layout.create()
    good = SimulatedRemote(origin)
    for bad in (liar, SimulatedRemote(bare)):
        assert RemoteDocuments(bad, (good,)).read(index, limit=1 << 20)
    with pytest.raises(IntegrityError):
        RemoteDocuments(liar, (SimulatedRemote(bare),)).read(index, limit=1 << 20)
    with pytest.raises(NotFoundError):
        RemoteDocuments(SimulatedRemote(bare)).read(index, limit=1 << 20)


def test_a_table_that_leads_past_its_pack_is_no_reason_to_ask_for_such_ranges(store, origin, tmp_path):
    pull(store, SimulatedRemote(origin), REF, around())
    away = Store(tmp_path / "away")
    publish_model(away, "net:1", seed=0, width=64)

    def stretch(config):
        frames = {
            digest: tuple(msgspec.structs.replace(frame, offset=frame.offset + (1 << 40)) for frame in at)
            for digest, at in config.frames.items()
        }
        return msgspec.structs.replace(config, frames=frames)

    replace_in_index(away, "net:1", model_config=stretch)
    pull(store, SimulatedRemote(away), REF, around())
    assert verify(store).problems == ()
