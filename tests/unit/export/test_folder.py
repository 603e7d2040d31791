"""A folder that appears whole or not at all, and that replaces nothing but a former export."""

from __future__ import annotations

import shutil
import subprocess
import sys
from types import SimpleNamespace

import msgspec
import pytest

from wszoo.digest import Digest
from wszoo.errors import IntegrityError, MalformedError, StorageError, UsageError
from wszoo.export.folder import MARKER, Card, export_folder
from wszoo.schema.decode import encode


def finish(folder):
    """Write the card, as every export does last."""
    card = Card(
        wszoo="1",
        format="onnx",
        ref="net:1",
        index_digest=Digest.of(b""),
        components=(),
        targets=(),
        notes=(),
        files=folder.files,
    )
    folder.write(MARKER, encode(card))


def write(target, files, *, force=False):
    with export_folder(target, force=force, needed=0) as folder:
        for name, data in files.items():
            folder.write(name, data)
        finish(folder)


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_files_appear_with_their_hashes_on_the_card(tmp_path):
    write(tmp_path / "deep" / "out", {"a": b"1", "b/c": b"22"})
    assert listing(tmp_path / "deep" / "out") == ["a", "b/c", MARKER]
    card = msgspec.json.decode((tmp_path / "deep" / "out" / MARKER).read_bytes())
    assert card["files"]["b/c"] == {"size": 2, "digest": Digest.of(b"22")}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_nothing_is_there_while_the_block_runs_or_after_it_raised(tmp_path):
    def fail():
        with export_folder(tmp_path / "out", force=False, needed=0) as folder:
            folder.write("a", b"1")
            assert not (tmp_path / "out").exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_the_former_export_as_it_was(tmp_path):
    target = tmp_path / "out"
    write(target, {"a": b"old"})
    code = (
        "import os, sys; from pathlib import Path; from wszoo.export.folder import export_folder\n"
        "with export_folder(Path(sys.argv[1]), force=True, needed=0) as folder:\n"
        "    folder.write('a', b'new'); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -9
    assert (target / "a").read_bytes() == b"old"
    assert all(path.name.startswith(".wszoo-export-") for path in tmp_path.iterdir() if path != target)
    write(target, {"a": b"new"}, force=True)
    assert (target / "a").read_bytes() == b"new"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", {"a": b"1"})
    assert listing(tmp_path / "out") == ["a", MARKER]


def test_a_former_export_is_replaced_only_when_asked(tmp_path):
    write(tmp_path / "out", {"a": b"1", "old/file": b"1"})
    with pytest.raises(UsageError, match="is not empty") as error:
        write(tmp_path / "out", {"b": b"2"})
    assert "--force" in error.value.hint
    write(tmp_path / "out", {"b": b"2"}, force=True)
    assert listing(tmp_path / "out") == ["b", MARKER]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_does_not_replace_a_folder_that_no_export_wrote(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="was not written by an export"):
        write(tmp_path / "out", {"a": b"1"}, force=True)
    assert (tmp_path / "out" / "thesis.txt").exists()


@pytest.mark.parametrize("card", [b"", b"{}", b"\xff", b"[" * 100_000, b'{"files": 1}'])
def test_force_does_not_believe_a_malformed_card(card, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MARKER).write_bytes(card)
    with pytest.raises(UsageError, match="was not written by an export"):
        write(tmp_path / "out", {"a": b"1"}, force=True)


def test_force_does_not_delete_what_was_added_to_an_export(tmp_path):
    write(tmp_path / "out", {"a": b"1"})
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"files that no export wrote: notes\.txt"):
        write(tmp_path / "out", {"a": b"2"}, force=True)


def test_a_file_in_the_way_is_left_alone(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="is a file"):
        write(tmp_path / "out", {"a": b"1"}, force=True)


def test_the_root_is_no_place_for_an_export(tmp_path):
    with pytest.raises(UsageError, match="cannot be replaced"):
        write(tmp_path.__class__(tmp_path.anchor), {"a": b"1"}, force=True)


def test_what_a_link_leads_to_is_replaced_and_not_the_link(tmp_path):
    write(tmp_path / "real", {"a": b"1"})
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link", {"a": b"2"}, force=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_bytes() == b"2"


def test_a_folder_that_was_filled_meanwhile_is_left_alone(tmp_path):
    target = tmp_path / "out"

    def race():
        with export_folder(target, force=False, needed=0) as folder:
            folder.write("a", b"1")
            target.mkdir()
            (target / "other").write_text("first")

    with pytest.raises(UsageError, match="is not empty"):
        race()
    assert listing(target) == ["other"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "/etc/x",
        "a//b",
        "",
        ".",
        "..",
        "a\\b",
        "c:x",
        "con",
        "NUL.txt",
        "a.",
        "a ",
        "a\0b",
        "x" * 300,
    ],
)
def test_a_name_that_is_no_safe_file_name_is_refused(name, tmp_path):
    with pytest.raises(MalformedError, match="cannot be a file name"):
        write(tmp_path / "out", {name: b"1"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pair", [("a", "A"), ("d/x", "D/X"), ("a", MARKER.upper())])
def test_two_names_that_differ_by_case_are_refused(pair, tmp_path):
    with pytest.raises(MalformedError, match="would be one file"):
        write(tmp_path / "out", dict.fromkeys(pair, b"1"))


def test_a_copy_of_other_bytes_is_refused_and_nothing_stays(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"tampered")
    with pytest.raises(IntegrityError, match="is damaged"), export_folder(tmp_path / "out", force=False, needed=0) as f:
        f.copy(source, "a", Digest.of(b"true"), lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_equal_files_that_move_to_one_name_become_one(tmp_path):
    with export_folder(tmp_path / "out", force=False, needed=0) as folder:
        for _ in range(2):
            folder.write("staged/w", b"same")
            folder.move("staged/w", "shared/w")
        finish(folder)
    assert listing(tmp_path / "out") == ["shared/w", MARKER]
    assert not (tmp_path / "out" / "staged").exists()


def test_too_little_space_is_said_before_the_first_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 30))
    with (
        pytest.raises(StorageError, match="are needed to write the export") as error,
        export_folder(tmp_path / "out", force=False, needed=1 << 30),
    ):
        pytest.fail("the block ran")
    assert "-o" in error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_takes_no_more_bytes_is_said_with_advice_about_the_folder(tmp_path):
    code = (
        "import resource, signal, sys; from pathlib import Path; from wszoo.export.folder import export_folder\n"
        "from wszoo.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    with export_folder(Path(sys.argv[1]), force=False, needed=0) as folder:\n"
        "        folder.write('a', bytes(1 << 20))\n"
        "except StorageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"cannot write the export to '{tmp_path}")
    assert "File too large" in done.stdout
    assert "with -o" in done.stdout
    assert list(tmp_path.iterdir()) == []
