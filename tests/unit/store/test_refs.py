"""Refs: compare-and-swap, a derived index.json, other tools' layouts, and damage."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from pathlib import Path

import pytest
import workers
from builders import SimulatedRemote, around, leftovers, publish_model, snapshot

from wszoo.digest import Digest
from wszoo.distribution.pull import pull
from wszoo.errors import IntegrityError, LimitError, MalformedError, NotFoundError, StorageError, UsageError
from wszoo.names import Ref, is_portable_file_name
from wszoo.schema.decode import decode, encode
from wszoo.schema.oci import INDEX, MANIFEST, REF_NAME, Descriptor, Index
from wszoo.store import files, refs
from wszoo.store.models import known_models
from wszoo.store.store import Store

A, B = (Descriptor(media_type=INDEX, digest=Digest.of(text), size=1) for text in (b"a", b"b"))
REF = Ref.parse("net:1")


def point(store, text, descriptor, held=None):
    ref = Ref.parse(text)
    return store.refs.swap(ref, descriptor, held=held, expected=store.refs.find(ref))


def listed(store):
    index = decode(store.layout.index.read_bytes(), Index, what="index.json")
    return {each.annotations[REF_NAME]: each.digest for each in index.manifests}


def test_a_new_store_has_no_refs_and_reading_it_makes_nothing(tmp_path):
    store = Store(tmp_path / "store")
    assert store.refs.find(REF) is None
    assert store.refs.all() == []
    with pytest.raises(NotFoundError, match="no net:1 in"):
        store.refs.get(REF)
    assert not store.layout.root.exists()


def test_a_ref_is_found_after_it_was_made(store):
    assert point(store, "net:1", A, held=(B.digest,))
    entry = store.refs.get(REF)
    assert (entry.ref, entry.descriptor, entry.held) == (REF, A, (B.digest,))
    assert listed(store) == {"net:1": A.digest}
    assert leftovers(store) == []


def test_a_pin_must_match(store):
    point(store, "net:1", A)
    assert store.refs.find(REF.pinned(A.digest)) is not None
    assert store.refs.find(REF.pinned(B.digest)) is None


def test_an_unknown_tag_lists_those_that_exist(store):
    for tag in ("net:2", "net:3", "other:1"):
        point(store, tag, A)
    with pytest.raises(NotFoundError) as caught:
        store.refs.get(REF)
    assert caught.value.hint == "there is: net:2, net:3"


def test_swapping_fails_when_the_ref_is_not_as_expected(store):
    point(store, "net:1", A)
    before = store.refs.find(REF)
    assert not store.refs.swap(REF, B, held=None, expected=None)
    point(store, "net:1", B)
    assert not store.refs.swap(REF, A, held=None, expected=before)
    assert store.refs.get(REF).descriptor == B


def test_swapping_fails_when_only_what_is_held_changed(store):
    point(store, "net:1", A, held=())
    before = store.refs.find(REF)
    point(store, "net:1", A, held=(B.digest,))
    assert not store.refs.swap(REF, A, held=None, expected=before)
    assert store.refs.get(REF).held == (B.digest,)


def test_a_deleted_ref_is_gone_and_can_be_made_again(store):
    point(store, "net:1", A)
    point(store, "net:2", B)
    assert store.refs.swap(REF, None, held=None, expected=store.refs.find(REF))
    assert store.refs.find(REF) is None
    assert listed(store) == {"net:2": B.digest}
    assert point(store, "net:1", B)
    assert store.refs.get(REF).generation == 3
    assert listed(store) == {"net:1": B.digest, "net:2": B.digest}


def test_tags_that_differ_only_in_case_are_different_refs(store):
    point(store, "net:RC", A)
    point(store, "net:rc", B)
    assert store.refs.get(Ref.parse("net:RC")).descriptor == A
    assert store.refs.get(Ref.parse("net:rc")).descriptor == B
    names = [path.name for path in store.layout.refs.iterdir()]
    assert len({name.lower() for name in names}) == 2


@pytest.mark.parametrize("tag", ["con:1", "nul:latest", "aux/prn:com1", "a:" + "t" * 128, "n" * 200])
def test_every_ref_is_kept_under_names_that_all_systems_accept(store, tag):
    point(store, tag, A)
    below = [part for path in store.layout.private.rglob("*") for part in path.relative_to(store.layout.root).parts]
    assert all(map(is_portable_file_name, below))
    assert max(len(str(path.relative_to(store.layout.root))) for path in store.layout.root.rglob("*")) < 100


def test_old_generations_are_pruned_but_for_the_last(store):
    for number in range(20):
        point(store, "net:1", A if number % 2 else B)
    (folder,) = store.layout.refs.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["00000019", "00000020"]


def test_no_update_is_lost_between_processes(tmp_path):
    root = str(tmp_path / "new")
    workers.together(workers.append_plans, [(root, "net:1", worker, 15) for worker in range(4)])
    held = Store(Path(root)).refs.get(REF).held
    assert set(held) == {Digest.of(f"{worker} {number}".encode()) for worker in range(4) for number in range(15)}
    assert leftovers(Store(Path(root))) == []


def test_a_writer_that_slept_through_a_prune_is_told(store, monkeypatch):
    """Its generation's folder is free again: the rename succeeds, and the update would be lost without a word."""
    point(store, "net:1", A)
    rename, slept = os.rename, []

    def slow(source, target):
        if not slept:
            slept.append(target)
            for _ in range(3):
                assert point(store, "net:1", B)
        rename(source, target)

    monkeypatch.setattr(os, "rename", slow)
    before = store.refs.find(REF)
    assert not store.refs.swap(REF, A, held=(A.digest,), expected=before)
    assert slept[0].name == "00000002"
    assert store.refs.get(REF).descriptor == B
    assert point(store, "net:1", A)
    (folder,) = store.layout.refs.iterdir()
    assert len(list(folder.iterdir())) == 2


