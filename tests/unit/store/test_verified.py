"""A verify that was interrupted goes on where it stopped, and believes nothing that is old or has changed."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from builders import age, snapshot

from wszoo.progress import Silent
from wszoo.store import verified, verify
from wszoo.store.files import unique_name
from wszoo.store.gc import collect


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Note every file at once."""
    monkeypatch.setattr(verified, "PATIENCE", 0.0)


class Stops(Silent):
    """Interrupts after some files."""

    def __init__(self, after):
        self.left = after

    def stage(self, label, total=None, unit="B"):
        from contextlib import nullcontext

        return nullcontext(self._advance)

    def _advance(self, _):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def spoil(path):
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def interrupted(store, after=5):
    with pytest.raises(KeyboardInterrupt):
        verify.verify(store, Stops(after))


def test_files_that_were_hashed_before_the_interrupt_are_not_hashed_again(origin):
    count = len(set(origin.blobs.all()))
    interrupted(origin)
    report = verify.verify(origin)
    assert (report.resumed, report.checked) == (5, count - 5)
    assert report.problems == ()
    assert list(origin.layout.verifying.iterdir()) == []
    assert verify.verify(origin).resumed == 0


def test_several_interrupts_add_up(origin):
    for _ in range(3):
        interrupted(origin, after=3)
    assert verify.verify(origin).resumed == 9


def test_damage_that_was_found_before_the_interrupt_is_found_again(origin):
    largest = max(origin.layout.blobs.iterdir(), key=lambda path: path.stat().st_size)
    spoil(largest)
    interrupted(origin)
    assert [problem.path for problem in verify.verify(origin).problems] == [str(largest)]


@pytest.mark.parametrize("change", ["bytes", "time"])
def test_a_file_that_has_changed_since_is_hashed_again(origin, change):
    interrupted(origin)
    largest = max(origin.layout.blobs.iterdir(), key=lambda path: path.stat().st_size)
    if change == "bytes":
        spoil(largest)
    else:
        os.utime(largest)
    report = verify.verify(origin)
    assert report.resumed == 4
    assert len(report.problems) == (change == "bytes")


def test_notes_are_believed_for_a_day_and_no_longer(origin, monkeypatch):
    interrupted(origin)
    now = verified.file_system_time(origin.layout)
    for later, resumed in ((verified.MAX_AGE - 60, 5), (verified.MAX_AGE + 60, 0), (-3600, 0)):
        monkeypatch.setattr(verified, "file_system_time", lambda _, later=later: now + later)
        with verified.Journal(origin.layout) as journal:
            journal._old, found = [], len(journal.before)
        assert found == resumed


def test_fresh_hashes_everything(origin):
    interrupted(origin)
    report = verify.verify(origin, fresh=True)
    assert (report.resumed, report.checked) == (0, len(set(origin.blobs.all())))


@pytest.mark.parametrize(
    "notes", [b"", b"\n", b"nan\n", b"x", b"\xff\xfe", b"0\n" + b"a" * 10_000, b"9e999\n", b"1e3\nnot a line\n"]
)
def test_notes_that_are_damaged_are_not_believed(origin, notes):
    origin.layout.verifying.mkdir(exist_ok=True)
    (origin.layout.verifying / unique_name()).write_bytes(notes)
    assert verify.verify(origin).resumed == 0


def test_a_note_that_was_being_written_counts_for_nothing(origin):
    interrupted(origin)
    (notes,) = origin.layout.verifying.iterdir()
    notes.write_bytes(notes.read_bytes()[:-1])
    assert verify.verify(origin).resumed == 4


def test_a_short_run_leaves_nothing_behind(origin, monkeypatch):
    monkeypatch.setattr(verified, "PATIENCE", 2.0)
    before = snapshot(origin.layout.root)
    interrupted(origin)
    verify.verify(origin)
    assert snapshot(origin.layout.root) == before


def test_a_store_that_cannot_be_written_is_verified_all_the_same(origin, monkeypatch):
    from pathlib import Path

    true = Path.open

    def refuse(path, mode="r", *args, **kwargs):
        if "r" not in mode:
            raise PermissionError
        return true(path, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    assert verify.verify(origin).problems == ()


def test_gc_deletes_old_notes(origin):
    interrupted(origin)
    for path in origin.layout.verifying.iterdir():
        os.utime(path, (1, 1))
    age(origin)
    collect(origin)
    assert list(origin.layout.verifying.iterdir()) == []


def test_a_verify_that_is_killed_is_resumed_by_another_process(origin):
    code = (
        "import sys, time; from pathlib import Path; from wszoo.store import verified, verify; "
        "from wszoo.store.store import Store; verified.PATIENCE = 0.0; true = verify._hash; "
        "verify._hash = lambda file: (time.sleep(0.05), true(file))[1]; "
        "verify.verify(Store(Path(sys.argv[1])))"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(origin.layout.root)])
    end = time.monotonic() + 20
    while not sum(path.read_bytes().count(b"\n") for path in origin.layout.verifying.glob("*")) > 3:
        assert time.monotonic() < end
        time.sleep(0.005)
    child.kill()
    child.wait()
    assert verify.verify(origin).resumed >= 3
