"""Assembled plans are let go of in the order of their last use, and never from under who has just asked for one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from builders import SimulatedRemote, around, snapshot

from wszoo.assemble import assemble
from wszoo.distribution.pull import pull, select_local
from wszoo.errors import StorageError
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.settings import cache_limit, set_cache_limit
from wszoo.store.cache import cached_engines, shrink_cache

REF = Ref.parse("net:1")


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """Settings of the test's own."""
    monkeypatch.setenv("WSZOO_CONFIG", str(tmp_path / "config.toml"))


def engine(store, gpu="sm89"):
    chosen = select_local(store, REF, around(gpu))
    return assemble(store, chosen.model, chosen.plans["net"], "cuda", Silent()).engine


def used(store, path, seconds_ago):
    """Make a plan look as if it was last used then."""
    then = path.stat().st_mtime - seconds_ago
    for each in (path, store.layout.verified / path.stem):
        os.utime(each, (then, then))
    (store.layout.verified / path.stem).write_text(f"{path.stat().st_size} {path.stat().st_mtime_ns}\n")
    os.utime(store.layout.verified / path.stem, (then, then))


@pytest.fixture
def two(store, remote):
    """A store with the plans for two GPUs, used an hour and two hours ago."""
    pull(store, remote, REF, around("sm86"))
    pull(store, remote, REF, around("sm89"))
    old, new = engine(store, "sm86"), engine(store, "sm89")
    used(store, old, 7200)
    used(store, new, 3600)
    return old, new


def test_plans_are_listed_with_their_models_the_last_used_first(store, two):
    old, new = two
    first, second = cached_engines(store)
    assert (first.kept_as.hex, second.kept_as.hex) == (new.stem, old.stem)
    assert first.plans == ("net:1 net rtx-sm89",)
    assert first.size == new.stat().st_size + (store.layout.verified / new.stem).stat().st_size
    assert first.used > second.used


def test_a_plan_of_no_model_is_listed_too(store, two):
    store.refs.swap(REF, None, held=None, expected=store.refs.get(REF))
    assert [each.plans for each in cached_engines(store)] == [(), ()]


def test_the_one_not_used_for_longest_goes_first_and_no_more_than_needed(store, two):
    old, new = two
    kept, gone = cached_engines(store)
    report = shrink_cache(store, kept.size)
    assert [each.hex for each in report.deleted] == [old.stem]
    assert (report.freed_bytes, report.kept_bytes) == (gone.size, kept.size)
    assert not (store.layout.verified / old.stem).exists()
    assert new.exists()
    assert shrink_cache(store, kept.size).deleted == ()


def test_a_load_renews_when_a_plan_was_last_used(store, two):
    old, new = two
    assert engine(store, "sm86") == old
    assert cached_engines(store)[0].kept_as.hex == old.stem
    assert [each.hex for each in shrink_cache(store, old.stat().st_size + 100).deleted] == [new.stem]


def test_a_plan_that_was_just_used_stays(store, two):
    old, _ = two
    engine(store, "sm86")
    report = shrink_cache(store, 0)
    assert report.kept_in_use == 1
    assert old.exists()


def test_what_a_backend_keeps_beside_a_plan_counts_and_goes_with_it(store, two):
    old, _ = two
    sizes = [each.size for each in cached_engines(store)]
    (store.layout.runtime / old.stem / "sub").mkdir(parents=True)
    (store.layout.runtime / old.stem / "sub" / "kernels").write_bytes(bytes(1000))
    os.utime(store.layout.runtime / old.stem / "sub" / "kernels", (1, 1))
    assert cached_engines(store)[1].size == sizes[1] + 1000
    shrink_cache(store, 0)
    assert list(store.layout.runtime.iterdir()) == []


def test_a_native_plan_that_was_refitted_here_counts_too(store):
    from wszoo.store.refitted import find_refitted, keep_refitted

    folder = store.layout.runtime / f"{5:064x}"
    keep_refitted(folder, "key", memoryview(bytes(3000)))
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert cached_engines(store)[0].size > 3000
    assert find_refitted(folder, "key", Silent()) == folder / "key.plan"
    assert shrink_cache(store, 0).kept_in_use == 1, "it was just used"
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert len(shrink_cache(store, 0).deleted) == 1
    assert not folder.exists()


def test_a_plan_that_a_program_has_mapped_on_windows_is_passed_over(store, two, monkeypatch):
    old, new = two
    unlink = Path.unlink

    def in_use(path, missing_ok=False):
        if path == old:
            raise PermissionError
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", in_use)
    report = shrink_cache(store, 0)
    assert ([each.hex for each in report.deleted], report.kept_in_use) == ([new.stem], 1)
    assert (store.layout.verified / old.stem).exists()


def test_a_mapped_plan_can_still_be_read_when_it_has_gone(store, two):
    import mmap

    if os.name == "nt":
        pytest.skip("Windows does not let it go")
    old, _ = two
    data = old.read_bytes()
    with old.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        shrink_cache(store, 0)
        assert not old.exists()
        assert mapped[:] == data


def test_a_plan_that_was_let_go_is_assembled_again(store, two):
    before = snapshot(store.layout.engines)
    shrink_cache(store, 0)
    assert snapshot(store.layout.engines) == {}
    engine(store, "sm86")
    engine(store, "sm89")
    assert snapshot(store.layout.engines) == before


def test_assembling_keeps_within_the_limit_of_the_settings(store, remote):
    pull(store, remote, REF, around("sm86"))
    pull(store, remote, REF, around("sm89"))
    old = engine(store, "sm86")
    used(store, old, 7200)
    set_cache_limit(old.stat().st_size + 10)
    new = engine(store, "sm89")
    assert (old.exists(), new.exists()) == (False, True)
    set_cache_limit(0)
    used(store, new, 7200)
    assert engine(store, "sm86").exists(), "what is about to be loaded stays, whatever the limit"
    assert not new.exists()


def test_the_limit_is_kept_beside_other_settings(tmp_path):
    (tmp_path / "config.toml").write_text('# mine\n[remotes.a]\nurl = "https://h/x"\n')
    assert cache_limit() is None
    set_cache_limit(10)
    assert cache_limit() == 10
    set_cache_limit(None)
    assert cache_limit() is None
    assert "# mine" in (tmp_path / "config.toml").read_text()


def test_eviction_while_others_assemble_and_load(store, origin, tmp_path):
    """Two processes assemble and read in turn while this one lets everything go that it may."""
    import workers

    root = str(tmp_path / "busy")
    pull_arguments = [(root, str(origin.layout.root), "net:1", gpu, 6) for gpu in ("sm86", "sm89")]
    context = workers.multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        working = [pool.apply_async(workers.pull_model, each) for each in pull_arguments]
        from wszoo.store.store import Store

        while not all(each.ready() for each in working):
            shrink_cache(Store(Path(root)), 0)
        assert [len(each.get(60)) for each in working] == [1, 1]


def test_a_disk_that_refuses_is_told(store, two, monkeypatch):
    def refuse(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StorageError, match="Input/output"):
        shrink_cache(store, 0)


def test_an_empty_store_has_nothing(store):
    assert cached_engines(store) == []
    assert shrink_cache(store, 0).kept_bytes == 0
    assert SimulatedRemote(store).refs() == []
