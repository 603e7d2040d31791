"""Model packages, opened and run by the reader that is part of ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
from builders import network, publish_model, replace_in_index, run_ort

from wszoo.errors import UsageError
from wszoo.names import Ref
from wszoo.publish import publish, read_published, write_plan
from wszoo.schema.model import GRAPH
from wszoo.schema.plan import Profile


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
