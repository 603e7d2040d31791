"""verify names every kind of damage, and the refs that it hurts."""

from __future__ import annotations

import pytest
from builders import age, around, plan_of

from wszoo.assemble import assemble
from wszoo.digest import Digest
from wszoo.distribution.pull import pull
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.store.documents import model_descriptor, read_index, read_model
from wszoo.store.verify import verify

REF = Ref.parse("net:1")


def blob_of(store, what):
    """The path of one blob of each kind that ``net:1`` has."""
    entry = store.refs.get(REF)
    index = read_index(store, entry.descriptor)
    model = read_model(store, model_descriptor(index))
    plan = plan_of(store, "net:1", "rtx-sm89")
    digests = {
        "index": entry.descriptor.digest,
        "model manifest": model.descriptor.digest,
        "model config": model.manifest.config.digest,
        "pack": model.config.packs[0],
        "graph": model.config.components["net"].graph.layer,
        "asset": model.config.assets["labels.txt"],
        "plan manifest": plan.descriptor.digest,
        "plan config": plan.manifest.config.digest,
        "plan base": plan.manifest.layers[0].digest,
    }
    return store.blobs.path(digests[what])


KINDS = [
    "index",
    "model manifest",
    "model config",
    "pack",
    "graph",
    "asset",
    "plan manifest",
    "plan config",
    "plan base",
]


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_clean_store_has_no_problems(origin):
    report = verify(origin)
    paths = [origin.blobs.path(digest) for digest in origin.blobs.all()]
    assert report.problems == ()
    assert report.checked == len(paths)
    assert report.checked_bytes == sum(path.stat().st_size for path in paths)


def test_a_sparse_clone_has_no_problems(store, remote):
    pull(store, remote, REF, around("sm86"))
    assert verify(store).problems == ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "missing"])
def test_damage_is_named_with_the_refs_that_need_the_blob(two_models, kind, damage):
    origin = two_models
    path = blob_of(origin, kind)
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        flip(path)
    else:
        path.write_bytes(b"" if damage == "emptied" else path.read_bytes()[:-1])
    found = {problem.path: problem for problem in verify(origin).problems}
    # The asset is the same file for both models.
    hurt = ("net:1", "other:1") if kind == "asset" else ("net:1",)
    assert found[str(path)].what == ("missing" if damage == "missing" else "damaged")
    assert found[str(path)].refs == hurt
    assert all("other:1" not in problem.refs for problem in found.values() if problem.path != str(path))


def test_damage_that_no_ref_needs_is_named_too(origin):
    digest = origin.blobs.put(b"garbage")
    origin.blobs.path(digest).write_bytes(b"garbagE")
    (problem,) = verify(origin).problems
    assert (problem.what, problem.refs) == ("damaged", ())
    assert problem.detail == f"hashes to {Digest.of(b'garbagE')}"


def test_a_blob_under_a_wrong_name_is_damage(origin):
    wrong = origin.blobs.path(Digest.of(b"one thing"))
    wrong.write_bytes(b"another thing")
    (problem,) = verify(origin).problems
    assert problem.path == str(wrong)


def test_a_damaged_assembled_plan_is_named(store, remote):
    selection = pull(store, remote, REF, around("sm89")).selection
    engine = assemble(store, selection.model, selection.plans["net"], "cuda", Silent()).engine
    assert verify(store).problems == ()
    flip(engine)
    (problem,) = verify(store).problems
    assert (problem.what, problem.path) == ("damaged", str(engine))


def test_several_problems_are_reported_together_and_sorted(origin):
    paths = [blob_of(origin, kind) for kind in ("pack", "graph", "plan base")]
    for path in paths:
        flip(path)
    assert [problem.path for problem in verify(origin).problems] == sorted(map(str, paths))


def test_a_damaged_record_does_not_hide_other_damage(two_models):
    origin = two_models
    damaged = blob_of(origin, "pack")
    flip(damaged)
    for record in origin.layout.refs.rglob("record.json"):
        if b"other:1" in record.read_bytes():
            record.write_bytes(b"{")
    problems = verify(origin).problems
    assert {problem.path for problem in problems} == {str(damaged), str(origin.layout.refs)}
    assert any("is malformed" in problem.detail for problem in problems)


def test_a_file_that_vanishes_meanwhile_is_not_a_crash(origin, monkeypatch):
    gone = origin.blobs.put(b"garbage")
    everything = sorted(origin.blobs.all())
    origin.blobs.path(gone).unlink()
    monkeypatch.setattr(type(origin.blobs), "all", lambda _: iter(everything))
    assert verify(origin).problems == ()


def test_progress_adds_up_to_all_bytes(origin):
    seen = []

    class Counting(Silent):
        def stage(self, label, total=None, unit="B"):
            from contextlib import nullcontext

            seen.append((label, total))
            return nullcontext(seen.append)

    report = verify(origin, Counting())
    (label, total), *steps = seen
    assert label == "verify"
    assert total == sum(steps) == report.checked_bytes


def test_verify_changes_nothing(origin):
    age(origin)
    times = {digest: origin.blobs.path(digest).stat().st_mtime for digest in origin.blobs.all()}
    verify(origin)
    assert times == {digest: origin.blobs.path(digest).stat().st_mtime for digest in origin.blobs.all()}


def test_a_model_that_is_forgotten_and_collected_meanwhile_is_no_damage(two_models, monkeypatch):
    from wszoo.store import verify as module
    from wszoo.store.gc import collect

    listed, done = module._files, []

    def forget_first(store):
        if not done:
            done.append(store.refs.swap(REF, None, held=None, expected=store.refs.get(REF)))
            age(store)
            collect(store)
        return listed(store)

    monkeypatch.setattr(module, "_files", forget_first)
    assert verify(two_models).problems == ()
    assert done == [True]