def test_index_json_is_complete_after_processes_raced_for_it(tmp_path):
    root = str(tmp_path / "new")
    workers.together(workers.publish_tags, [(root, worker, 6) for worker in range(4)])
    store = Store(Path(root))
    expected = {f"m:{w}-{n}": Digest.of(f"{w}{n}".encode()) for w in range(4) for n in range(6)}
    assert listed(store) == expected
    assert {entry.ref.tagged: entry.descriptor.digest for entry in store.refs.all()} == expected


def lose_answers(store, monkeypatch, times):
    """As over NFS: the answers to renames of ``index.json`` are lost, and by then another host has written its own."""
    lost = []

    def replace(source, target):
        os.replace(source, target)
        if target == store.layout.index and len(lost) < times:
            lost.append(target)
            target.write_bytes(encode(Index(manifests=())))
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))

    monkeypatch.setattr(files, "replace", replace)
    return lost


def test_index_json_is_written_again_when_another_host_wrote_and_an_answer_was_lost(store, monkeypatch):
    lost = lose_answers(store, monkeypatch, times=3)
    assert point(store, "net:1", A)
    assert len(lost) == 3
    assert listed(store) == {"net:1": A.digest}


def test_a_file_system_that_never_tells_of_a_rename_is_told(store, monkeypatch):
    lose_answers(store, monkeypatch, times=1000)
    with pytest.raises(StorageError, match="cannot update a ref in"):
        point(store, "net:1", A)
    monkeypatch.undo()
    assert store.refs.get(REF).descriptor == A


def test_a_ref_can_be_read_while_it_is_updated(store):
    point(store, "net:1", A)
    stop, seen, failures = threading.Event(), set(), []

    def read():
        while not stop.is_set():
            try:
                seen.add(store.refs.get(REF).descriptor.digest)
                store.refs.all()
            except Exception as error:  # noqa: BLE001 - reported below
                failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(60):
        assert point(store, "net:1", A if number % 2 else B)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert seen == {A.digest, B.digest}


