"""Blobs: whole or absent, checked when read, shared by threads and processes."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import workers
from builders import age, leftovers, snapshot

from wszoo.digest import Digest
from wszoo.errors import IntegrityError, LimitError, NotFoundError, StorageError
from wszoo.store import files
from wszoo.store.gc import collect
from wszoo.store.store import Store


@pytest.mark.parametrize("data", [b"", b"x", bytes(10_000), np.arange(100, dtype=np.float32)])
def test_what_is_put_can_be_read_and_mapped(store, data):
    digest, raw = store.blobs.put(data), bytes(memoryview(data).cast("B"))
    assert digest == Digest.of(raw)
    assert store.blobs.read(digest, limit=len(raw)) == raw
    assert store.blobs.map(digest).tobytes() == raw
    assert store.blobs.size(digest) == len(raw)
    assert list(store.blobs.all()) == [digest]
    store.blobs.check(digest)
    assert leftovers(store) == []


def test_mapped_blobs_are_read_only(store):
    mapped = store.blobs.map(store.blobs.put(b"abc"))
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 0


def test_a_missing_blob_is_named_with_advice(store):
    absent = Digest.of(b"absent")
    assert store.blobs.size(absent) is None
    assert not store.blobs.hold(absent)
    for use in (
        lambda: store.blobs.read(absent, limit=1),
        lambda: store.blobs.map(absent),
        lambda: store.blobs.check(absent),
    ):
        with pytest.raises(NotFoundError) as caught:
            use()
        assert absent in caught.value.message
        assert "pull" in caught.value.hint


def test_reading_checks_size_and_content(store):
    digest = store.blobs.put(b"0123456789")
    with pytest.raises(LimitError, match="larger than the 9 bytes"):
        store.blobs.read(digest, limit=9)
    store.blobs.path(digest).write_bytes(b"012345678X")
    for use in (lambda: store.blobs.read(digest, limit=10), lambda: store.blobs.check(digest)):
        with pytest.raises(IntegrityError) as caught:
            use()
        assert str(store.blobs.path(digest)) in caught.value.message


def test_a_writer_that_raises_leaves_nothing(store):
    before = snapshot(store.layout.root)
    with suppress(ZeroDivisionError), store.blobs.writer() as writer:
        writer.write(b"half")
        writer.write(bytes(1 // 0))
    assert snapshot(store.layout.root) == before


def test_an_error_of_the_network_is_not_taken_for_one_of_the_disk(store):
    with pytest.raises(ConnectionResetError), store.blobs.writer():
        raise ConnectionResetError
    assert leftovers(store) == []


def test_a_writer_refuses_content_of_another_digest(store):
    before = snapshot(store.layout.root)
    with pytest.raises(IntegrityError, match="is damaged: expected"), store.blobs.writer(Digest.of(b"a")) as writer:
        writer.write(b"b")
    assert snapshot(store.layout.root) == before


def test_a_writer_takes_any_buffer_in_pieces(store):
    with store.blobs.writer() as writer:
        writer.write(b"ab")
        writer.write(memoryview(b"cd"))
        writer.write(np.array([1, 2], np.uint16))
    assert writer.size == 8
    assert store.blobs.read(writer.digest(), limit=8) == b"abcd\1\0\2\0"


def test_files_of_others_among_the_blobs_are_passed_over(store):
    for name in ("desktop.ini", ".DS_Store", "A" * 64, "0" * 63):
        (store.layout.blobs / name).touch()
    assert list(store.blobs.all()) == []


def test_the_same_blob_from_many_threads_at_once(store):
    data, failures = os.urandom(1 << 20), []
    gate = threading.Barrier(8)

    def work():
        gate.wait()
        try:
            for _ in range(5):
                store.blobs.check(store.blobs.put(data))
        except Exception as error:  # noqa: BLE001 - reported below
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(store.blobs.all()) == [Digest.of(data)]
    assert leftovers(store) == []


def test_the_same_blob_from_several_processes_at_once(tmp_path):
    data, root = os.urandom(1 << 18), str(tmp_path / "new")
    found = workers.together(workers.put_blob, [(root, data, 20)] * 4)
    store = Store(Path(root))
    assert found == [{str(Digest.of(data))}] * 4
    store.blobs.check(Digest.of(data))
    assert leftovers(store) == []


def test_a_writer_killed_in_the_middle_leaves_nothing_visible_and_gc_cleans_up(store, tmp_path):
    ready = tmp_path / "ready"
    code = f"import workers; workers.write_forever({str(store.layout.root)!r}, {str(ready)!r})"
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    wait_for(ready)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list(store.blobs.all()) == []
    (unfinished,) = store.layout.tmp.iterdir()
    assert collect(store).freed_bytes == 0  # it is young: someone may be writing it
    assert unfinished.exists()
    then, unfinished_bytes = unfinished.stat().st_mtime - 7200, unfinished.stat().st_size
    os.utime(unfinished, (then, then))
    assert collect(store).freed_bytes == unfinished_bytes
    assert leftovers(store) == []


def wait_for(path, seconds=20.0):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def test_a_full_disk_leaves_nothing_and_says_what_to_do(store, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    before = snapshot(store.layout.root)
    with pytest.raises(StorageError) as caught:
        store.blobs.put(b"too much")
    assert "No space left" in caught.value.message
    assert "free some space" in caught.value.hint
    assert snapshot(store.layout.root) == before


def test_a_real_disk_that_is_full_leaves_nothing(small_disk):
    folder, says = small_disk
    store = Store(folder / "store")
    small = store.blobs.put(b"fits")
    with pytest.raises(StorageError) as caught:
        store.blobs.put(os.urandom(8 << 20))
    assert says in caught.value.message
    assert "use another store" in caught.value.hint
    assert list(store.blobs.all()) == [small]
    assert leftovers(store) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB where one may be mounted, else a limit of 2 MiB a file; and what the system then says."""
    folder, limit = tmp_path / "small", 2 << 20
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={limit}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        yield folder, "No space left"
        subprocess.run(["umount", str(folder)], check=True)
        return
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old_limit[1]))
    yield folder, "File too large"
    resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
    signal.signal(signal.SIGXFSZ, old_handler)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_read_only_store_can_be_read_and_says_why_it_cannot_be_written(store, monkeypatch, number):
    digest = store.blobs.put(b"kept")
    store.layout.marker.stat()

    def refuse(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "utime", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert store.blobs.read(digest, limit=4) == b"kept"
    assert store.blobs.map(digest).tobytes() == b"kept"
    assert store.blobs.put(b"kept") == digest  # it is there: nothing needs writing
    with pytest.raises(StorageError) as caught:
        store.blobs.put(b"new")
    assert str(store.layout.root) in caught.value.message
    assert "--store" in caught.value.hint


def test_a_file_in_place_of_the_store_is_told(tmp_path):
    (tmp_path / "store").write_bytes(b"")
    store = Store(tmp_path / "store")
    with pytest.raises(StorageError, match="cannot create the store"):
        store.blobs.put(b"x")
    with pytest.raises(StorageError, match="cannot read blob"):
        store.blobs.read(Digest.of(b"x"), limit=1)


def test_a_blob_that_another_process_has_mapped_on_windows_is_not_replaced(store, monkeypatch):
    digest = store.blobs.put(b"mapped")

    def replace(source, target):
        raise PermissionError(errno.EACCES, "in use", str(target))

    monkeypatch.setattr(files, "os", SimpleNamespace(**{**vars(os), "name": "nt", "replace": replace}))
    monkeypatch.setattr(files.time, "sleep", lambda _: None)
    monkeypatch.setattr(files, "sync_folder", lambda _: None)
    with store.blobs.writer(digest) as writer:
        writer.write(b"mapped")
    assert leftovers(store) == []
    with pytest.raises(StorageError, match="store a blob"), store.blobs.writer() as writer:
        writer.write(b"another")
    assert leftovers(store) == []


def test_holding_a_blob_makes_it_young(store):
    digest = store.blobs.put(b"old")
    age(store)
    old = store.blobs.path(digest).stat().st_mtime
    assert store.blobs.hold(digest)
    assert store.blobs.path(digest).stat().st_mtime > old + 7000


def test_reading_a_small_blob_makes_no_room_for_the_largest_that_is_allowed(store):
    digest = store.blobs.put(b"small")
    tracemalloc.start()
    assert store.blobs.read(digest, limit=1 << 30) == b"small"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("damage", [b"", b"0123", b"01234567X9", b"0123456789 and more"])
def test_putting_a_blob_again_mends_a_damaged_one(store, damage):
    digest = store.blobs.put(b"0123456789")
    store.blobs.path(digest).write_bytes(damage)
    assert store.blobs.put(b"0123456789") == digest
    store.blobs.check(digest)


def test_putting_a_blob_that_is_here_does_not_write_it_again(store):
    digest = store.blobs.put(b"0123456789")
    before = store.blobs.path(digest).stat().st_ino
    store.blobs.put(b"0123456789")
    assert store.blobs.path(digest).stat().st_ino == before
