"""gc deletes only what nobody needs and nobody is about to need."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
import workers
from builders import SimulatedRemote, age, around, leftovers, snapshot
from faults.disk import Disk

from wszoo.digest import Digest
from wszoo.distribution.pull import pull, select_local
from wszoo.errors import IntegrityError, NotFoundError, StorageError
from wszoo.names import Ref
from wszoo.schema.decode import encode
from wszoo.schema.oci import INDEX, Descriptor
from wszoo.store import gc, leases
from wszoo.store.blobs import Blobs
from wszoo.store.documents import plan_descriptors, read_index
from wszoo.store.gc import collect
from wszoo.store.refs import Refs
from wszoo.store.store import Store
from wszoo.store.verify import verify

REF = Ref.parse("net:1")


def test_what_a_ref_reaches_is_kept_and_the_rest_deleted(origin):
    live = set(origin.blobs.all())
    garbage = {origin.blobs.put(b"garbage"), origin.blobs.put(b"more garbage")}
    age(origin)
    report = collect(origin)
    assert set(report.deleted) == garbage
    assert report.freed_bytes == len(b"garbage") + len(b"more garbage")
    assert report.kept_recent == 0
    assert set(origin.blobs.all()) == live
    assert verify(origin).problems == ()
    assert leftovers(origin) == []


def test_young_garbage_is_kept_and_counted(origin):
    young = origin.blobs.put(b"young")
    report = collect(origin)
    assert (report.deleted, report.kept_recent) == ((), 1)
    assert origin.blobs.size(young) == 5


def test_a_deleted_ref_lets_go_of_what_only_it_needs(two_models):
    origin = two_models
    live = {entry.ref.tagged: set() for entry in origin.refs.all()}
    assert set(live) == {"net:1", "other:1"}
    origin.refs.swap(REF, None, held=None, expected=origin.refs.get(REF))
    age(origin)
    assert len(collect(origin).deleted) > 5
    assert verify(origin).problems == ()
    assert select_local(origin, Ref.parse("other:1"), around()).plans


def test_a_dry_run_reports_the_same_and_changes_nothing(origin):
    origin.blobs.put(b"garbage")
    age(origin)
    before = snapshot(origin.layout.root)
    planned = collect(origin, dry_run=True)
    assert snapshot(origin.layout.root) == before
    assert planned == collect(origin)
    assert planned.deleted == (Digest.of(b"garbage"),)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_dry_run_tells_the_same_on_a_store_that_cannot_be_written_to(origin, number):
    origin.blobs.put(b"garbage")
    leftovers(origin)
    dead = origin.layout.leases / "dead.alive"
    for path in (dead, dead.with_suffix(".start")):
        path.write_bytes(b"")
    age(origin)
    for path in (*origin.layout.private.rglob("*.alive"), *origin.layout.private.rglob("*.start")):
        os.utime(path, (1, 1))
    before = snapshot(origin.layout.root)

    def refuse(step):
        raise OSError(number, os.strerror(number), step.path)

    with Disk(origin.layout.root, refuse).installed():
        planned = collect(origin, dry_run=True)
        with pytest.raises(StorageError):
            collect(origin)
    assert snapshot(origin.layout.root) == before
    assert planned == collect(origin)
    assert Digest.of(b"garbage") in planned.deleted


def test_what_is_in_a_folder_that_goes_is_counted(origin):
    """What a backend keeps of a plan: a native one with its weights may be gigabytes."""
    folder = origin.layout.runtime / Digest.of(b"a plan of no ref").hex
    folder.mkdir(parents=True)
    (folder / "weights.plan").write_bytes(bytes(3_000_000))
    for path in (folder / "weights.plan", folder):
        os.utime(path, (1, 1))
    planned = collect(origin, dry_run=True)
    assert 3_000_000 <= planned.freed_bytes < 3_100_000
    assert planned == collect(origin)
    assert not folder.exists()


def test_a_dry_run_on_a_folder_of_another_tools_without_any_of_ours_makes_none(origin, tmp_path):
    shutil.copytree(origin.layout.root, tmp_path / "bare", ignore=shutil.ignore_patterns("wszoo"))
    store = Store(tmp_path / "bare")
    before = snapshot(store.layout.root)
    assert collect(store, dry_run=True).deleted == ()
    assert snapshot(store.layout.root) == before


def test_plans_that_were_not_pulled_are_not_looked_for(store, remote):
    pull(store, remote, REF, around("sm89"))
    age(store)
    before = set(store.blobs.all())
    assert collect(store, grace=0).deleted == ()
    assert set(store.blobs.all()) == before


def test_an_index_entry_of_a_kind_from_the_future_does_not_stop_gc(store, origin):
    entry = origin.refs.get(REF)
    index = read_index(origin, entry.descriptor)
    later = Descriptor(
        media_type="application/vnd.later+json", digest=Digest.of(b"later"), size=5, artifact_type="a/signature"
    )
    data = encode(msgspec.structs.replace(index, manifests=(*index.manifests, later)))
    descriptor = Descriptor(media_type=INDEX, digest=origin.blobs.put(data), size=len(data))
    assert origin.refs.swap(REF, descriptor, held=None, expected=entry)
    pull(store, SimulatedRemote(origin), REF, around())
    store.blobs.put(b"garbage")
    age(store)
    assert collect(store).deleted == (Digest.of(b"garbage"),)
    assert verify(store).problems == ()


@pytest.mark.parametrize("what", ["index", "manifest", "record"])
@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_nothing_is_deleted_when_what_a_ref_needs_is_unknown(origin, what, how):
    entry = origin.refs.get(REF)
    plan = plan_descriptors(read_index(origin, entry.descriptor))[0]
    (record,) = origin.layout.refs.rglob("record.json")
    path = {
        "index": origin.blobs.path(entry.descriptor.digest),
        "manifest": origin.blobs.path(plan.digest),
        "record": record,
    }[what]
    origin.blobs.put(b"garbage")
    age(origin)
    if how == "damaged":
        path.write_bytes(path.read_bytes()[:-1])
    elif what == "record":
        path.write_bytes(b"")
    else:
        path.unlink()
    before = set(origin.blobs.all())
    with pytest.raises((IntegrityError, NotFoundError)):
        collect(origin, grace=0)
    assert set(origin.blobs.all()) == before


def test_a_ref_that_is_deleted_while_gc_follows_it_is_no_damage(two_models, monkeypatch):
    every, seen = Refs.all, []

    def deleted_after_it_was_listed(refs):
        listed = every(refs)
        if not seen:
            entry = refs.get(REF)
            seen.append(refs.swap(REF, None, held=None, expected=entry))
            two_models.blobs.path(entry.descriptor.digest).unlink()
        return listed

    age(two_models)
    monkeypatch.setattr(Refs, "all", deleted_after_it_was_listed)
    assert collect(two_models).deleted != ()
    assert seen == [True]
    assert verify(two_models).problems == ()


def test_a_lease_keeps_what_its_owner_wrote(store):
    with store.lease():
        mine = store.blobs.put(b"mine")
        assert collect(store, grace=-10).deleted == ()
    assert collect(store, grace=-10).deleted == (mine,)


def test_the_lease_of_another_process_keeps_what_it_wrote_until_it_expires(store, tmp_path):
    ready = tmp_path / "ready"
    code = f"import workers; workers.hold_lease({str(store.layout.root)!r}, {str(ready)!r})"
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        end = time.monotonic() + 20
        while not ready.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        assert collect(store, grace=-10).deleted == ()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert collect(store, grace=-10).deleted == ()  # nobody can know yet that it is dead
    (alive,) = store.layout.leases.glob("*.alive")
    then = alive.stat().st_mtime - leases.EXPIRE - 1
    os.utime(alive, (then, then))
    assert collect(store, grace=-10).deleted == (Digest.of(b"not reachable yet"),)
    assert list(store.layout.leases.iterdir()) == []


def test_work_that_begins_when_gc_has_looked_at_the_leases_is_safe(store, monkeypatch):
    digest, look, work = store.blobs.put(b"reused"), gc.oldest_start, []
    age(store)

    def begin_after(layout, **options):
        found = look(layout, **options)
        work.append(store.lease())
        work[0].__enter__()
        assert store.blobs.hold(digest)
        time.sleep(0.02)  # more than the clock of any file system's resolution here
        return found

    monkeypatch.setattr(gc, "oldest_start", begin_after)
    assert collect(store, grace=0).deleted == ()
    work[0].__exit__(None, None, None)
    assert store.blobs.read(digest, limit=6) == b"reused"


def test_garbage_from_before_a_lease_goes_although_the_lease_lives(store):
    old = store.blobs.put(b"old")
    age(store)
    with store.lease():
        assert collect(store, grace=0).deleted == (old,)


def test_a_lease_is_renewed_while_the_work_goes_on(store, monkeypatch):
    monkeypatch.setattr(leases, "RENEW", 0.01)
    with store.lease():
        (alive,) = store.layout.leases.glob("*.alive")
        then = alive.stat().st_mtime - 1000
        os.utime(alive, (then, then))
        end = time.monotonic() + 10
        while alive.stat().st_mtime < then + 500:
            assert time.monotonic() < end
            time.sleep(0.005)
    assert list(store.layout.leases.iterdir()) == []


def test_a_lease_ends_also_when_the_work_fails(store):
    with pytest.raises(ValueError, match="work"), store.lease():
        raise ValueError("work")
    assert list(store.layout.leases.iterdir()) == []


@pytest.fixture
def in_between(monkeypatch):
    """Do something when gc has looked at a blob's age and is about to put it aside, or has just done so."""

    def install(*, before=lambda: None, after=lambda _: None):
        put_aside = Blobs.put_aside

        def wrapped(blobs, digest):
            before()
            aside = put_aside(blobs, digest)
            after(aside)
            return aside

        monkeypatch.setattr(Blobs, "put_aside", wrapped)

    return install


