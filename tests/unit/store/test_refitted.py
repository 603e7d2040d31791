import pytest

from wszoo.errors import StorageError
from wszoo.progress import Silent
from wszoo.store.refitted import find_refitted, keep_refitted

PLAN = memoryview(b"a plan with its weights")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "new" / "folder"


def find(folder, key="key"):
    return find_refitted(folder, key, Silent())


def test_a_kept_plan_is_found_under_its_key_only(folder):
    path = keep_refitted(folder, "key", PLAN)
    assert path.read_bytes() == PLAN
    assert (find(folder), find(folder, "other")) == (path, None)
    assert sorted(each.name for each in folder.iterdir()) == ["key.plan", "key.stamp"]


@pytest.mark.parametrize("damage", [b"a plan with other weights", b"", b"a plan with its weight!"])
def test_a_plan_that_changed_is_not_found(folder, damage):
    keep_refitted(folder, "key", PLAN).write_bytes(damage)
    assert find(folder) is None


def test_a_plan_that_was_only_touched_is_hashed_and_stamped_again(folder):
    path = keep_refitted(folder, "key", PLAN)
    path.write_bytes(PLAN)
    stamp = (folder / "key.stamp").read_text()
    assert find(folder) == path
    assert (folder / "key.stamp").read_text() != stamp


@pytest.mark.parametrize("stamp", ["", "nonsense", "sha256:00 1 2", "x" * 2000, "sha256:" + "0" * 64])
def test_a_plan_with_a_damaged_stamp_is_not_found(folder, stamp):
    keep_refitted(folder, "key", PLAN)
    (folder / "key.stamp").write_text(stamp)
    assert find(folder) is None


def test_a_plan_without_a_stamp_is_not_found(folder):
    keep_refitted(folder, "key", PLAN)
    (folder / "key.stamp").unlink()
    assert find(folder) is None


def test_a_full_disk_keeps_nothing(folder, monkeypatch):
    import shutil

    usage = shutil.disk_usage(folder.parents[1])
    monkeypatch.setattr("wszoo.store.files.shutil.disk_usage", lambda _: usage._replace(free=1))
    with pytest.raises(StorageError, match="to keep the refitted plan"):
        keep_refitted(folder, "key", PLAN)
    assert list(folder.iterdir()) == []
