"""Native plans in a store: published as a backend gives them, assembled for a client, refitted with other weights."""

import hashlib

import msgspec
import numpy as np
import pytest
from builders import around, leftovers, network, plan_config, publish_model

from wszoo.assemble import Keep, assemble
from wszoo.backends.protocol import Stripped
from wszoo.building.strip import keep_native
from wszoo.digest import Digest
from wszoo.distribution.pull import select_local
from wszoo.errors import (
    BuildError,
    IncompatibleError,
    IntegrityError,
    LimitError,
    MalformedError,
    NotFoundError,
    UsageError,
)
from wszoo.gpu.machine import Runtime
from wszoo.names import Ref
from wszoo.plans.native import pack_map, pack_plan, read_map, read_plan
from wszoo.plans.native_map import known_weights
from wszoo.progress import Silent
from wszoo.publish import publish, read_published, write_plan
from wszoo.refit import refit
from wszoo.schema.plan import NATIVE, REFIT, Kind, Target
from wszoo.schema.refit import Mode, RefitMap, Rule
from wszoo.weights import gain
from wszoo.weights.graph import graph_from_model

REF, NEW = Ref.parse("net:1"), Ref.parse("net:2")
VERSION = "11.4.0.106"
PLAN = b"ftrt" + bytes(60) + hashlib.sha256(b"kernels").digest() * 20


def _target(**changes):
    facts = {"name": "trt-sm89", "backend": "tensorrt", "version": VERSION, "compute_capabilities": ("8.9",)}
    return Target(**facts | changes)


def _refit_map(graph, mode, **changes):
    weights = tuple(msgspec.structs.replace(each, **changes) for each in known_weights(graph).values())
    return RefitMap(mode=mode, plan_bytes=len(PLAN), weights=weights)


def _add_native(store, ref, tmp_path, *, seed=0, mode=Mode.IDENTICAL, rule=Rule.COPY.value, **target):
    graph = graph_from_model(network(seed))
    found = read_published(store, ref)
    (tmp_path / "plan").write_bytes(PLAN)
    config = plan_config(found.model.config.components["net"], _target(**target), Kind.NATIVE, b"")
    stripped = Stripped(refit=_refit_map(graph, mode, rule=rule), engine_bytes=1 << 20)
    plan = keep_native(store, config, tmp_path / "plan", stripped, graph)
    publish(store, ref, found.model, [plan])
    return plan


def _where(runtimes):
    return around("sm89", tuple(Runtime(backend=name, version=VERSION, devices=("cuda",)) for name in runtimes))


@pytest.fixture
def native(store, tmp_path):
    publish_model(store, "net:1")
    _add_native(store, REF, tmp_path)
    return store


def _assembled(store, ref=REF, **options):
    selection = select_local(store, ref, _where(["tensorrt"]))
    return assemble(store, selection.model, selection.plans["net"], "cuda", Silent(), **options), selection


def test_the_resolver_takes_a_native_plan_and_it_comes_with_its_map_and_weights(native):
    made, selection = _assembled(native)
    assert selection.plans["net"].config.kind == Kind.NATIVE
    assert bytes(made.source.read(0, 1 << 20)) == PLAN
    assert (made.engine, made.keep, made.refit.mode) == (None, True, Mode.IDENTICAL)
    assert {weights.name for weights in made.refit.weights} == {"w", "scale", "b", "v"}
    assert leftovers(native) == []


def test_what_is_shipped_is_the_stripped_plan_and_the_map(native):
    facts = _assembled(native)[1].resolution.choices["net"].candidate.facts
    assert facts.engine_bytes == 1 << 20
    assert facts.plan_bytes < 2000
    assert 0 < facts.shared_bytes < facts.plan_bytes


def test_a_map_with_rules_of_a_later_version_reaches_the_backend_whose_parser_can_refit_without_it(store, tmp_path):
    publish_model(store, "net:1")
    _add_native(store, REF, tmp_path, rule="magic")
    made, _ = _assembled(store)
    assert {weights.rule for weights in made.refit.weights} == {"magic"}


def test_only_weights_are_kept_when_asked(native):
    assert _assembled(native, keep=Keep.WEIGHTS)[0].keep is False


def test_a_tensor_is_hashed_before_it_is_given_to_an_engine(native):
    path = native.blobs.path(read_published(native, REF).model.config.packs[0])
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    made, _ = _assembled(native)
    with pytest.raises(IntegrityError):
        [tensor.load() for tensor in made.graph.tensors]


@pytest.mark.parametrize("media_type", [NATIVE, REFIT])
@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_damaged_or_missing_layer_is_told(native, media_type, how):
    _, selection = _assembled(native)
    (layer,) = [each for each in selection.plans["net"].manifest.layers if each.media_type == media_type]
    path = native.blobs.path(layer.digest)
    path.unlink() if how == "missing" else path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(NotFoundError if how == "missing" else IntegrityError):
        _assembled(native)


def test_a_map_larger_than_any_is_refused_before_it_is_decoded(native, tmp_path, monkeypatch):
    monkeypatch.setattr("wszoo.plans.native.MAX_MAP", 100)
    with pytest.raises(LimitError, match="more than the 100 allowed"):
        _assembled(native)
    with pytest.raises(BuildError, match="up to 100 can be read"):
        _add_native(native, REF, tmp_path)