def test_garbage_that_is_found_useful_between_look_and_deletion_is_kept(store, in_between):
    digest, held = store.blobs.put(b"reused"), []
    age(store)
    in_between(before=lambda: held.append(store.blobs.hold(digest)))
    assert collect(store).deleted == ()
    assert held == [True]
    assert store.blobs.read(digest, limit=6) == b"reused"
    assert leftovers(store) == []


@pytest.mark.parametrize("use", ["read", "map", "check", "size"])
def test_a_blob_that_is_read_while_gc_decides_about_it_is_found_and_kept(store, in_between, use):
    digest, seen = store.blobs.put(b"needed"), []
    age(store)
    arguments = {"limit": 6} if use == "read" else {}
    in_between(after=lambda _: seen.append(getattr(store.blobs, use)(digest, **arguments)))
    assert collect(store).deleted == ()
    assert len(seen) == 1
    assert store.blobs.read(digest, limit=6) == b"needed"
    assert leftovers(store) == []


def test_a_blob_comes_back_when_gc_is_killed_while_it_decides(store):
    digest = store.blobs.put(b"held by a pull")
    store.blobs.put_aside(digest)
    assert collect(store, dry_run=True).deleted == ()
    assert list(store.blobs.all()) == []
    assert collect(store).deleted == ()
    assert list(store.blobs.all()) == [digest]
    assert leftovers(store) == []


