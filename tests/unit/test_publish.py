"""Publishing: documents as specified, merged with what others publish under the same tag."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import workers
from builders import around, plan_of, publish_model

from wszoo.digest import Digest
from wszoo.distribution.pull import pull, select_local
from wszoo.errors import StorageError
from wszoo.names import Ref
from wszoo.publish import publish, read_published, write_plan
from wszoo.schema import model as model_schema
from wszoo.schema import plan as plan_schema
from wszoo.schema.oci import INDEX, MANIFEST, TITLE
from wszoo.store.documents import plan_descriptors, plan_facts, read_index
from wszoo.store.store import Store
from wszoo.store.verify import verify

REF = Ref.parse("net:1")


def targets(store, ref=REF):
    return {plan.config.target.name for plan in read_published(store, ref).plans}


def raw(store, digest):
    return json.loads(store.blobs.read(digest, limit=1 << 20))


def test_documents_are_what_the_format_says(origin):
    entry = origin.refs.get(REF)
    index = raw(origin, entry.descriptor.digest)
    assert (index["schemaVersion"], index["mediaType"]) == (2, INDEX)
    model, *plans = index["manifests"]
    assert model["artifactType"] == model_schema.ARTIFACT
    assert {plan["artifactType"] for plan in plans} == {plan_schema.ARTIFACT}
    assert {each["mediaType"] for each in index["manifests"]} == {MANIFEST}
    for plan in plans:
        assert {"org.wszoo.plan", "org.wszoo.component", "org.wszoo.target"} == plan["annotations"].keys()
    manifest = raw(origin, Digest(model["digest"]))
    assert manifest["config"]["mediaType"] == model_schema.CONFIG
    kinds = [layer["mediaType"] for layer in manifest["layers"]]
    assert kinds == [model_schema.GRAPH, model_schema.PACK, model_schema.ASSET]
    assert manifest["layers"][-1]["annotations"] == {TITLE: "labels.txt"}
    for layer in manifest["layers"]:
        assert origin.blobs.size(Digest(layer["digest"])) == layer["size"]


def test_annotations_repeat_what_the_configs_say(origin):
    index = read_index(origin, origin.refs.get(REF).descriptor)
    for descriptor in plan_descriptors(index):
        from wszoo.store.documents import facts_from_document, read_plan

        facts = plan_facts(origin, descriptor)
        assert facts == facts_from_document(read_plan(origin, descriptor))


def test_publishing_the_same_again_changes_no_byte(origin):
    before = origin.refs.get(REF).descriptor
    blobs = set(origin.blobs.all())
    assert publish_model(origin, "net:1") == before
    assert set(origin.blobs.all()) == blobs


def test_plans_of_the_same_model_stay_when_others_are_added(origin):
    publish_model(origin, "net:1", targets=("rtx-sm120",), portable=False)
    assert targets(origin) == {"rtx-sm86", "rtx-sm89", "rtx-sm120", "portable"}


def test_plans_of_another_model_are_replaced(origin):
    publish_model(origin, "net:1", seed=5, targets=("rtx-sm120",), portable=False)
    assert targets(origin) == {"rtx-sm120"}
    assert verify(origin).problems == ()


def test_a_plan_for_the_same_target_replaces_the_one_before(origin):
    before = plan_of(origin, "net:1", "rtx-sm89")
    model = read_published(origin, REF).model
    from msgspec.structs import replace

    changed = replace(before.config, provenance={"flags": "new"})
    layers = [(layer.media_type, layer.digest) for layer in before.manifest.layers]
    publish(origin, REF, model, [write_plan(origin, changed, layers)])
    after = plan_of(origin, "net:1", "rtx-sm89")
    assert after.config.provenance == {"flags": "new"}
    assert len(read_published(origin, REF).plans) == 3


def test_publishing_on_a_sparse_clone_keeps_only_plans_that_are_here(store, remote):
    pull(store, remote, REF, around("sm86"))
    publish_model(store, "net:1", targets=("rtx-sm120",), portable=False)
    assert targets(store) == {"rtx-sm86", "rtx-sm120"}
    assert verify(store).problems == ()


def test_processes_that_publish_to_one_tag_at_once_lose_no_plan(tmp_path):
    root, names = str(tmp_path / "new"), ["rtx-sm75", "rtx-sm86", "rtx-sm89", "rtx-sm120"]
    workers.together(workers.publish_target, [(root, "net:1", name) for name in names])
    store = Store(Path(root))
    assert targets(store) == set(names)
    assert verify(store).problems == ()
    assert select_local(store, REF, around("sm75")).plans["net"].config.target.name == "rtx-sm75"


def test_a_layer_that_vanished_is_named_and_nothing_is_published(origin):
    plan = plan_of(origin, "net:1", "rtx-sm89")
    layer = plan.manifest.layers[-1]
    before = origin.refs.get(REF)
    origin.blobs.path(layer.digest).unlink()
    with pytest.raises(StorageError, match=layer.digest):
        write_plan(origin, plan.config, [(layer.media_type, layer.digest)])
    assert origin.refs.get(REF) == before


def test_giving_up_after_many_lost_races_says_so(origin, monkeypatch):
    published = read_published(origin, REF)
    monkeypatch.setattr(type(origin.refs), "swap", lambda *_, **__: False)
    with pytest.raises(StorageError, match="keep changing net:1"):
        publish(origin, REF, published.model, published.plans)


def test_nothing_is_published_before(store):
    published = read_published(store, REF)
    assert (published.entry, published.model, published.plans) == (None, None, ())
