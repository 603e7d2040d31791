"""Model packages, opened and run by the reader that is part of ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from builders import network, plan_config, publish_model, replace_in_index, run_ort

from wszoo.errors import UsageError
from wszoo.names import Ref
from wszoo.plans.native import pack_map, pack_plan
from wszoo.publish import publish, read_published, write_plan
from wszoo.schema.model import GRAPH
from wszoo.schema.plan import NATIVE, REFIT, Kind, Profile, Target
from wszoo.schema.refit import RefitMap


def opened(out):
    package = onnxruntime.ModelPackage.open(str(out))
    info = package.get_info()
    package.close()
    return info


def test_onnx_runtime_opens_the_package_and_finds_every_variant(export):
    (component,) = opened(export("ortpackage"))["components"]
    assert component["name"] == "net"
    assert {variant["name"]: (variant["ep"], variant["device"]) for variant in component["variants"]} == {
        "rtx-sm86": ("NvTensorRTRTXExecutionProvider", "gpu"),
        "rtx-sm89": ("NvTensorRTRTXExecutionProvider", "gpu"),
        "portable-cuda": ("CUDAExecutionProvider", "gpu"),
        "portable-cpu": ("CPUExecutionProvider", "cpu"),
    }


def test_onnx_runtime_picks_the_cpu_variant_here_and_computes_with_the_shared_weights(export):
    package = onnxruntime.ModelPackageContext(str(export("ortpackage")))
    selected = package.select_component("net", onnxruntime.ModelPackageOptions(onnxruntime.SessionOptions()))
    assert selected.get_selected_variant_name() == "portable-cpu"
    x = np.random.default_rng(0).standard_normal((2, 64), np.float32)
    np.testing.assert_array_equal(selected.create_session().run(None, {"x": x})[0], run_ort(network(), {"x": x})[0])


def test_shared_assets_are_named_as_onnx_runtime_hashes_them(export):
    out = export("ortpackage")
    folders = list((out / "shared_assets").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert onnxruntime.ModelPackage.compute_directory_hash(str(folder)) == folder.name.replace("-", ":")


def test_the_models_own_files_are_found_through_the_metadata(export):
    info = opened(export("ortpackage"))
    uri = json.loads(info["additional_metadata_json"])["assets"]
    path = next(asset["resolved_path"] for asset in info["shared_assets"] if asset["uri"] == uri)
    assert Path(path, "labels.txt").read_bytes() == b"cat\ndog\n"


def test_an_rtx_variant_says_by_its_engines_header_where_it_runs(export):
    out = export("ortpackage")
    variants = json.loads((out / "net" / "component.json").read_bytes())["variants"]
    for target in ("rtx-sm86", "rtx-sm89"):
        engine = (out / "net" / target / "model.engine").read_bytes()
        assert variants[target]["compatibility_string"] == engine[:64].hex()


def test_components_with_equal_weights_share_them(store, export):
    publish_model(store, "net:1", targets=())

    def twice(config):
        return msgspec.structs.replace(config, components={**config.components, "twin": config.components["net"]})

    replace_in_index(store, "net:1", model_config=twice)
    published = read_published(store, Ref("net", "1"))
    (plan,) = published.plans
    layer = published.model.config.components["net"].graph.layer
    copy = write_plan(store, msgspec.structs.replace(plan.config, component="twin"), [(GRAPH, layer)])
    publish(store, Ref("net", "1"), published.model, [copy])
    out = export("ortpackage", store=store)
    assert len(list((out / "shared_assets").rglob("*.data"))) == 1
    for name in ("net", "twin"):
        package = onnxruntime.ModelPackageContext(str(out))
        selected = package.select_component(name, onnxruntime.ModelPackageOptions(onnxruntime.SessionOptions()))
        assert selected.create_session().run(None, {"x": np.ones((1, 64), np.float32)})[0].shape == (1, 32)


def test_two_plans_for_one_target_are_told_apart_by_nothing_that_the_package_has(origin, export):
    published = read_published(origin, Ref("net", "1"))
    plan = next(plan for plan in published.plans if plan.config.target.name == "rtx-sm89")
    other = msgspec.structs.replace(plan.config, profiles=(Profile(name="large", inputs={}),))
    twin = write_plan(origin, other, [(layer.media_type, layer.digest) for layer in plan.manifest.layers])
    publish(origin, Ref("net", "1"), published.model, [*published.plans, twin])
    with pytest.raises(UsageError, match="has 2 plans of net for rtx-sm89") as error:
        export("ortpackage")
    assert "--gpu" in error.value.hint


def test_without_a_portable_plan_there_is_no_graph_in_it(export):
    out = export("ortpackage", targets=["rtx-sm89"])
    assert list(json.loads((out / "net" / "component.json").read_bytes())["variants"]) == ["rtx-sm89"]
    assert not list(out.rglob("*.data"))
    with pytest.raises(Exception, match="No suitable model variant"):
        onnxruntime.ModelPackageContext(str(out)).select_component(
            "net", onnxruntime.ModelPackageOptions(onnxruntime.SessionOptions())
        )


def publish_fake_natives(store, *targets):
    """Add plans of the native kind, whose stripped bytes no TensorRT has made, to ``net:1``."""
    published = read_published(store, Ref("net", "1"))
    component, plans = published.model.config.components["net"], []
    for target in targets:
        stripped = f"a fake of a stripped plan for {target}".encode() * 10
        facts = Target(name=target, backend="tensorrt", version="10.13.3.9", compute_capabilities=("8.9",))
        refit = pack_map(RefitMap(mode="identical", plan_bytes=len(stripped), weights=()))
        layers = [(REFIT, store.blobs.put(refit)), (NATIVE, store.blobs.put(pack_plan(stripped)))]
        plans.append(write_plan(store, plan_config(component, facts, Kind.NATIVE, stripped), layers))
    publish(store, Ref("net", "1"), published.model, plans)


def test_fake_stripped_engines_find_their_weights_in_one_shared_asset(store, export):
    publish_model(store, "net:1", targets=("rtx-sm86",))
    publish_fake_natives(store, "trt-sm89", "trt-sm80+")
    out = export("ortpackage", store=store)
    (weights,) = out.rglob("*.data")
    assert sorted(path.name for path in weights.parent.iterdir()) == [
        "model.onnx",
        "model.onnx.data",
        "trt-sm80+.stripped.engine",
        "trt-sm80+_ctx.onnx",
        "trt-sm89.stripped.engine",
        "trt-sm89_ctx.onnx",
    ]
    (node,) = onnx.load(weights.parent / "trt-sm89_ctx.onnx").graph.node
    given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    assert (given["ep_cache_context"], given["onnx_model_filename"]) == (b"trt-sm89.stripped.engine", b"model.onnx")


def test_onnx_runtime_resolves_fake_stripped_variants_and_runs_the_portable_one_beside_them(store, export):
    publish_model(store, "net:1", targets=("rtx-sm86",))
    publish_fake_natives(store, "trt-sm89")
    out = export("ortpackage", store=store)
    (component,) = opened(out)["components"]
    assert {variant["name"]: variant["ep"] for variant in component["variants"]} == {
        "rtx-sm86": "NvTensorRTRTXExecutionProvider",
        "trt-sm89": "TensorrtExecutionProvider",
        "portable-cuda": "CUDAExecutionProvider",
        "portable-cpu": "CPUExecutionProvider",
    }
    selected = onnxruntime.ModelPackageContext(str(out)).select_component(
        "net", onnxruntime.ModelPackageOptions(onnxruntime.SessionOptions())
    )
    x = np.random.default_rng(0).standard_normal((2, 64), np.float32)
    np.testing.assert_array_equal(selected.create_session().run(None, {"x": x})[0], run_ort(network(), {"x": x})[0])
