"""Lock files: the text, what is refused as one, what is locked for which GPU, and taking exactly that."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from types import SimpleNamespace

import msgspec
import pytest
from builders import SimulatedRemote, around, plan_of, publish_model, snapshot
from hypothesis import given
from hypothesis import strategies as st

from wszoo.digest import Digest
from wszoo.distribution.pull import pull
from wszoo.errors import (
    IncompatibleError,
    IntegrityError,
    LimitError,
    MalformedError,
    NotFoundError,
    StorageError,
    UsageError,
)
from wszoo.lock.bundle import bundle
from wszoo.lock.document import lock_text, read_lock, write_lock
from wszoo.lock.making import differences, lock_model, lock_of
from wszoo.lock.pulling import keep_locked, pull_locked, select_locked
from wszoo.names import Ref
from wszoo.remotes.directory import DirectoryRemote
from wszoo.schema.lock import MAX_LOCK, Lock, LockedBlob, LockedModel, LockedPlan, decode_lock
from wszoo.schema.trust import How
from wszoo.store.documents import read_index
from wszoo.store.gc import collect
from wszoo.store.store import Store
from wszoo.store.verify import verify

REF = Ref.parse("net:1")


def locked(store, *gpus, ref=REF, **known):
    entry = store.refs.get(ref)
    return lock_model(store, ref, entry.descriptor, around, gpus, held=entry.held, **known)


@pytest.fixture
def model(origin):
    return locked(origin, "sm89")


@pytest.fixture
def untrusted(origin):
    return SimulatedRemote(origin, trusted=False)


def test_a_lock_names_the_plans_of_its_gpus_and_the_portable_one(model, origin):
    assert [(plan.target, plan.gpus) for plan in model.plans] == [("portable", ("none",)), ("rtx-sm89", ("sm89",))]
    plan = plan_of(origin, "net:1", "rtx-sm89")
    assert model.plans[1].engine == LockedBlob(digest=plan.config.engine_digest, size=plan.config.engine_bytes)
    sizes = model.blobs()
    assert all(origin.blobs.size(digest) == size for digest, size in sizes.items())
    assert set(model.blobs()) - set(model.blobs(weights=False)) == {pack.digest for pack in model.packs}
    other = plan_of(origin, "net:1", "rtx-sm86")
    assert other.descriptor.digest not in sizes


def test_a_gpu_that_nothing_fits_cannot_be_locked(store):
    publish_model(store, "net:1", targets=("rtx-sm86",), portable=False)
    with pytest.raises(IncompatibleError, match="rtx-sm86"):
        locked(store, "sm89")
    assert [plan.gpus for plan in locked(store, "sm86").plans] == [("sm86",)]


def test_the_text_is_read_back_and_is_the_same_each_time(tmp_path, two_models):
    both = [locked(two_models, "sm86", "sm89"), locked(two_models, "sm75", ref=Ref.parse("other:1"))]
    lock, turned = lock_of(both, ["sm86", "sm89"]), lock_of(both[::-1], ["sm86", "sm89"])
    assert lock_text(lock) == lock_text(turned)
    write_lock(tmp_path / "new" / "a.lock", lock)
    assert read_lock(tmp_path / "new" / "a.lock") == lock
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.lock"]


def test_one_more_plan_changes_its_own_lines_only(origin):
    one, two = (lock_text(lock_of([locked(origin, *gpus)], ["sm86"])) for gpus in (("sm89",), ("sm89", "sm86")))
    lines = two.splitlines()
    assert [line for line in one.splitlines() if line not in lines] == []


NAMES = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
BLOBS = st.builds(LockedBlob, digest=st.binary().map(Digest.of), size=st.integers(0, 1 << 60))
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)
PLANS = st.builds(
    LockedPlan,
    component=TEXTS,
    target=TEXTS,
    gpus=st.lists(TEXTS, max_size=2).map(tuple),
    manifest=BLOBS,
    config=BLOBS,
    layers=st.lists(BLOBS, max_size=2).map(tuple),
    engine=BLOBS,
)
MODELS = st.builds(
    LockedModel,
    name=NAMES,
    tag=NAMES,
    remotes=st.lists(TEXTS, max_size=2).map(tuple),
    index=BLOBS,
    manifest=BLOBS,
    config=BLOBS,
    graphs=st.lists(BLOBS, max_size=2).map(tuple),
    packs=st.lists(BLOBS, max_size=2).map(tuple),
    plans=st.lists(PLANS, max_size=2).map(tuple),
)
LOCKS = st.builds(
    Lock,
    gpus=st.lists(TEXTS, min_size=1, max_size=2).map(tuple),
    models=st.lists(MODELS, min_size=1, max_size=2, unique_by=lambda model: (model.name, model.tag)).map(tuple),
)


@given(LOCKS)
def test_every_lock_is_read_back_from_its_text(lock):
    assert decode_lock(lock_text(lock).encode(), "lock") == lock


@pytest.fixture
def text(model):
    return lock_text(lock_of([model], ["sm89"]))


EDITS = {
    "empty": lambda text: "",
    "cut in a line": lambda text: text[: len(text) // 2],
    "cut in a plan": lambda text: text[: text.rindex("engine")],
    "no TOML": lambda text: text.replace("=", ":", 1),
    "version that is text": lambda text: text.replace("version = 1", 'version = "1"'),
    "no version": lambda text: text.replace("version = 1", ""),
    "no models": lambda text: text[: text.index("[[models]]")],
    "no GPUs": lambda text: text.replace('gpus = ["sm89"]', "gpus = []", 1),
    "a short digest": lambda text: text.replace("sha256:", "sha256:0", 1),
    "another algorithm": lambda text: text.replace("sha256:", "sha512:", 1),
    "a negative size": lambda text: text.replace("size = ", "size = -", 1),
    "a size that is text": lambda text: text.replace("size = ", 'size = "1" #', 1),
    "a name that leaves the folder": lambda text: text.replace('name = "net"', 'name = "../net"'),
    "a name with a tag": lambda text: text.replace('name = "net"', 'name = "net:2@"'),
    "a tag that is none": lambda text: text.replace('tag = "1"', 'tag = "-"'),
    "a tag with a pin": lambda text: text.replace('tag = "1"', f'tag = "1@{Digest.of(b"")}"'),
    "a model twice": lambda text: text + text[text.index("[[models]]") :],
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_lock_is_refused_by_name(text, tmp_path, edit):
    (tmp_path / "a.lock").write_text(edit(text))
    with pytest.raises(MalformedError, match=r"a\.lock") as caught:
        read_lock(tmp_path / "a.lock")
    assert "wszoo lock" in caught.value.hint


def test_a_lock_of_a_later_version_is_told_apart(text):
    with pytest.raises(IncompatibleError, match="version 2") as caught:
        decode_lock(text.replace("version = 1", "version = 2").encode() + b"[new]\n", "lock")
    assert "upgrade" in caught.value.hint


def test_what_a_later_version_adds_is_passed_over(text, model):
    assert decode_lock(b"new = 1\n" + text.encode(), "lock").models == (model,)


def test_a_lock_that_is_too_large_or_too_deep_is_refused(tmp_path):
    (tmp_path / "a.lock").write_bytes(b"#" * (MAX_LOCK + 1))
    with pytest.raises(LimitError, match="more than"):
        read_lock(tmp_path / "a.lock")
    with pytest.raises(IntegrityError):
        decode_lock(b"version = " + b"[" * 100_000, "lock")


def test_a_lock_that_is_not_there_or_no_file_is_told(tmp_path):
    with pytest.raises(NotFoundError, match="no lock file") as caught:
        read_lock(tmp_path / "none.lock")
    assert "wszoo lock" in caught.value.hint
    with pytest.raises(StorageError):
        read_lock(tmp_path)


def test_a_locked_model_is_taken_from_a_remote_that_nobody_trusts(store, model, untrusted):
    report = pull_locked(store, model, [untrusted], around("sm89"))
    assert report.trust.how is How.LOCKED
    assert set(report.selection.plans) == {"net"}
    assert store.refs.get(REF).descriptor.digest == model.index.digest
    assert set(store.blobs.all()) <= set(model.blobs())
    assert verify(store).problems == ()


def test_only_locked_plans_are_taken(store, model, untrusted):
    report = pull_locked(store, model, [untrusted], around("sm86"))
    assert report.selection.plans["net"].config.target.name == "portable"
    bare = msgspec.structs.replace(model, plans=model.plans[1:])
    with pytest.raises(IncompatibleError):
        pull_locked(store, bare, [untrusted], around("sm86"))


def test_what_a_lock_names_is_taken_after_the_tag_has_moved_or_gone(store, model, origin, untrusted):
    publish_model(origin, "net:1", seed=7)
    assert pull_locked(store, model, [untrusted], around("sm89")).selection.index.digest == model.index.digest
    origin.refs.swap(REF, None, held=None, expected=origin.refs.get(REF))
    fresh = Store(store.layout.root.with_name("fresh"))
    assert pull_locked(fresh, model, [untrusted], around("sm89")).fetched


def test_what_was_taken_is_found_again_without_a_remote_and_stays(store, model, untrusted, two_models):
    assert select_locked(store, model, around("sm89")) is None
    pull_locked(store, model, [untrusted], around("sm89"))
    assert select_locked(store, model, around("sm89")).index.digest == model.index.digest
    # Another app, or the user, moves the tag; what was locked stays.
    publish_model(two_models, "net:1", seed=9)
    pull(store, DirectoryRemote(two_models.layout.root), REF, around("sm89"))
    collect(store, grace=0)
    assert select_locked(store, model, around("sm89")).index.digest == model.index.digest
    assert store.refs.get(REF).descriptor.digest != model.index.digest


def test_a_tag_that_is_used_for_something_else_is_not_moved(store, model, untrusted, two_models):
    publish_model(two_models, "net:1", seed=9)
    pull(store, DirectoryRemote(two_models.layout.root), REF, around("sm89"))
    before = store.refs.get(REF)
    pull_locked(store, model, [untrusted], around("sm89"))
    assert store.refs.get(REF) == before
    assert store.refs.find(REF.locked(model.index.digest)) is not None


def test_what_was_pulled_by_its_tag_serves_a_lock_and_is_kept_for_it(store, origin, model):
    pull(store, DirectoryRemote(origin.layout.root), REF, around("sm89"))
    selection = select_locked(store, model, around("sm89"))
    keep_locked(store, model, selection)
    assert store.refs.find(REF.locked(model.index.digest)).held == store.refs.find(REF).held


def test_a_missing_blob_makes_it_incomplete(store, model, untrusted):
    pull_locked(store, model, [untrusted], around("sm89"))
    store.blobs.path(model.packs[0].digest).unlink()
    assert select_locked(store, model, around("sm89")) is None
    pull_locked(store, model, [untrusted], around("sm89"))
    assert select_locked(store, model, around("sm89")) is not None


def test_a_digest_that_no_remote_can_deliver_is_named(store, model, origin, untrusted):
    origin.blobs.path(model.packs[0].digest).unlink()
    with pytest.raises(NotFoundError, match=model.packs[0].digest):
        pull_locked(store, model, [untrusted], around("sm89"))
    lost = msgspec.structs.replace(model, index=LockedBlob(digest=Digest.of(b"lost"), size=9))
    with pytest.raises(NotFoundError, match=lost.index.digest):
        pull_locked(store, lost, [untrusted], around("sm89"))
    with pytest.raises(NotFoundError, match="does not say where"):
        pull_locked(store, model, [], around("sm89"))


def test_the_next_remote_is_asked_for_what_the_first_lacks(store, model, origin, tmp_path):
    empty = Store(tmp_path / "empty")
    empty.layout.create()
    remotes = [DirectoryRemote(empty.layout.root), SimulatedRemote(origin, trusted=False)]
    assert pull_locked(store, model, remotes, around("sm89")).fetched


CONTRADICTIONS = {
    "another plan": lambda model: {"plans": (msgspec.structs.replace(model.plans[0], manifest=model.manifest),)},
    "another plan's size": lambda model: {
        "plans": (msgspec.structs.replace(model.plans[0], manifest=_resized(model.plans[0].manifest)),)
    },
    "another pack's size": lambda model: {"packs": (_resized(model.packs[0]),)},
    "a pack less": lambda model: {"packs": ()},
    "another config": lambda model: {"config": model.index},
    "another manifest": lambda model: {"manifest": model.index},
    "a plan's other config": lambda model: _with_plans(model, config=model.index),
    "a plan's other layer": lambda model: _with_plans(model, layers=(model.index,)),
    "a plan's other engine": lambda model: _with_plans(model, engine=model.index),
    "a plan's other component": lambda model: _with_plans(model, component="other"),
    "a plan's other target": lambda model: _with_plans(model, target="rtx-sm75"),
}


def _with_plans(model, **fields):
    return {"plans": tuple(msgspec.structs.replace(plan, **fields) for plan in model.plans)}


def _resized(blob):
    return LockedBlob(digest=blob.digest, size=blob.size + 1)


@pytest.mark.parametrize("edit", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_lock_that_contradicts_its_index_is_refused_before_anything_is_kept(store, model, untrusted, edit):
    changed = msgspec.structs.replace(model, **edit(model))
    before = snapshot(store.layout.root)
    with pytest.raises(MalformedError, match=r"was edited|index") as caught:
        pull_locked(store, changed, [untrusted], around("none"))
    assert "net:1" in caught.value.message
    assert snapshot(store.layout.root) == before


def test_a_lock_that_was_edited_after_the_pull_is_refused_offline_too(store, model, untrusted):
    pull_locked(store, model, [untrusted], around("none"))
    changed = msgspec.structs.replace(model, **_with_plans(model, engine=model.index))
    with pytest.raises(MalformedError, match="says other things of the plan"):
        select_locked(store, changed, around("none"))
    assert select_locked(store, model, around("none"))


def test_an_index_of_another_size_is_refused(store, model, untrusted):
    changed = msgspec.structs.replace(model, index=_resized(model.index))
    with pytest.raises(IntegrityError, match=model.index.digest):
        pull_locked(store, changed, [untrusted], around("none"))


def test_differences_are_told_in_words(origin, model):
    assert differences(model, locked(origin, "sm89")) == []
    (more,) = differences(model, locked(origin, "sm89", "sm86"))
    assert "rtx-sm86 of net is not in the lock" in more
    (less,) = differences(locked(origin, "sm89", "sm86"), model)
    assert "rtx-sm86 of net is not taken any more" in less
    (edited,) = differences(msgspec.structs.replace(model, packs=()), model)
    assert "edited" in edited
    publish_model(origin, "net:1", seed=7)
    (moved,) = differences(model, locked(origin, "sm89"))
    assert model.index.digest in moved


def bundled(store, lock, folder, **options):
    return bundle(store, lock, folder, lambda _: [], **options)


def test_a_bundle_has_just_what_the_lock_names(origin, model, tmp_path):
    lock = lock_of([model], ["sm89"])
    report = bundled(origin, lock, tmp_path / "bundle")
    made = Store(tmp_path / "bundle")
    assert set(made.blobs.all()) == set(model.blobs())
    assert (report.blobs, report.size, report.left_out) == (len(model.blobs()), sum(model.blobs().values()), 0)
    names = sorted(path.name for path in (tmp_path / "bundle").iterdir())
    assert names == ["blobs", "index.json", "oci-layout", "wszoo.lock"]
    assert read_lock(tmp_path / "bundle" / "wszoo.lock") == lock
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".bundle")] == []


def test_a_bundle_is_pulled_from_by_lock_and_by_tag(store, origin, model, tmp_path):
    bundled(origin, lock_of([model], ["sm89"]), tmp_path / "bundle")
    before = snapshot(tmp_path / "bundle")
    remote = DirectoryRemote(tmp_path / "bundle")
    assert pull_locked(store, model, [remote], around("sm89")).fetched
    fresh = Store(tmp_path / "fresh")
    for gpu, target in (("sm86", "portable"), ("sm89", "rtx-sm89")):  # sm86's own plan is not in the bundle
        assert pull(fresh, remote, REF, around(gpu)).selection.plans["net"].config.target.name == target
    assert verify(fresh).problems == ()
    assert snapshot(tmp_path / "bundle") == before


def test_where_nothing_of_a_bundle_fits_it_is_told_that_the_model_has_other_plans(store, origin, model, tmp_path):
    bundled(origin, lock_of([model], ["sm89"]), tmp_path / "bundle")
    asked = replace(around("sm86"), avoid=("portable",))
    with pytest.raises(IncompatibleError, match="The model has 1 other plans") as caught:
        pull(store, DirectoryRemote(tmp_path / "bundle"), REF, asked)
    assert "--from" in caught.value.hint
    with pytest.raises(IncompatibleError) as caught:
        pull(store, DirectoryRemote(origin.layout.root), REF, replace(asked, avoid=("portable", "rtx-sm86")))
    assert "other plans" not in caught.value.message


def test_a_bundle_that_is_made_a_store_knows_what_it_holds(origin, model, tmp_path):
    bundled(origin, lock_of([model], ["sm89"]), tmp_path / "bundle")
    made = Store(tmp_path / "bundle")
    entry = made.refs.get(REF)
    assert set(entry.held) == {plan.manifest.digest for plan in model.plans}
    assert made.refs.swap(Ref.parse("net:2"), entry.descriptor, held=entry.held, expected=None)
    assert made.refs.get(REF).held == entry.held
    assert verify(made).problems == ()
    assert len(read_index(made, entry.descriptor).manifests) == 4


def test_a_bundle_without_weights_leaves_them_to_the_remote(store, origin, model, untrusted, tmp_path):
    report = bundled(origin, lock_of([model], ["sm89"]), tmp_path / "bundle", weights=False)
    assert report.left_out == sum(pack.size for pack in model.packs)
    assert set(Store(tmp_path / "bundle").blobs.all()) == set(model.blobs(weights=False))
    places = [DirectoryRemote(tmp_path / "bundle"), untrusted]
    pull_locked(store, model, places, around("sm89"))
    assert set(untrusted.opened) == {pack.digest for pack in model.packs}


def test_a_bundle_is_made_from_a_remote_where_the_store_lacks_something(store, origin, model, untrusted, tmp_path):
    report = bundle(store, lock_of([model], ["sm89"]), tmp_path / "bundle", lambda _: [untrusted])
    assert report.blobs == len(model.blobs())
    assert not store.refs.all()


def test_a_bundle_never_overwrites(origin, model, tmp_path):
    (tmp_path / "bundle").mkdir()
    bundled(origin, lock_of([model], ["sm89"]), tmp_path / "bundle")
    before = snapshot(tmp_path / "bundle")
    with pytest.raises(UsageError, match="not empty"):
        bundled(origin, lock_of([model], ["sm89"]), tmp_path / "bundle")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not empty"):
        bundled(origin, lock_of([model], ["sm89"]), tmp_path / "file")
    assert snapshot(tmp_path / "bundle") == before


def test_a_bundle_that_cannot_be_finished_leaves_nothing(origin, model, tmp_path):
    origin.blobs.path(model.packs[0].digest).unlink()
    with pytest.raises(NotFoundError, match=model.packs[0].digest):
        bundled(origin, lock_of([model], ["sm89"]), tmp_path / "out" / "bundle")
    assert not list((tmp_path / "out").iterdir())


def test_a_lock_is_plain_toml(text, model):
    table = tomllib.loads(text)
    assert table["version"] == 1
    (one,) = table["models"]
    assert (one["name"], one["tag"]) == ("net", "1")
    assert one["index"] == {"digest": str(model.index.digest), "size": model.index.size}


def test_models_are_opened_by_name(monkeypatch, store, origin, model, tmp_path):
    from wszoo.lock.app import open_lock

    write_lock(tmp_path / "a.lock", lock_of([model], ["sm89"]))
    models = open_lock(tmp_path / "a.lock", store=store.layout.root, source=str(origin.layout.root))
    monkeypatch.setattr("wszoo.lock.app.surroundings", around)
    assert (list(models), len(models)) == (["net:1"], 1)
    with pytest.raises(NotFoundError, match="not in"):
        models["net"]
    (planned,) = models.plan_pull(gpu="sm89")
    (pulled,) = models.pull(gpu="sm89")
    assert {each.digest for each in planned.fetched} == set(store.blobs.all())
    assert pulled["net"].facts.target.name == "rtx-sm89"
    with pytest.raises(NotFoundError, match="0 models 'other'"):
        models["other"]
    offline = open_lock(tmp_path / "a.lock", store=store.layout.root)
    monkeypatch.setattr("wszoo.lock.app.surroundings", lambda _: SimpleNamespace(**_fields(around("sm89"))))
    assert offline["net:1"].ref.digest == model.index.digest


def _fields(struct):
    return {name: getattr(struct, name) for name in struct.__dataclass_fields__}


def test_places_of_a_lock_that_cannot_be_opened_are_passed_over_if_another_can(store, origin, model, tmp_path):
    from wszoo.api import Zoo
    from wszoo.lock.app import LockedModels

    strange = msgspec.structs.replace(model, remotes=("gopher://host", str(tmp_path / "none"), str(origin.layout.root)))
    models = LockedModels(lock_of([strange], ["sm89"]), Zoo(store.layout.root))
    assert [remote.url for remote in models.remotes(strange)] == [str(origin.layout.root)]
    nowhere = msgspec.structs.replace(model, remotes=strange.remotes[:2])
    with pytest.raises(UsageError, match="gopher"):
        models.remotes(nowhere)
    with pytest.raises(NotFoundError, match="none"):
        LockedModels(models.lock, Zoo(store.layout.root), str(tmp_path / "none")).remotes(strange)
