"""Unfinished blobs have one owner each, and the dead are told from the living."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import types

import pytest
from faults.disk import Disk

from wszoo.digest import Digest
from wszoo.errors import StorageError
from wszoo.store import files, presence
from wszoo.store.gc import collect
from wszoo.store.partials import Partials
from wszoo.store.presence import State, present, state

KEY = Digest.of(b"blob")


@pytest.fixture
def first(store):
    with present(store.layout) as owner:
        yield Partials(store.layout, owner)


@pytest.fixture
def second(store):
    with present(store.layout) as owner:
        yield Partials(store.layout, owner)


def ended(store):
    """An owner of a process that is over."""
    code = "import os; print(os.getpid())"
    pid = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    with present(store.layout) as owner:
        name = f"{pid}-{owner.partition('-')[2]}"
        (store.layout.partials / f"{name}.alive").write_text((store.layout.partials / f"{owner}.alive").read_text())
    return name


def silence(store, owner):
    path = store.layout.partials / f"{owner}.alive"
    then = path.stat().st_mtime - presence.EXPIRE - 5
    os.utime(path, (then, then))


def test_an_owner_is_alive_while_its_block_runs(store):
    with present(store.layout) as owner:
        assert state(store.layout, owner) is State.ALIVE
    assert state(store.layout, owner) is State.GONE
    assert list(store.layout.partials.iterdir()) == []


def test_an_owner_whose_process_ended_is_gone_at_once(store):
    assert state(store.layout, ended(store)) is State.GONE


def test_an_owner_on_another_machine_is_judged_by_its_silence_alone(store):
    owner = ended(store)
    (store.layout.partials / f"{owner}.alive").write_text("another machine")
    assert state(store.layout, owner) is State.ALIVE
    silence(store, owner)
    assert state(store.layout, owner) is State.SILENT


def test_presence_is_renewed(store, monkeypatch):
    import time

    monkeypatch.setattr(presence, "RENEW", 0.01)
    with present(store.layout) as owner:
        silence(store, owner)
        end = time.monotonic() + 10
        while state(store.layout, owner) is not State.ALIVE:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_one_of_two_has_the_claim(first, second):
    assert first.claim(KEY)
    assert not second.claim(KEY)
    first.release(KEY)
    assert second.claim(KEY)
    first.release(KEY)  # it is not the first's any more
    assert not first.claim(KEY)


def test_the_claim_of_a_dead_owner_is_taken_over_and_of_a_living_one_only_by_force(store, first, second):
    assert Partials(store.layout, ended(store)).claim(KEY)
    assert first.claim(KEY)
    assert not second.claim(KEY)
    assert second.claim(KEY, force=True)


@pytest.mark.parametrize("kind", ["create", "write"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO])
def test_a_claim_that_cannot_be_made_is_told_and_not_taken_for_anothers(store, first, kind, number):
    """Who took it for another's would wait for it for ever."""

    def refuse(step):
        if step.kind == kind:
            raise OSError(number, os.strerror(number), step.path)

    with Disk(store.layout.root, refuse).installed(), pytest.raises(StorageError, match="cannot claim a blob"):
        first.claim(KEY)
    assert first.claim(KEY)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EIO])
def test_a_dead_owners_claim_that_cannot_be_taken_over_is_told(store, first, number):
    assert Partials(store.layout, ended(store)).claim(KEY)

    def refuse(step):
        if step.kind == "rename":
            raise OSError(number, os.strerror(number), step.path)

    with Disk(store.layout.root, refuse).installed(), pytest.raises(StorageError, match="cannot claim a blob"):
        first.claim(KEY)
    assert first.claim(KEY)


def test_a_claim_that_is_being_deleted_on_windows_is_waited_for(store, first, monkeypatch):
    """As Windows answers there: no permission, for as long as somebody has the deleted file open."""
    monkeypatch.setattr(files, "_REPLACE_WAITS", (0.001,) * 5)
    windows = types.SimpleNamespace(**{**vars(os), "name": "nt"})
    monkeypatch.setattr(files, "os", windows)
    refused = []

    def refuse(step):
        if step.kind == "create" and len(refused) < 3:
            refused.append(step)
            raise PermissionError(errno.EACCES, "Permission denied", step.path)

    with Disk(store.layout.root, refuse).installed():
        assert first.claim(KEY)
    assert len(refused) == 3


def test_a_claim_of_bytes_that_are_no_name_is_taken_over(store, first):
    (store.layout.partials / f"{KEY.hex}.claim").write_bytes(b"\xff\xfe")
    assert first.claim(KEY)


def test_a_blob_is_continued_by_one_and_the_other_starts_anew(store, first, second):
    dead, _ = Partials(store.layout, ended(store)).open(KEY, 100, 10)
    dead.data.write_bytes(b"x" * 100)
    dead.note(3)
    assert first.kept(KEY, 100, 10) == 10
    mine, done = first.open(KEY, 100, 10)
    assert (done, mine.data.read_bytes()[30:40]) == ({3}, b"x" * 10)
    assert not dead.folder.exists()
    other, none = second.open(KEY, 100, 10)
    assert none == set()
    assert other.folder != mine.folder


def test_what_may_still_be_written_to_is_copied_and_not_taken(store, first):
    with present(store.layout) as owner:
        sleeping, _ = Partials(store.layout, owner).open(KEY, 95, 10)
        handle = sleeping.data.open("r+b", buffering=0)
        handle.write(b"a" * 95)
        for number in (0, 9):
            sleeping.note(number)
        silence(store, owner)
        mine, done = first.open(KEY, 95, 10)
        handle.seek(0)
        handle.write(b"b" * 95)  # it wakes up
        handle.close()
    assert done == {0, 9}
    assert mine.data.read_bytes() == b"a" * 10 + bytes(80) + b"a" * 5


def test_parts_of_several_dead_owners_are_put_together(store, first):
    for number in (1, 2, 1):
        dead, _ = Partials(store.layout, ended(store)).open(KEY, 50, 10)
        dead.note(number) if number not in dead.done() else None
    _, done = first.open(KEY, 50, 10)
    assert done == {1, 2}


def test_gc_deletes_what_the_dead_left_and_nothing_of_the_living(store, first):
    import time

    first.claim(KEY)
    mine, _ = first.open(KEY, 1000, 10)
    other = Digest.of(b"other")
    dead = Partials(store.layout, ended(store))
    dead.claim(other)
    left, _ = dead.open(other, 1000, 10)
    left.data.write_bytes(bytes(1000))
    assert collect(store).freed_bytes == 0, "young leftovers may be continued"
    time.sleep(0.02)
    assert collect(store, grace=0, dry_run=True).freed_bytes >= 1000
    assert left.folder.exists()
    collect(store, grace=0)
    assert not left.folder.exists()
    assert mine.folder.exists()
    assert sorted(path.suffix for path in store.layout.partials.iterdir() if path.is_file()) == [".alive", ".claim"]
