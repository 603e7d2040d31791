"""A store of format version 1 as it was written when that format was made, read by today's code.

``golden/store-v1`` came from ``publish_model(store, "net:1", width=16)`` in ``builders.py``, with ``wszoo/`` folders
that hold nothing left out. It is never made again: a later format gets its own store beside it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from builders import SimulatedRemote, around, network, run_ort

from wszoo.assemble import assemble
from wszoo.digest import Digest
from wszoo.distribution.pull import pull, select_local
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.publish import read_published
from wszoo.schema.decode import MAX_DOCUMENT, decode, encode
from wszoo.schema.model import ModelConfig
from wszoo.schema.oci import REF_NAME, Index, Layout, Manifest
from wszoo.schema.plan import Kind, PlanConfig
from wszoo.store.refs import RefRecord
from wszoo.store.store import Store
from wszoo.store.verify import verify
from wszoo.weights.graph import attach

GOLDEN = Path(__file__).parents[1] / "golden" / "store-v1"
REF = Ref.parse("net:1")
INDEX_DIGEST = "sha256:5d7c769ccf5cb8e387638bc548152e589b7b0ef7c0f0d622771eec69d70640d1"
ENGINES = {
    "rtx-sm86": "sha256:918d825263180b732dc8565d9f0a5f13410a98b655c28fd8ca13c59ea5f8f8f1",
    "rtx-sm89": "sha256:aa95b249f3e1746c17ee3b6bb8b0c35e23ead3b33703ec36a79cd47f4dbeb4af",
}


@pytest.fixture
def golden(tmp_path):
    """A copy, since reading may make folders."""
    return Store(shutil.copytree(GOLDEN, tmp_path / "golden"))


def documents(store):
    """Every JSON document of the store: its name, its type and its bytes."""
    published = read_published(store, REF)
    yield "layout", Layout, store.layout.marker.read_bytes()
    yield "index.json", Index, store.layout.index.read_bytes()
    (record,) = store.layout.refs.rglob("record.json")
    yield "record", RefRecord, record.read_bytes()
    blobs = [("index", Index, published.entry.descriptor)]
    for document, config in ((published.model, ModelConfig), *((plan, PlanConfig) for plan in published.plans)):
        blobs += [("manifest", Manifest, document.descriptor), ("config", config, document.manifest.config)]
    for name, kind, descriptor in blobs:
        yield name, kind, store.blobs.read(descriptor.digest, limit=MAX_DOCUMENT)


def test_a_version_1_store_is_whole():
    store = Store(GOLDEN)
    assert verify(store).problems == ()
    assert [entry.ref for entry in store.refs.all()] == [REF]
    assert store.refs.get(REF).descriptor.digest == INDEX_DIGEST


def test_every_version_1_document_is_understood_to_the_last_byte(golden):
    seen = list(documents(golden))
    assert [name for name, _, _ in seen] == ["layout", "index.json", "record", "index"] + ["manifest", "config"] * 4
    for name, kind, data in seen:
        assert encode(decode(data, kind, what=name)) == data


def test_version_1_plans_are_still_chosen_and_assembled(golden):
    plans = {plan.config.target.name: plan.config for plan in read_published(golden, REF).plans}
    assert {name: plan.kind for name, plan in plans.items()} == {
        "portable": Kind.PORTABLE,
        "rtx-sm86": Kind.SPLICE,
        "rtx-sm89": Kind.SPLICE,
    }
    for gpu in ("sm86", "sm89"):
        selection = select_local(golden, REF, around(gpu))
        made = assemble(golden, selection.model, selection.plans["net"], "cuda", Silent())
        assert Digest.of_file(made.engine) == ENGINES[f"rtx-{gpu}"]


def test_a_version_1_model_still_computes_the_same(golden):
    selection = select_local(golden, REF, around("none"))
    graph = assemble(golden, selection.model, selection.plans["net"], "cpu", Silent()).graph
    x = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    again = attach(graph.proto, {tensor.name: tensor for tensor in graph.tensors})
    np.testing.assert_array_equal(run_ort(again, {"x": x})[0], run_ort(network(width=16), {"x": x})[0])


def test_a_version_1_store_can_be_pulled_from_also_as_another_tool_copies_it(golden, store):
    shutil.rmtree(golden.layout.private)
    index = decode(golden.layout.index.read_bytes(), Index, what="index.json")
    assert [each.annotations[REF_NAME] for each in index.manifests] == ["net:1"]
    pull(store, SimulatedRemote(golden), REF, around("sm89"))
    assert verify(store).problems == ()