@pytest.mark.parametrize("name", [".DS_Store", "desktop.ini", "²", "lost+found"])
def test_files_of_the_system_among_the_refs_are_passed_over(store, name):
    point(store, "net:1", A)
    (folder,) = store.layout.refs.iterdir()
    (store.layout.refs / name).write_bytes(b"")
    (folder / name).write_bytes(b"")
    assert [entry.ref for entry in store.refs.all()] == [REF]
    assert point(store, "net:1", B)


def damaged(store, content):
    point(store, "net:1", A)
    (record,) = store.layout.refs.rglob("record.json")
    record.write_bytes(content)
    return record


@pytest.mark.parametrize("content", [b"", b"{", b'{"ref":"net:1","descriptor":{}}', b"\0" * 200])
def test_a_damaged_record_is_named_with_what_to_delete(store, content):
    record = damaged(store, content)
    for use in (lambda: store.refs.find(REF), store.refs.all, lambda: point(store, "net:1", B)):
        with pytest.raises(MalformedError) as caught:
            use()
        assert str(record.parent) in caught.value.message
        assert str(record.parent.parent) in caught.value.hint


def test_a_record_of_an_impossible_index_is_refused(store):
    size = 1 << 40
    point(store, "net:1", Descriptor(media_type=INDEX, digest=A.digest, size=1))
    (record,) = store.layout.refs.rglob("record.json")
    record.write_bytes(record.read_bytes().replace(b'"size":1', b'"size":%d' % size))
    with pytest.raises(IntegrityError, match=f"claims {size} bytes"):
        store.refs.find(REF)


def test_an_index_that_nobody_could_read_back_is_not_published(store):
    point(store, "net:1", A)
    with pytest.raises(LimitError, match="4194305 bytes"):
        point(store, "net:1", Descriptor(media_type=INDEX, digest=B.digest, size=(4 << 20) + 1))
    assert store.refs.get(REF).descriptor == A


def test_one_damaged_record_does_not_stop_work_on_other_refs(store, origin):
    damaged(store, b"{")
    pull(store, SimulatedRemote(origin), REF, around(), dry_run=True)
    assert point(store, "net:2", B)
    assert listed(store) == {"net:2": B.digest}
    assert list(known_models(store, last=REF)) == []
    entries, damage = store.refs.survey()
    assert [entry.ref.tagged for entry in entries] == ["net:2"]
    assert len(damage) == 1


def as_other_tool(store, **changes):
    """The layout as skopeo leaves it: nothing of wszoo's own, and what it keeps in index.json."""
    import shutil

    shutil.rmtree(store.layout.private)
    document = json.loads(store.layout.index.read_bytes())
    document["manifests"] += changes.get("more", [])
    store.layout.index.write_text(json.dumps(document, indent=1))
    return document


def test_a_layout_of_another_tool_is_read_and_not_changed(origin):
    before = origin.refs.get(REF)
    as_other_tool(origin)
    content = snapshot(origin.layout.root)
    assert [entry.ref for entry in origin.refs.all()] == [REF]
    assert origin.refs.get(REF).descriptor.digest == before.descriptor.digest
    assert snapshot(origin.layout.root) == content


def test_a_layout_of_another_tool_is_adopted_at_the_first_write(origin):
    digest = origin.refs.get(REF).descriptor.digest
    as_other_tool(origin)
    assert point(origin, "other:1", B)
    assert listed(origin) == {"net:1": digest, "other:1": B.digest}
    assert [entry.ref.tagged for entry in origin.refs.all()] == ["net:1", "other:1"]
    assert origin.refs.get(REF).held is None


def test_a_model_can_be_published_over_an_adopted_one(origin):
    as_other_tool(origin)
    publish_model(origin, "net:1", targets=("rtx-sm120",), portable=False)
    from wszoo.publish import read_published

    targets = {plan.config.target.name for plan in read_published(origin, REF).plans}
    assert targets == {"rtx-sm86", "rtx-sm89", "rtx-sm120", "portable"}