def test_a_stripped_plan_of_few_bytes_that_decodes_to_many_is_refused(native, monkeypatch):
    whole, stored = bytes(64 << 20), pack_plan(bytes(64 << 20))
    honest = next(plan for plan in read_published(native, REF).plans if plan.config.kind == Kind.NATIVE)
    refit_map = msgspec.structs.replace(read_map(native, honest.manifest), plan_bytes=len(whole))
    config = msgspec.structs.replace(honest.config, engine_digest=Digest.of(whole))
    layers = [(REFIT, native.blobs.put(pack_map(refit_map))), (NATIVE, native.blobs.put(stored))]
    plan = write_plan(native, config, layers)
    monkeypatch.setattr(gain, "FREE_GAIN", len(whole) - gain.MAX_GAIN * len(stored))
    assert read_plan(native, plan.manifest, plan.config, refit_map) == whole
    monkeypatch.setattr(gain, "FREE_GAIN", gain.FREE_GAIN - 1)
    with pytest.raises(LimitError, match=f"claims {len(whole)} bytes, more than the {len(whole) - 1} accepted"):
        read_plan(native, plan.manifest, plan.config, refit_map)


def test_a_stripped_plan_that_nobody_could_read_again_is_not_published(native, tmp_path, monkeypatch):
    monkeypatch.setattr("wszoo.plans.native.MAX_PLAN", len(PLAN) - 1)
    with pytest.raises(BuildError, match=f"up to {len(PLAN) - 1} and"):
        _add_native(native, REF, tmp_path)


def test_weights_of_another_version_are_refused_by_their_digest(native):
    selection = _assembled(native)[1]
    publish_model(native, "net:2", seed=1)
    other = read_published(native, NEW).model
    with pytest.raises(IncompatibleError, match="made from other weights"):
        assemble(native, other, selection.plans["net"], "cuda", Silent())


def test_a_map_that_does_not_fit_the_tensors_is_refused(native, tmp_path):
    found = read_published(native, REF)
    graph = graph_from_model(network(0))
    bad = msgspec.structs.replace(_refit_map(graph, Mode.IDENTICAL).weights[0], count=1)
    refit_map = msgspec.structs.replace(_refit_map(graph, Mode.IDENTICAL), weights=(bad,))
    config = plan_config(found.model.config.components["net"], _target(), Kind.NATIVE, b"")
    (tmp_path / "other").write_bytes(PLAN)
    with pytest.raises(MalformedError, match="out of"):
        keep_native(native, config, tmp_path / "other", Stripped(refit=refit_map, engine_bytes=1), graph)


def test_a_stripped_plan_of_another_digest_is_refused(native):
    selection = _assembled(native)[1]
    plan = selection.plans["net"]
    lying = write_plan(
        native,
        msgspec.structs.replace(plan.config, engine_digest=Digest.of(b"other")),
        [(layer.media_type, layer.digest) for layer in plan.manifest.layers],
    )
    with pytest.raises(IntegrityError, match="the stripped plan of net"):
        assemble(native, selection.model, lying, "cuda", Silent())


def test_an_unknown_thing_to_keep_is_refused():
    from wszoo.assemble import parse_keep

    with pytest.raises(UsageError, match="cannot keep 'engines'"):
        parse_keep("engines")


@pytest.fixture
def versions(store, tmp_path):
    """Two versions of a network that differ in weights only; the first has a plan that takes other weights."""
    publish_model(store, "net:1")
    publish_model(store, "net:2", seed=1)
    _add_native(store, REF, tmp_path, mode=Mode.ANY, name="trt-sm89.refit")
    return store


def test_plans_get_the_weights_of_a_new_version_without_building(versions):
    report = refit(versions, REF, NEW)
    (plan,) = report.plans
    old = _assembled(versions)[1].plans["net"]
    assert plan.manifest.layers == old.manifest.layers
    assert plan.config.weights != old.config.weights
    made, selection = _assembled(versions, NEW)
    assert selection.plans["net"].descriptor == plan.descriptor
    new = {tensor.name: tensor.array() for tensor in graph_from_model(network(1)).tensors}
    for tensor in made.graph.tensors:
        np.testing.assert_array_equal(tensor.array(), new[tensor.name])


def test_refitting_says_why_each_other_plan_was_left(versions, tmp_path):
    _add_native(versions, REF, tmp_path)
    reasons = {plan.config.target.name: reason for plan, reason in refit(versions, REF, NEW).left}
    assert reasons["rtx-sm89"] == "it is splice, not stripped by its builder"
    assert reasons["portable"] == "it is portable, not stripped by its builder"
    assert reasons["trt-sm89"] == "it was built for its own weights only"


def test_another_network_gets_no_plans(versions):
    publish_model(versions, "wide:1", width=96)
    with pytest.raises(IncompatibleError, match="differs in more than the weights"):
        refit(versions, REF, Ref.parse("wide:1"))


def test_a_version_that_is_not_here_is_told(versions):
    with pytest.raises(NotFoundError, match="nothing:1 is not here"):
        refit(versions, REF, Ref.parse("nothing:1"))