def test_a_second_gc_leaves_alone_what_the_first_has_put_aside(store, in_between):
    digest, reports = store.blobs.put(b"held by a pull"), []
    age(store)
    in_between(after=lambda aside: os.utime(aside) or reports or reports.append(collect(store)))
    assert collect(store).deleted == ()
    assert [report.deleted for report in reports] == [()]
    assert store.blobs.read(digest, limit=14) == b"held by a pull"
    assert leftovers(store) == []


def test_garbage_that_another_gc_took_first_is_passed_over(store, in_between):
    digest = store.blobs.put(b"garbage")
    age(store)
    in_between(before=lambda: store.blobs.path(digest).unlink())
    assert collect(store).deleted == ()
    assert store.blobs.size(digest) is None


def test_garbage_that_a_program_has_mapped_on_windows_is_left(store, monkeypatch):
    digest = store.blobs.put(b"garbage")
    age(store)

    def in_use(_blobs, _digest):
        raise PermissionError

    monkeypatch.setattr(Blobs, "put_aside", in_use)
    assert collect(store).deleted == ()
    assert store.blobs.size(digest) == 7


def test_unfinished_files_and_folders_go_when_they_are_old(store):
    for name in ("file", "folder/inner"):
        path = store.layout.tmp / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"123")
        then = path.stat().st_mtime - 7200
        os.utime(path, (then, then))
        os.utime(path.parent, (then, then))
    (store.layout.tmp / "young").write_bytes(b"")
    assert collect(store, dry_run=True).freed_bytes >= 3
    assert leftovers(store) == ["file", "folder", "young"]
    collect(store)
    assert leftovers(store) == ["young"]


