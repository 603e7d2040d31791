"""Files that are written whole or not at all, and what a full or read-only disk says."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from wszoo.errors import MalformedError, StorageError
from wszoo.store import files


def test_a_file_is_replaced_whole_and_nothing_is_left(tmp_path):
    path, scratch = tmp_path / "file", tmp_path / "tmp"
    scratch.mkdir()
    for content in (b"old", b"new and longer"):
        files.write_atomic(path, content, scratch)
        assert path.read_bytes() == content
    assert list(scratch.iterdir()) == []


def test_a_failing_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fails(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        files.write_atomic(path, b"new", tmp_path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def fails(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number), "/the/file")

    return refuse


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "free some"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only"), (errno.EACCES, "permissions")],
)
def test_an_error_of_the_system_says_what_was_done_and_what_to_do(number, advice):
    with pytest.raises(StorageError) as caught, files.storage_errors("write a blob to"):
        fails(number)()
    assert caught.value.message == f"cannot write a blob to '/the/file': {os.strerror(number)}"
    assert advice in caught.value.hint
    assert "--store" in caught.value.hint


def test_an_error_that_names_no_file_is_told_with_the_place(tmp_path):
    with pytest.raises(StorageError) as caught, files.storage_errors("take a lease in", tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write to an open file raises it
    assert caught.value.message == f"cannot take a lease in {str(tmp_path)!r}: {os.strerror(errno.ENOSPC)}"


def test_a_failure_without_a_file_name_is_told_too():
    with pytest.raises(StorageError, match="cannot sync: it broke"), files.storage_errors("sync"):
        raise OSError("it broke")


def test_too_little_room_is_known_before_the_first_byte(tmp_path):
    with pytest.raises(StorageError) as caught:
        files.check_room(tmp_path / "not" / "yet" / "there", 1 << 60, "fetch the model")
    assert f"{1 << 60} bytes are needed to fetch the model" in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert "wszoo gc" in caught.value.hint
    files.check_room(tmp_path / "x", 1, "do little")


def windows(monkeypatch, refusals):
    """``os`` as the module sees it on Windows, where a scanner holds the file for some attempts."""
    seen = []

    def replace(source, target):
        seen.append(target)
        if len(seen) <= refusals:
            raise PermissionError(errno.EACCES, "in use", str(target))
        os.replace(source, target)

    monkeypatch.setattr(files, "os", SimpleNamespace(name="nt", replace=replace))
    monkeypatch.setattr(files.time, "sleep", lambda _: None)
    return seen


def test_replacing_is_tried_again_while_a_scanner_holds_the_file(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"a")
    seen = windows(monkeypatch, refusals=3)
    files.replace(tmp_path / "a", tmp_path / "b")
    assert len(seen) == 4
    assert (tmp_path / "b").read_bytes() == b"a"


def test_replacing_gives_up_in_the_end(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"a")
    windows(monkeypatch, refusals=1000)
    with pytest.raises(PermissionError):
        files.replace(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == b"a"


def test_replacing_is_not_tried_again_on_posix(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.replace(tmp_path / "a", tmp_path / "b")


def test_folders_are_not_synced_on_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "os", SimpleNamespace(name="nt"))  # no open, no fsync: using them would fail
    files.sync_folder(tmp_path)


@pytest.mark.parametrize("system", ["linux", "win32", "darwin"])
def test_the_disk_may_begin_with_a_part_of_a_file_before_it_is_synced(tmp_path, monkeypatch, system):
    monkeypatch.setattr(files.sys, "platform", system)
    files._sync_file_range.cache_clear()
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(bytes(20_000))
        files.begin_sync(file, 4096, 8192)
        files.begin_sync(file, 1 << 40, 8192)  # past the end is a hint as good as any
    files._sync_file_range.cache_clear()
    assert (tmp_path / "file").read_bytes() == bytes(20_000)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders_is_accepted(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", fails(number))
    files.sync_folder(tmp_path)


def test_unique_names_are_unique_and_portable():
    from wszoo.names import is_portable_file_name

    names = {files.unique_name() for _ in range(1000)}
    assert len(names) == 1000
    assert all(map(is_portable_file_name, names))


def test_a_regular_file_is_opened_and_nothing_else_is(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"data")
    with files.open_regular(path) as opened:
        assert opened.read() == b"data"
    for refused in (tmp_path, tmp_path / "link"):
        if refused.name == "link":
            refused.symlink_to(path)
        with pytest.raises(MalformedError, match="is a link, a folder or a device"):
            files.open_regular(refused)
    with pytest.raises(FileNotFoundError):
        files.open_regular(tmp_path / "nothing")


def test_a_file_that_becomes_a_pipe_or_a_link_while_it_is_opened_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "is_regular", lambda _: True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MalformedError):
        files.open_regular(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        files.open_regular(tmp_path / "link")


def test_windows_which_cannot_open_without_waiting_opens_files_too(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"data")
    monkeypatch.setattr(files, "os", SimpleNamespace(name="nt", fstat=os.fstat))
    with files.open_regular(tmp_path / "file") as opened:
        assert opened.read() == b"data"


def test_reading_a_small_file_does_not_take_the_memory_of_a_large_one(tmp_path):
    import tracemalloc

    (tmp_path / "file").write_bytes(b"data")
    tracemalloc.start()
    assert files.read_regular(tmp_path / "file", 1 << 30) == b"data"
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert files.read_regular(tmp_path / "file", 2) == b"dat", "one byte more, for who refuses it"


def test_deleting_a_link_leaves_what_it_leads_to(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    files.delete(tmp_path / "link")
    assert (tmp_path / "folder" / "file").exists()
    files.delete(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def lost(monkeypatch):
    """A network file system that renames, and says that there was nothing to rename."""
    true = os.replace

    def replace(source, target):
        true(source, target)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))

    monkeypatch.setattr(files.os, "replace", replace)


def test_a_rename_whose_answer_was_lost_is_done(tmp_path, monkeypatch):
    lost(monkeypatch)
    (tmp_path / "new").write_bytes(b"data")
    files.place(tmp_path / "new", tmp_path / "placed")
    assert (tmp_path / "placed").read_bytes() == b"data"
    files.write_atomic(tmp_path / "file", b"data", tmp_path)
    assert (tmp_path / "file").read_bytes() == b"data"


def test_a_rename_that_was_not_done_is_told(tmp_path, monkeypatch):
    def replace(source, _):
        source.unlink()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(FileNotFoundError):
        files.write_atomic(tmp_path / "file", b"new", tmp_path)
    assert (tmp_path / "file").read_bytes() == b"old"