FOREIGN = [
    {"mediaType": INDEX, "digest": A.digest, "size": 1},
    {"mediaType": INDEX, "digest": A.digest, "size": 1, "annotations": {REF_NAME: "Docker.io/Library:X"}},
    {"mediaType": MANIFEST, "digest": A.digest, "size": 1, "annotations": {REF_NAME: "debian:13"}},
]


@pytest.mark.parametrize("entry", FOREIGN, ids=["untagged", "another grammar", "an image"])
def test_what_another_tool_keeps_is_never_dropped_or_collected(origin, entry):
    as_other_tool(origin, more=[entry])
    content = snapshot(origin.layout.root)
    assert [each.ref for each in origin.refs.all()] == [REF]
    from wszoo.store.gc import collect

    for use in (lambda: point(origin, "other:1", B), lambda: collect(origin, grace=0)):
        with pytest.raises(UsageError) as caught:
            use()
        assert A.digest in caught.value.message
        assert "--store" in caught.value.hint
    now = {name: data for name, data in snapshot(origin.layout.root).items() if not name.startswith("wszoo")}
    assert now == content


def test_an_unreadable_index_json_of_another_tool_is_told(origin):
    as_other_tool(origin)
    origin.layout.index.write_bytes(b"{")
    with pytest.raises(MalformedError, match=r"index\.json"):
        origin.refs.find(REF)
    with pytest.raises(MalformedError, match=r"index\.json"):
        point(origin, "net:1", A)


def test_index_json_is_an_oci_index_that_other_tools_read(origin):
    document = json.loads(origin.layout.index.read_bytes())
    assert document["schemaVersion"] == 2
    assert document["mediaType"] == INDEX
    (entry,) = document["manifests"]
    assert entry["mediaType"] == INDEX
    assert entry["annotations"] == {REF_NAME: "net:1"}
    assert json.loads(origin.layout.marker.read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert encode(decode(origin.layout.index.read_bytes(), Index, what="i")) == origin.layout.index.read_bytes()


def test_where_a_ref_was_pulled_from_is_remembered_and_takes_no_room_where_it_was_not(store):
    point(store, "net:1", A)
    store.refs.swap(Ref.parse("net:2"), B, held=None, expected=None, source="https://zoo.example")
    assert [entry.source for entry in store.refs.all()] == ["", "https://zoo.example"]
    records = [path.read_bytes() for path in store.layout.refs.rglob("record.json")]
    assert sorted(b"source" in record for record in records) == [False, True]


def test_a_name_that_is_nearly_there_is_suggested_and_signatures_are_not(store):
    point(store, "digits:1", A)
    point(store, "digit:sha256-" + "0" * 64, B)
    with pytest.raises(NotFoundError) as caught:
        store.refs.get(Ref.parse("digit:1"))
    assert caught.value.hint == "did you mean 'digits'?"


def test_a_ref_that_was_deleted_by_hand_and_made_again_is_read_again(store):
    assert point(store, "net:1", A)
    assert store.refs.find(REF).descriptor == A
    for folder in store.layout.refs.iterdir():
        shutil.rmtree(folder)
    assert Store(store.layout.root).refs.swap(REF, B, held=None, expected=None)
    assert store.refs.find(REF).descriptor == B


def test_records_that_did_not_change_are_read_once(store, monkeypatch):
    for number in range(5):
        assert point(store, f"net:{number}", A)
    fresh, read = Store(store.layout.root), []
    monkeypatch.setattr(refs, "_read_record", lambda path, real=refs._read_record: (read.append(path), real(path))[1])
    assert len(fresh.refs.all()) == len(fresh.refs.all()) == 5
    assert point(fresh, "net:0", B)
    assert len(read) == 5 + 1