def test_pulls_are_whole_while_two_gcs_run_without_grace(tmp_path, origin):
    """Pulls delete their ref each time, so everything keeps turning into garbage and back."""
    root, stop, away = str(tmp_path / "busy"), tmp_path / "stop", str(origin.layout.root)
    store = Store(Path(root))
    store.layout.create()
    expected = {
        "sm86": pulled_engine(tmp_path / "a", origin, "sm86"),
        "sm89": pulled_engine(tmp_path / "b", origin, "sm89"),
    }
    context = workers.multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        collecting = [pool.apply_async(workers.collect_until, (root, str(stop))) for _ in range(2)]
        pulls = {gpu: pool.apply_async(workers.pull_model, (root, away, "net:1", gpu, 8)) for gpu in expected}
        try:
            found = {gpu: each.get(60) for gpu, each in pulls.items()}
        finally:
            stop.touch()
        for each in collecting:
            each.get(60)
    assert found == {gpu: {engine} for gpu, engine in expected.items()}
    assert verify(store).problems == ()


def pulled_engine(root, origin, gpu):
    (engine,) = workers.pull_model(str(root), str(origin.layout.root), "net:1", gpu)
    return engine


def test_a_note_of_a_build_goes_with_the_plan_that_it_names(origin):
    from builders import plan_of

    from wszoo.store.built import recall, remember

    plan = plan_of(origin, "net:1", "rtx-sm89")
    remember(origin, plan.config, plan)
    (note,) = origin.layout.built.iterdir()
    (origin.layout.built / "garbage.json").write_bytes(b"{")
    for path in origin.layout.built.iterdir():
        os.utime(path, (1, 1))
    age(origin)
    collect(origin)
    assert list(origin.layout.built.iterdir()) == [note]
    assert recall(origin, plan.config) == plan
    origin.refs.swap(REF, None, held=None, expected=origin.refs.get(REF))
    age(origin)
    assert collect(origin, dry_run=True).freed_bytes == collect(origin).freed_bytes
    assert list(origin.layout.built.iterdir()) == []


def test_half_a_lease_that_a_killed_process_left_goes_when_it_is_old(store):
    for name in ("1-a.start", "2-b.alive"):
        (store.layout.leases / name).touch()
    collect(store)
    assert len(list(store.layout.leases.iterdir())) == 2
    for path in store.layout.leases.iterdir():
        os.utime(path, (1, 1))
    collect(store)
    collect(store)
    assert list(store.layout.leases.iterdir()) == []


def test_a_lease_of_a_process_that_runs_does_not_expire_within_a_week(store):
    with store.lease():
        (alive,) = store.layout.leases.glob("*.alive")
        for silent, kept in ((leases.EXPIRE + 60, True), (leases.EXPIRE_RUNNING + 60, False)):
            then = leases.file_system_time(store.layout) - silent
            os.utime(alive, (then, then))
            assert (leases.oldest_start(store.layout) is not None) == kept


def test_a_folder_in_place_of_garbage_is_deleted(store):
    digest = Digest.of(b"x")
    (store.blobs.path(digest) / "inner").mkdir(parents=True)
    os.utime(store.blobs.path(digest), (1, 1))
    assert collect(store).deleted == (digest,)
