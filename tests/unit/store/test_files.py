"""Files that are written whole or not at all, and what a full or read-only disk says."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from wszoo.errors import StorageError
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


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders_is_accepted(tmp_path, monkeypatch, number):
    monkeypatch.setattr(os, "fsync", fails(number))
    files.sync_folder(tmp_path)


def test_unique_names_are_unique_and_portable():
    from wszoo.names import is_portable_file_name

    names = {files.unique_name() for _ in range(1000)}
    assert len(names) == 1000
    assert all(map(is_portable_file_name, names))
