"""Pushing: what goes first, what is refused, and what is tried again."""

from __future__ import annotations

import shutil
import threading

import pytest
from builders import around, snapshot

from wszoo.distribution import push as push_module
from wszoo.distribution.pull import pull
from wszoo.distribution.push import push
from wszoo.errors import IntegrityError, NotFoundError, RemoteError, UsageError
from wszoo.names import Ref
from wszoo.publish import read_published
from wszoo.remotes.directory import DirectoryRemote
from wszoo.remotes.protocol import writable
from wszoo.schema.oci import MANIFEST
from wszoo.store.store import Store
from wszoo.store.verify import verify

REF = Ref.parse("net:1")


class Watched(DirectoryRemote):
    """A folder that notes what is put, and fails when told to."""

    def __init__(self, root):
        super().__init__(root)
        self.events = []
        self.failures = []
        self._lock = threading.Lock()

    def _fail(self):
        with self._lock:
            error = self.failures.pop(0) if self.failures else None
        if error is not None:
            raise error

    def put(self, ref, descriptor, path):
        self._fail()
        super().put(ref, descriptor, path)
        self.events.append(descriptor.media_type)

    def tag(self, ref, index, data, expected):
        self._fail()
        self.events.append("tag")
        return super().tag(ref, index, data, expected)


@pytest.fixture
def there(tmp_path):
    return Watched(tmp_path / "there")


@pytest.fixture
def pauses(monkeypatch):
    taken = []
    monkeypatch.setattr(push_module.time, "sleep", taken.append)
    return taken


def test_a_pushed_model_can_be_pulled_and_is_whole(origin, there, store):
    report = push(origin, there, REF)
    assert report.moved
    assert report.before is None
    assert report.sent_bytes == sum(each.size for each in report.sent)
    assert verify(Store(origin.layout.root)).problems == ()
    pulled = pull(store, DirectoryRemote(there._store.layout.root), REF, around())
    assert pulled.selection.index.digest == report.ref.digest


def test_manifests_follow_blobs_and_the_tag_comes_last(origin, there):
    push(origin, there, REF)
    kinds = [event if event in {MANIFEST, "tag"} else "blob" for event in there.events]
    assert kinds == sorted(kinds, key=["blob", MANIFEST, "tag"].index)
    assert kinds.count("tag") == 1


def test_a_second_push_sends_nothing(origin, there):
    push(origin, there, REF)
    there.events.clear()
    report = push(origin, there, REF)
    assert (report.sent, report.moved, there.events) == ((), False, [])
    assert report.present > 0


def test_a_dry_run_changes_nothing(origin, there):
    there._store.layout.create()
    before = snapshot(there._store.layout.root)
    report = push(origin, there, REF, dry_run=True)
    assert report.sent
    assert snapshot(there._store.layout.root) == before


def test_a_model_can_have_another_name_there(origin, there):
    push(origin, there, REF, target=Ref.parse("mine:stable"))
    assert there.refs() == [Ref.parse("mine:stable")]


def test_what_was_pulled_for_one_gpu_is_refused_before_anything_is_sent(origin, store, there):
    pull(store, DirectoryRemote(origin.layout.root), REF, around("sm89"))
    with pytest.raises(NotFoundError, match="for other GPUs not pulled"):
        push(store, there, REF)
    assert there.events == []


def test_what_was_pulled_for_every_gpu_one_by_one_is_whole(origin, store, there):
    for gpu in ("sm86", "sm89", "none"):
        pull(store, DirectoryRemote(origin.layout.root), REF, around(gpu))
    push(store, there, REF)
    assert verify(there._store).problems == ()


def test_a_place_that_was_pulled_into_becomes_whole(origin, tmp_path):
    there = Watched(tmp_path / "there")
    pull(there._store, DirectoryRemote(origin.layout.root), REF, around("sm89"))
    report = push(origin, there, REF)
    assert not report.moved
    assert report.sent
    assert there._store.refs.get(REF).held is None


@pytest.mark.parametrize("damage", ["missing", "short", "flipped"])
def test_damaged_blobs_are_not_spread(origin, there, damage):
    path = origin.blobs.path(read_published(origin, REF).model.config.packs[0])
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[:-1] if damage == "short" else bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(IntegrityError):
        push(origin, there, REF)
    assert MANIFEST not in there.events
    assert "tag" not in there.events


def test_passing_failures_are_tried_again_after_what_the_remote_asks(origin, there, pauses):
    there.failures = [RemoteError("busy", retry_after=7), RemoteError("broke off")]
    push(origin, there, REF)
    assert 7 in pauses
    assert len(pauses) == 2
    assert there.resolve(REF).digest == origin.refs.get(REF).descriptor.digest


@pytest.mark.parametrize(
    "error", [RemoteError("refused", permanent=True), RemoteError("tomorrow", retry_after=86400.0)], ids=str
)
def test_lasting_failures_are_told_at_once(origin, there, pauses, error):
    there.failures = [error] * 8
    with pytest.raises(RemoteError, match=error.message):
        push(origin, there, REF)
    assert pauses == []
    assert "tag" not in there.events


def test_who_gives_up_leaves_no_tag_and_the_next_push_goes_on(origin, there, pauses):
    there.failures = [None, None] + [RemoteError("down")] * 40
    with pytest.raises(RemoteError, match="down"):
        push(origin, there, REF)
    assert there.refs() == []
    there.failures = []
    report = push(origin, there, REF)
    assert report.present >= 2
    assert report.moved


def test_a_tag_that_moves_during_the_push_is_told(origin, two_models, there):
    class Raced(Watched):
        def put(self, ref, descriptor, path):
            if not self.refs():
                shutil.copytree(two_models.layout.blobs, self._store.layout.blobs, dirs_exist_ok=True)
                other = two_models.refs.get(Ref.parse("other:1")).descriptor
                self._store.refs.swap(REF, other, held=None, expected=None)
            super().put(ref, descriptor, path)

    raced = Raced(there._store.layout.root)
    with pytest.raises(RemoteError, match="someone else moved"):
        push(origin, raced, REF)
    assert raced.resolve(REF).digest == two_models.refs.get(Ref.parse("other:1")).descriptor.digest


def test_a_tag_whose_answer_was_lost_counts_as_done(origin, there, pauses):
    class Lossy(Watched):
        def tag(self, *arguments):
            done = super().tag(*arguments)
            if self.events.count("tag") == 1:
                raise RemoteError("the answer was lost")
            return done

    lossy = Lossy(there._store.layout.root)
    assert push(origin, lossy, REF).moved
    assert lossy.events.count("tag") == 2


def test_a_remote_that_only_reads_cannot_be_pushed_to(origin):
    class ReadOnly:
        url, trusted = "https://host/zoo", False

        def resolve(self, ref): ...
        def refs(self): ...
        def open(self, descriptor, offset=0, length=None): ...

    with pytest.raises(UsageError, match="https://host/zoo can only be read"):
        writable(ReadOnly())
