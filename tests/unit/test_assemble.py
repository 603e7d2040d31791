"""Assembling: the very bytes that the builder wrote, kept, and nothing else under their name."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest
from builders import around, leftovers, network, plan_of, publish_model, run_ort, snapshot, synthetic_plan

from wszoo.assemble import Keep, assemble
from wszoo.digest import Digest
from wszoo.distribution.pull import select_local
from wszoo.errors import IncompatibleError, IntegrityError, MalformedError, NotFoundError, StorageError
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.publish import read_published
from wszoo.schema.plan import Kind
from wszoo.weights.graph import attach, graph_from_model

REF = Ref.parse("net:1")


def assembled(store, gpu="sm89", **changes):
    """Assemble what ``gpu`` gets, after changing the plan's config."""
    selection = select_local(store, REF, around(gpu))
    plan = selection.plans["net"]
    if changes:
        plan = replace(plan, config=msgspec.structs.replace(plan.config, **changes))
    return assemble(store, selection.model, plan, "cuda", Silent())


@pytest.mark.parametrize("gpu", ["sm86", "sm89"])
def test_an_assembled_plan_is_what_the_builder_wrote(origin, gpu):
    made = assembled(origin, gpu)
    assert made.engine.read_bytes() == synthetic_plan(graph_from_model(network()), f"rtx-{gpu}")
    assert made.engine.name == f"{made.config.engine_tree.hex}.plan"
    assert leftovers(origin) == [made.engine.name]


def test_an_assembled_plan_is_kept_and_taken_from_the_cache(origin):
    first = assembled(origin).engine
    written = first.stat().st_mtime_ns
    origin.blobs.path(plan_of(origin, "net:1", "rtx-sm89").manifest.layers[0].digest).unlink()
    assert assembled(origin).engine == first
    assert first.stat().st_mtime_ns == written


def test_a_truncated_plan_in_the_cache_is_made_again(origin):
    engine = assembled(origin).engine
    whole = engine.read_bytes()
    engine.write_bytes(whole[:-1])
    assert assembled(origin).engine.read_bytes() == whole


def test_a_portable_plan_needs_no_file_and_computes_the_same(origin):
    made = assembled(origin, "none")
    assert made.engine is None
    tensors = {tensor.name: tensor for tensor in made.graph.tensors}
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    again = attach(made.graph.proto, tensors)
    onnx.checker.check_model(onnx.ModelProto.FromString(again))
    np.testing.assert_array_equal(run_ort(again, {"x": x})[0], run_ort(network(), {"x": x})[0])
    assert leftovers(origin) == []


def test_a_plan_for_other_weights_is_refused(origin):
    with pytest.raises(IncompatibleError, match="made from other weights"):
        assembled(origin, weights=Digest.of(b"other"))
    assert leftovers(origin) == []


def test_a_plan_for_a_component_that_the_model_lacks_is_refused(origin):
    with pytest.raises(MalformedError, match="'unet', which the model does not have"):
        assembled(origin, component="unet")


def test_a_kind_that_this_version_cannot_assemble_is_refused(origin):
    with pytest.raises(IncompatibleError, match="woven"):
        assembled(origin, kind="woven")


def test_a_plan_that_says_native_and_has_no_refit_map_is_malformed(origin):
    with pytest.raises(MalformedError, match="a native plan has 0 layers of type"):
        assembled(origin, kind=Kind.NATIVE)


def test_only_weights_are_kept_when_asked(origin):
    selection = select_local(origin, REF, around("sm89"))
    made = assemble(origin, selection.model, selection.plans["net"], "cuda", Silent(), keep=Keep.WEIGHTS)
    whole = synthetic_plan(graph_from_model(network()), "rtx-sm89")
    assert bytes(made.source.read(0, len(whole))) == whole
    assert (made.engine, leftovers(origin)) == (None, [])


def test_a_plan_that_is_kept_already_is_used_though_only_weights_are_to_be_kept(origin):
    engine = assembled(origin).engine
    selection = select_local(origin, REF, around("sm89"))
    made = assemble(origin, selection.model, selection.plans["net"], "cuda", Silent(), keep=Keep.WEIGHTS)
    assert (made.engine, made.source) == (engine, None)


def test_a_streamed_plan_of_another_digest_is_refused_before_a_byte_is_read(origin):
    selection = select_local(origin, REF, around("sm89"))
    plan = selection.plans["net"]
    lying = replace(plan, config=msgspec.structs.replace(plan.config, engine_tree=Digest.of(b"other")))
    with pytest.raises(IntegrityError, match="the plan of net for rtx-sm89"):
        assemble(origin, selection.model, lying, "cuda", Silent(), keep=Keep.WEIGHTS)


def test_bytes_of_another_digest_are_refused_and_not_kept(origin):
    with pytest.raises(IntegrityError, match="the plan of net for rtx-sm89 is damaged"):
        assembled(origin, engine_tree=Digest.of(b"other"))
    assert leftovers(origin) == []


@pytest.mark.parametrize("bytes_more", [-1, 1, 1 << 40])
def test_a_plan_of_another_size_is_refused_and_not_kept(origin, bytes_more):
    size = plan_of(origin, "net:1", "rtx-sm89").config.engine_bytes
    with pytest.raises((IntegrityError, StorageError)):
        assembled(origin, engine_bytes=size + bytes_more)
    assert leftovers(origin) == []


@pytest.mark.parametrize("what", ["pack", "base", "layer", "graph"])
@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_damaged_or_missing_part_is_told_and_nothing_is_kept(origin, what, how):
    plan = plan_of(origin, "net:1", "rtx-sm89")
    model = read_published(origin, REF).model.config
    digests = {
        "pack": model.packs[0],
        "base": plan.manifest.layers[0].digest,
        "layer": plan.manifest.layers[1].digest,
        "graph": model.components["net"].graph.layer,
    }
    path = origin.blobs.path(digests[what])
    if how == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x40
        path.write_bytes(data)
    with pytest.raises(NotFoundError if how == "missing" else IntegrityError):
        assembled(origin)
    assert leftovers(origin) == []


def test_a_disk_without_room_for_the_plan_is_told_first(origin, monkeypatch):
    import shutil

    usage = shutil.disk_usage(origin.layout.root)
    monkeypatch.setattr("wszoo.store.files.shutil.disk_usage", lambda _: usage._replace(free=1))
    before = snapshot(origin.layout.root)
    with pytest.raises(StorageError, match="to assemble the plan, and only 1 are free"):
        assembled(origin)
    assert snapshot(origin.layout.root) == before


def test_two_models_with_equal_weights_share_packs_and_engines(origin):
    publish_model(origin, "copy:1")
    engine = assembled(origin).engine
    selection = select_local(origin, Ref.parse("copy:1"), around("sm89"))
    assert assemble(origin, selection.model, selection.plans["net"], "cuda", Silent()).engine == engine
