"""New weights for a published network: what becomes of its plans, with real builds."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import onnx_model
from onnx import helper, numpy_helper

import wszoo
from wszoo.cli import main
from wszoo.digest import Digest

PROFILE = ["--profile", "x=1x256:2x256:4x256"]
TARGETS = "portable,rtx-sm86,rtx-sm89"


@pytest.fixture
def run(capfd, tmp_path, monkeypatch):
    """Run a command in a store of its own; returns the exit code, stdout and stderr."""
    monkeypatch.setenv("WSZOO_STORE", str(tmp_path / "store"))

    def call(*words):
        with pytest.raises(SystemExit) as exit_:
            main(words)
        return (exit_.value.code or 0, *capfd.readouterr())

    return call


def network(seed, *, activation="Relu", width=256, gain=2):
    """A dense layer of fp16 whose bias is a tensor, then a product by one number, which stands in the graph."""
    numbers = np.random.default_rng(seed)
    inits = [
        ("w", numbers.standard_normal((256, width)).astype(np.float16)),
        ("b", numbers.standard_normal(width).astype(np.float16)),
        ("gain", np.float16(gain)),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node(activation, ["a"], ["r"]),
        helper.make_node("Mul", ["r", "gain"], ["y"]),
    ]
    return onnx_model(nodes, [("x", 10, ["n", 256])], [("y", 10, ["n", width])], inits)


def save(folder, **models):
    folder.mkdir()
    for name, model in models.items():
        onnx.save(model, folder / f"{name}.onnx")
    return str(folder)


@pytest.fixture
def published(run, tmp_path):
    """``net:1`` with two networks, each for three targets."""
    source = save(tmp_path / "first", body=network(1), head=network(2))
    code, _, err = run("build", "onnx", "--source", source, "--tag", "net:1", "--target", TARGETS, *PROFILE)
    assert code == 0, err
    return source


def changes(out):
    return {
        (each["component"], each["target"]): (each["action"], each["new_bytes"]) for each in json.loads(out)["changes"]
    }


def test_each_plan_is_kept_or_rebuilt_by_its_kind_and_costs_next_to_nothing(run, published, tmp_path):
    source = save(tmp_path / "tuned", body=network(7, gain=3), head=network(2))
    code, out, err = run(
        "build", "onnx", "--source", source, "--weights-only", "--like", "net:1", "--tag", "net:2", "--json"
    )
    assert code == 0, err
    found = changes(out)
    assert {key: action for key, (action, _) in found.items()} == {
        ("body", "portable"): "kept",
        ("body", "rtx-sm86"): "rebuilt",
        ("body", "rtx-sm89"): "rebuilt",
        ("head", "portable"): "kept",
        ("head", "rtx-sm86"): "kept",
        ("head", "rtx-sm89"): "kept",
    }
    # The gain stands in the graph, which is the portable plan's layer, and in the splice plans' literals.
    assert all(new == 0 for (component, _), (_, new) in found.items() if component == "head")
    assert all(
        0 < new < 100
        for (component, target), (_, new) in found.items()
        if (component, target) in {("body", "rtx-sm86"), ("body", "rtx-sm89")}
    )

    zoo = wszoo.Zoo(tmp_path / "client")
    model = zoo.pull("net:2", gpu="sm89", source=str(tmp_path / "store"))
    for name in ("body", "head"):
        assert Digest.of_file(model[name].assemble()) == model[name].facts.engine_digest
    x = np.ones((2, 256), np.float16)
    ours = zoo.pull("net:2", gpu="none", source=str(tmp_path / "store"))["body"].load()(x=x)["y"]
    w, b, gain = (numpy_helper.to_array(init).astype(np.float32) for init in network(7, gain=3).graph.initializer)
    np.testing.assert_allclose(ours, np.maximum(x @ w + b, 0) * gain, rtol=1e-2, atol=0.1)


def test_the_rebuilt_plans_are_those_that_a_whole_build_gives(run, published, tmp_path):
    source = save(tmp_path / "tuned", body=network(7), head=network(2))
    assert run("build", "onnx", "--source", source, "--weights-only", "--like", "net:1", "--tag", "net:2")[0] == 0
    elsewhere = wszoo.Zoo(tmp_path / "elsewhere")
    whole = elsewhere.build("onnx", source, tag="net:2", targets=TARGETS.split(","), profiles=["x=1x256:2x256:4x256"])
    mine = wszoo.Zoo(tmp_path / "store").pull("net:2", gpu="sm86")
    engines = {
        plan.config.component: plan.config.engine_digest
        for plan in whole.built
        if plan.config.target.name == "rtx-sm86"
    }
    assert {name: mine[name].facts.engine_digest for name in mine.components} == engines


def test_the_tag_itself_is_followed_when_nothing_else_is_named(run, published, tmp_path):
    source = save(tmp_path / "tuned", body=network(7), head=network(8))
    code, out, err = run("build", "onnx", "--source", source, "--weights-only", "--tag", "net:1")
    assert code == 0, err
    assert "the earlier plan's operations restore it" in out
    assert json.loads(run("show", "net:1", "--json")[1])["weight_bytes"] > 0
    assert len(json.loads(run("show", "net:1", "--json")[1])["plans"]) == 6


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"activation": "Sigmoid"}, "the node"),
        ({"width": 128}, "tensor 'w', float16 [256, 256], is now 'w', float16 [256, 128]"),
    ],
)
def test_a_network_that_is_another_one_is_refused_and_nothing_is_published(run, published, tmp_path, changed, says):
    source = save(tmp_path / "other", body=network(1, **changed), head=network(2))
    code, _, err = run("build", "onnx", "--source", source, "--weights-only", "--like", "net:1", "--tag", "net:2")
    assert code == 7
    assert "body is not the same network as in net:1" in err
    assert says in " ".join(err.split())
    assert "without --weights-only" in " ".join(err.split())
    assert run("show", "net:2")[0] == 3


def test_a_model_of_other_networks_is_refused(run, published, tmp_path):
    more = save(tmp_path / "more", body=network(3), head=network(4), tail=network(5))
    assert run("build", "onnx", "--source", more, "--tag", "more:1", "--target", "portable")[0] == 0
    for source, like, says in ((published, "more:1", "more:1 has tail too"), (more, "net:1", "no component 'tail'")):
        code, _, err = run("build", "onnx", "--source", source, "--weights-only", "--like", like, "--tag", "net:2")
        assert code == 7
        assert says in err


def test_plans_whose_builder_is_missing_are_left_out_and_said(run, published, tmp_path, monkeypatch):
    from wszoo.backends import installed

    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr(installed, "installed_version", lambda *_: "")
    source = save(tmp_path / "tuned", body=network(7), head=network(2))
    code, out, err = run(
        "build", "onnx", "--source", source, "--weights-only", "--like", "net:1", "--tag", "net:2", "--json"
    )
    assert code == 0, err
    found = changes(out)
    assert found["body", "rtx-sm86"][0] == found["body", "rtx-sm89"][0] == "left out"
    assert found["head", "rtx-sm86"][0] == "kept"  # its weights did not change: nothing has to be built
    why = {each["why"] for each in json.loads(out)["changes"] if each["action"] == "left out"}
    assert "tensorrt" in why.pop()


def test_plans_that_are_not_in_this_store_are_left_out_and_said(run, published, tmp_path, monkeypatch):
    monkeypatch.setenv("WSZOO_STORE", str(tmp_path / "sparse"))
    assert run("pull", "net:1", "--from", str(tmp_path / "store"), "--gpu", "sm89")[0] == 0
    source = save(tmp_path / "tuned", body=network(7), head=network(2))
    code, out, err = run(
        "build", "onnx", "--source", source, "--weights-only", "--like", "net:1", "--tag", "net:2", "--json"
    )
    assert code == 0, err
    found = changes(out)
    assert found["body", "rtx-sm86"][0] == found["body", "portable"][0] == "left out"
    assert found["body", "rtx-sm89"] == ("rebuilt", 0)


def add_native(store, folder, mode):
    """A plan as a backend would strip it, in the place of what cannot be built without a GPU."""
    from msgspec.structs import replace

    from wszoo.backends.protocol import Stripped
    from wszoo.building.strip import keep_native
    from wszoo.names import Ref
    from wszoo.plans.native_map import known_weights
    from wszoo.publish import publish, read_published
    from wszoo.schema.plan import Kind, Target
    from wszoo.schema.refit import RefitMap
    from wszoo.weights.graph import graph_from_file

    published = read_published(store, Ref.parse("net:1"))
    there = next(plan.config for plan in published.plans if plan.config.component == "body")
    graph, data = graph_from_file(folder / "body.onnx"), b"ftrt" + bytes(600)
    (folder / "plan").write_bytes(data)
    stripped = Stripped(
        refit=RefitMap(mode=mode, plan_bytes=len(data), weights=tuple(known_weights(graph).values())),
        engine_bytes=1 << 20,
    )
    target = Target(name="trt-sm89.refit", backend="tensorrt", version="11.4", compute_capabilities=("8.9",))
    config = replace(there, target=target, kind=Kind.NATIVE, provenance={})
    publish(store, Ref.parse("net:1"), published.model, [keep_native(store, config, folder / "plan", stripped, graph)])


@pytest.mark.parametrize(("mode", "action"), [("any", "kept"), ("identical", "left out")])
def test_a_native_plan_that_takes_any_weights_is_kept(run, published, tmp_path, mode, action):
    from wszoo.schema.refit import Mode

    add_native(wszoo.Zoo(tmp_path / "store").store, Path(published), Mode(mode))
    source = save(tmp_path / "tuned", body=network(7), head=network(2))
    code, out, err = run(
        "build", "onnx", "--source", source, "--weights-only", "--like", "net:1", "--tag", "net:2", "--json"
    )
    assert code == 0, err
    assert changes(out)["body", "trt-sm89.refit"] == (action, 0)


def test_some_targets_can_be_asked_for(run, published, tmp_path):
    source = save(tmp_path / "tuned", body=network(7), head=network(8))
    words = ["build", "onnx", "--source", source, "--weights-only", "--like", "net:1", "--tag", "net:2"]
    code, out, err = run(*words, "--target", "portable", "--json")
    assert code == 0, err
    assert changes(out)["body", "rtx-sm86"][0] == "left out"
    code, _, err = run(*words, "--target", "rtx-sm120")
    assert code == 2
    assert "net:1 has no plan for rtx-sm120" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--weights-only", *PROFILE], "keep the profiles of net:1"),
        (["--like", "net:1", "--target", "portable"], "--like goes with --weights-only"),
        ([], "no target to build for"),
    ],
)
def test_requests_that_contradict_themselves_are_usage_errors(run, published, words, says):
    code, _, err = run("build", "onnx", "--source", published, "--tag", "net:1", *words)
    assert code == 2
    assert says in err


def test_following_a_version_that_is_not_there_is_not_found(run, published):
    code, _, err = run("build", "onnx", "--source", published, "--tag", "net:9", "--weights-only")
    assert code == 3
    assert "net:9" in err


def test_a_damaged_earlier_plan_is_no_help_and_no_harm(run, published, tmp_path):
    zoo = wszoo.Zoo(tmp_path / "store")
    plan = zoo.pull("net:1", gpu="sm86")["body"].plan
    path = zoo.store.blobs.path(plan.manifest.layers[-1].digest)
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    source = save(tmp_path / "tuned", body=network(7, gain=3), head=network(2))
    code, out, err = run(
        "build", "onnx", "--source", source, "--weights-only", "--like", "net:1", "--tag", "net:2", "--json"
    )
    assert code == 0, err
    assert changes(out)["body", "rtx-sm86"][0] == "rebuilt"
    model = wszoo.Zoo(tmp_path / "store").pull("net:2", gpu="sm86")
    assert Digest.of_file(model["body"].assemble()) == model["body"].facts.engine_digest


def test_lora_goes_to_the_option_of_that_name(run, published, tmp_path):
    shutil.copy(Path(published) / "body.onnx", tmp_path / "body.onnx")
    words = ["build", "onnx", "--source", published, "--tag", "net:2", "--target", "portable"]
    code, _, err = run(*words, "--lora", "style.safetensors:0.5")
    assert code == 2
    assert "no option named 'lora'" in err
    code, _, err = run(*words, "--lora", "a.safetensors", "--option", "lora=b.safetensors")
    assert code == 2
    assert "say the same" in err
