"""Repair fetches what is damaged or missing from wherever it can be had, and says what it could not get."""

from __future__ import annotations

import os

import pytest
from builders import SimulatedRemote, around, plan_of, snapshot

from wszoo.assemble import assemble
from wszoo.digest import Digest
from wszoo.distribution.pull import pull, select_local
from wszoo.distribution.repair import repair
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.store.documents import model_descriptor, read_index, read_model
from wszoo.store.verify import verify

REF = Ref.parse("net:1")


@pytest.fixture
def pulled(store, remote):
    """A clone for one GPU."""
    pull(store, remote, REF, around())
    return store


def kinds(store):
    entry = store.refs.get(REF)
    model = read_model(store, model_descriptor(read_index(store, entry.descriptor)))
    plan = plan_of(store, "net:1", "rtx-sm89")
    return {
        "index": entry.descriptor.digest,
        "model manifest": model.descriptor.digest,
        "model config": model.manifest.config.digest,
        "pack": model.config.packs[0],
        "graph": model.config.components["net"].graph.layer,
        "asset": model.config.assets["labels.txt"],
        "plan manifest": plan.descriptor.digest,
        "plan layer": plan.manifest.layers[-1].digest,
    }


KINDS = ["index", "model manifest", "model config", "pack", "graph", "asset", "plan manifest", "plan layer"]


def flip(path):
    """Change a byte and nothing that a file system tells about the file."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    path.chmod(status.st_mode)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["flipped", "cut", "missing", "link", "folder"])
def test_one_blob_of_any_kind_is_mended_however_it_broke(pulled, remote, tmp_path, kind, how):
    path, before = pulled.blobs.path(kinds(pulled)[kind]), snapshot(pulled.layout.blobs)
    if how == "flipped":
        flip(path)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.unlink()
        if how == "link":
            path.symlink_to(tmp_path / "secret")
        elif how == "folder":
            path.mkdir()
    report = repair(pulled, lambda _: [remote])
    assert report.left == ()
    assert report.fetched == (Digest(f"sha256:{path.name}"),)
    assert report.quarantined == (how != "missing")
    assert snapshot(pulled.layout.blobs) == before
    assert verify(pulled).problems == ()
    assert len(list(pulled.layout.quarantine.iterdir())) == report.quarantined


def test_everything_damaged_at_once_is_mended(pulled, remote):
    before = snapshot(pulled.layout.blobs)
    for digest in list(pulled.blobs.all()):
        flip(pulled.blobs.path(digest))
    report = repair(pulled, lambda _: [remote])
    assert report.left == ()
    assert set(report.fetched) == {Digest(f"sha256:{name}") for name in before}
    assert report.fetched_bytes == sum(map(len, before.values()))
    assert snapshot(pulled.layout.blobs) == before
    assert select_local(pulled, REF, around()).plans


def test_only_the_plans_that_were_pulled_are_fetched_again(pulled, remote):
    for path in pulled.layout.blobs.iterdir():
        path.unlink()
    repair(pulled, lambda _: [remote])
    assert set(pulled.blobs.all()) < set(remote._store.blobs.all())


def test_a_damaged_assembled_plan_is_put_aside_and_made_again(pulled, remote):
    selection = select_local(pulled, REF, around())
    engine = assemble(pulled, selection.model, selection.plans["net"], "cuda", Silent()).engine
    before = engine.read_bytes()
    flip(engine)
    report = repair(pulled, lambda _: [])
    assert (report.quarantined, report.fetched, report.left) == (1, (), ())
    assert not engine.exists()
    assert assemble(pulled, selection.model, selection.plans["net"], "cuda", Silent()).engine.read_bytes() == before


def test_damage_that_no_ref_needs_is_only_put_aside(pulled):
    digest = pulled.blobs.put(b"garbage")
    flip(pulled.blobs.path(digest))
    report = repair(pulled, lambda _: [])
    assert (report.quarantined, report.fetched, report.left) == (1, (), ())


@pytest.mark.parametrize("remotes", ["none", "lacks it", "lies"])
def test_what_cannot_be_had_is_named_with_the_refs_that_it_hurts_and_the_rest_is_mended(
    two_models, store, remotes, tmp_path
):
    origin = SimulatedRemote(two_models)
    for name in ("net:1", "other:1"):
        pull(store, origin, Ref.parse(name), around("none"))
    found = kinds(two_models)
    lost, other = found["asset"], found["pack"]
    for digest in (lost, other):
        flip(store.blobs.path(digest))
    if remotes == "lacks it":
        two_models.blobs.path(lost).unlink()
    origin.tamper = {lost: lambda data: iter([data[:-1] + b"?"])} if remotes == "lies" else {}
    report = repair(store, lambda _: [] if remotes == "none" else [origin])
    problems = {each.path: each for each in report.left}
    problem = problems[str(store.blobs.path(lost))]
    assert problem.what == "missing"
    assert problem.refs == ("net:1", "other:1")
    assert ("no remote is configured" if remotes == "none" else "sha256:" + lost.hex[:4]) in problem.detail
    assert (str(store.blobs.path(other)) in problems) == (remotes == "none")
    assert len(list(store.layout.quarantine.iterdir())) == 2, "nothing is deleted"


def test_the_ref_remembers_where_it_came_from(pulled, remote):
    assert pulled.refs.get(REF).source == remote.url


def test_repair_of_a_whole_store_changes_nothing(pulled):
    before = snapshot(pulled.layout.root)
    report = repair(pulled, lambda _: pytest.fail("nothing is to be fetched"))
    assert report.left == report.found.problems == ()
    assert snapshot(pulled.layout.root) == before


def test_a_pack_that_was_fetched_in_part_is_fetched_whole_when_a_part_of_it_is_damaged(store, two_models):
    import msgspec

    from wszoo.store.substitutes import Place, Substitute, write_substitute
    from wszoo.weights.located import known_tensors

    origin = SimulatedRemote(two_models)
    pull(store, origin, REF, around("none"))
    config = read_model(store, model_descriptor(read_index(store, store.refs.get(REF).descriptor))).config
    pack = config.packs[0]
    local = store.blobs.put(store.blobs.path(pack).read_bytes() + b"local")
    places = {
        tensor: tuple(Place(local, *msgspec.structs.astuple(frame)[1:]) for frame in config.frames[tensor])
        for tensor in known_tensors([config])
    }
    write_substitute(store.layout, Substitute(pack=pack, tensors=places))
    store.blobs.path(pack).unlink()
    assert verify(store).problems == ()
    flip(store.blobs.path(local))
    report = repair(store, lambda _: [origin])
    assert report.left == ()
    assert report.fetched == (pack,)
    assert verify(store).problems == ()
