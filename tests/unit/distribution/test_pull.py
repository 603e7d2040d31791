"""Pulling from a real folder: only what one GPU needs, merged with what is there, whatever happens at once."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import msgspec
import pytest
import workers
from builders import SimulatedRemote, around, leftovers, plan_of, publish_model, replace_in_index, snapshot
from contract.servers import serving

from wszoo.digest import Digest
from wszoo.distribution.pull import pull, select_local
from wszoo.errors import IncompatibleError, NotFoundError, RemoteError, StorageError, TrustError, UsageError
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.remotes.http import HttpType
from wszoo.store.store import Store
from wszoo.store.verify import verify
from wszoo.transfer import RemoteDocuments, fetch, missing

REF = Ref.parse("net:1")


def chosen(report):
    return {name: plan.config.target.name for name, plan in report.selection.plans.items()}


def test_a_pull_fetches_what_one_gpu_needs_and_no_other_plan(store, origin, remote):
    report = pull(store, remote, REF, around("sm89"))
    other = plan_of(origin, "net:1", "rtx-sm86")
    mine = plan_of(origin, "net:1", "rtx-sm89")
    assert chosen(report) == {"net": "rtx-sm89"}
    here = set(store.blobs.all())
    assert {layer.digest for layer in mine.manifest.layers} <= here
    only_theirs = {other.descriptor.digest, other.manifest.config.digest}
    assert not only_theirs & here
    assert not only_theirs & set(remote.opened)
    assert len(remote.opened) == len(set(remote.opened)), "nothing is fetched twice"
    assert set(remote.opened) == here
    assert verify(store).problems == ()


def test_what_was_fetched_is_reported_with_its_bytes(store, remote):
    report = pull(store, remote, REF, around("sm89"))
    assert {each.digest for each in report.fetched} == set(store.blobs.all())
    assert report.fetched_bytes == sum(store.blobs.size(digest) for digest in store.blobs.all())
    again = pull(store, remote, REF, around("sm89"))
    assert again.fetched == ()
    assert again.fetched_bytes == 0


def test_a_second_gpu_adds_its_plan_to_what_is_held(store, origin, remote):
    pull(store, remote, REF, around("sm89"))
    remote.opened.clear()
    report = pull(store, remote, REF, around("sm86"))
    assert chosen(report) == {"net": "rtx-sm86"}
    plans = [plan_of(origin, "net:1", name) for name in ("rtx-sm86", "rtx-sm89")]
    assert set(store.refs.get(REF).held) == {plan.descriptor.digest for plan in plans}
    weights = report.selection.model.config.packs
    assert not set(weights) & set(remote.opened), "the weights are here already"
    for gpu in ("sm86", "sm89"):
        assert select_local(store, REF, around(gpu)).plans["net"].config.target.name == f"rtx-{gpu}"


def test_a_plan_that_was_not_pulled_is_not_offered_locally(store, remote):
    pull(store, remote, REF, around("sm89"))
    with pytest.raises(IncompatibleError):
        select_local(store, REF, around("sm75"))


def test_a_machine_without_a_gpu_gets_the_portable_plan(store, remote):
    report = pull(store, remote, REF, around("none"))
    assert chosen(report) == {"net": "portable"}
    assert report.selection.resolution.choices["net"].device == "cpu"


def test_a_dry_run_reports_the_same_and_writes_nothing(tmp_path, store, remote):
    fresh = Store(tmp_path / "never")
    planned = pull(fresh, remote, REF, around("sm89"), dry_run=True)
    assert not fresh.layout.root.exists()
    real = pull(store, remote, REF, around("sm89"))
    assert {each.digest for each in planned.fetched} == {each.digest for each in real.fetched}


def test_the_remote_is_not_changed_by_a_pull(store, origin, remote):
    before = snapshot(origin.layout.root)
    pull(store, remote, REF, around("sm89"))
    assert snapshot(origin.layout.root) == before


def test_an_index_without_annotations_is_decided_by_the_configs(store, origin):
    replace_in_index(
        origin,
        "net:1",
        index=lambda index: msgspec.structs.replace(
            index, manifests=tuple(msgspec.structs.replace(each, annotations={}) for each in index.manifests)
        ),
    )
    assert chosen(pull(store, SimulatedRemote(origin), REF, around("sm86"))) == {"net": "rtx-sm86"}
    assert verify(store).problems == ()


def test_a_layout_that_another_tool_wrote_is_a_remote(store, origin, tmp_path):
    import shutil

    shutil.rmtree(origin.layout.private)
    remote = SimulatedRemote(origin)
    assert remote.refs() == [REF]
    assert chosen(pull(store, remote, REF, around("sm89"))) == {"net": "rtx-sm89"}


def test_a_tag_that_moved_is_followed_and_forgets_the_old_plans(store, origin, remote):
    pull(store, remote, REF, around("sm89"))
    old = store.refs.get(REF)
    publish_model(origin, "net:1", seed=7)
    pull(store, remote, REF, around("sm86"))
    entry = store.refs.get(REF)
    assert entry.descriptor.digest != old.descriptor.digest
    assert len(entry.held) == 1
    assert verify(store).problems == ()


def test_a_pull_over_a_build_of_the_same_index_keeps_all_plans(origin, tmp_path):
    away = Store(tmp_path / "copy")
    import shutil

    shutil.copytree(origin.layout.root, away.layout.root)
    pull(away, SimulatedRemote(origin), REF, around("sm89"))
    assert away.refs.get(REF).held is None


def test_a_pin_is_checked_and_both_digests_are_named(store, origin, remote):
    digest = origin.refs.get(REF).descriptor.digest
    assert pull(store, remote, REF.pinned(digest), around()).selection.ref.digest == digest
    wrong = REF.pinned(Digest.of(b"other"))
    with pytest.raises(NotFoundError):
        pull(store, remote, wrong, around())


def test_a_tag_that_moved_since_it_was_pinned_is_told(store, origin, remote, monkeypatch):
    descriptor = origin.refs.get(REF).descriptor
    monkeypatch.setattr(remote, "resolve", lambda _: descriptor)  # a remote that does not look at pins
    wrong = REF.pinned(Digest.of(b"other"))
    with pytest.raises(NotFoundError) as caught:
        pull(store, remote, wrong, around())
    assert descriptor.digest in caught.value.message
    assert wrong.digest in caught.value.message
    assert set(store.blobs.all()) == set()


def test_a_remote_that_nobody_vouches_for_is_refused_unless_pinned(store, origin):
    remote = SimulatedRemote(origin, trusted=False)
    with pytest.raises(TrustError) as caught:
        pull(store, remote, REF, around())
    assert remote.url in caught.value.message
    assert "sha256:" in caught.value.hint
    assert remote.opened == []
    digest = origin.refs.get(REF).descriptor.digest
    assert pull(store, remote, REF.pinned(digest), around()).fetched


def test_a_refusal_for_lack_of_trust_also_stands_for_dry_runs(store, origin):
    with pytest.raises(TrustError):
        pull(store, SimulatedRemote(origin, trusted=False), REF, around(), dry_run=True)


def test_an_unknown_ref_lists_what_there_is(store, remote):
    with pytest.raises(NotFoundError, match="net:2") as caught:
        pull(store, remote, Ref.parse("net:2"), around())
    assert "net:1" in caught.value.hint


def test_an_unknown_component_is_refused(store, remote):
    wanted = dataclasses.replace(around(), components=("unet",))
    with pytest.raises((IncompatibleError, UsageError, NotFoundError), match="unet"):
        pull(store, remote, REF, wanted)
    assert store.refs.all() == []


def test_no_plan_that_fits_leaves_the_store_alone(store, tmp_path):
    bare = Store(tmp_path / "bare")
    publish_model(bare, "net:1", targets=("rtx-sm86",), portable=False)
    before = snapshot(store.layout.root)
    with pytest.raises(IncompatibleError, match="rtx-sm86"):
        pull(store, SimulatedRemote(bare), REF, around("sm89"))
    assert snapshot(store.layout.root) == before


def test_a_blob_of_the_wrong_size_in_the_store_is_fetched_again(store, remote):
    report = pull(store, remote, REF, around())
    pack = store.blobs.path(report.selection.model.config.packs[0])
    pack.write_bytes(pack.read_bytes()[:-1])
    assert [each.digest for each in pull(store, remote, REF, around()).fetched] == [Digest(f"sha256:{pack.name}")]
    assert verify(store).problems == ()


def test_an_interrupted_pull_keeps_what_was_whole_and_goes_on(store, origin, remote):
    pack = pull(store, remote, REF, around(), dry_run=True).selection.model.config.packs[0]

    def cut(data):
        yield data[: len(data) // 2]
        raise ConnectionResetError("reset by peer")

    remote.tamper[pack] = cut
    with pytest.raises(RemoteError, match="reset by peer") as caught:
        pull(store, remote, REF, around())
    assert remote.url in caught.value.message
    assert store.refs.all() == []
    assert leftovers(store) == []
    kept = set(store.blobs.all())
    remote.tamper.clear()
    remote.opened.clear()
    pull(store, remote, REF, around())
    layers = {pack} | (set(store.blobs.all()) - kept)
    assert layers <= set(remote.opened)
    assert verify(store).problems == ()


def test_pulls_of_one_ref_in_several_processes_at_once_all_end_well(tmp_path, origin):
    root, away = str(tmp_path / "new"), str(origin.layout.root)
    gpus = ["sm86", "sm89", "sm89", "sm86"]
    engines = workers.together(workers.pull_model, [(root, away, "net:1", gpu) for gpu in gpus])
    assert engines[0] == engines[3] == {str(plan_of(origin, "net:1", "rtx-sm86").config.engine_digest)}
    assert engines[1] == engines[2] == {str(plan_of(origin, "net:1", "rtx-sm89").config.engine_digest)}
    store = Store(Path(root))
    assert len(store.refs.get(REF).held) == 2
    assert verify(store).problems == ()
    assert [name for name in leftovers(store) if not name.endswith(".plan")] == []


def test_a_full_disk_is_known_before_anything_is_fetched(store, remote, monkeypatch):
    import shutil

    usage = shutil.disk_usage(store.layout.root)
    monkeypatch.setattr("wszoo.store.files.shutil.disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(StorageError) as caught:
        pull(store, remote, REF, around())
    assert "only 10 are free" in caught.value.message
    packs = pull(store, remote, REF, around(), dry_run=True).selection.model.config.packs
    assert not set(packs) & set(remote.opened)


def test_progress_counts_the_bytes_that_are_fetched(store, remote):
    seen, lock = {}, threading.Lock()

    class Counting(Silent):
        def stage(self, label, total=None, unit="B"):
            from contextlib import nullcontext

            seen[label] = [total, 0]

            def advance(count):
                with lock:
                    seen[label][1] += count

            return nullcontext(advance)

    pull(store, remote, REF, around(), progress=Counting())
    assert list(seen) == ["fetch net:1"]
    total, counted = seen["fetch net:1"]
    assert total == counted > 0


def test_each_missing_blob_is_named_once(store, origin):
    index = origin.refs.get(REF).descriptor
    assert missing(store, [index, index]) == [index]
    fetch(SimulatedRemote(origin), store, [index], Silent(), "one")
    assert missing(store, [index, index]) == []


def test_documents_are_read_from_the_remote_once(origin, remote):
    documents, index = RemoteDocuments(remote), origin.refs.get(REF).descriptor
    assert documents.read(index, limit=1 << 20) == documents.read(index, limit=1 << 20)
    assert remote.opened == [index.digest]


def test_a_store_that_pulled_for_one_gpu_offers_what_it_has_and_no_more(store, remote, tmp_path):
    pull(store, remote, REF, around("sm89"))
    pull(store, remote, REF, around("none"))
    with serving(store) as server:
        for number, offered in enumerate((SimulatedRemote(store), HttpType().open(server.url))):
            pinned, fresh = REF.pinned(store.refs.get(REF).descriptor.digest), Store(tmp_path / f"fresh{number}")
            assert chosen(pull(fresh, offered, pinned, around("sm89"))) == {"net": "rtx-sm89"}
            assert chosen(pull(fresh, offered, pinned, around("sm86"))) == {"net": "portable"}
            assert verify(fresh).problems == ()
