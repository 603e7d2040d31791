from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from wszoo.errors import BuildError, LimitError, MalformedError, NotFoundError, UsageError
from wszoo.families.local import local_model
from wszoo.families.onnx import OnnxFamily

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wszoo.families.protocol import ExportRequest

    Make = Callable[..., ExportRequest]

BATCH = "pixels=1x1x4x4:2x1x4x4:8x1x4x4"


def test_single_file_is_the_component_model(source: Path, request_for: Make) -> None:
    for path in (source, source / "digits.onnx"):
        export = OnnxFamily().export(request_for(path, BATCH, licence="MIT"))
        (component,) = export.components
        assert component.name == "model"
        assert component.profiles[0].inputs["pixels"].max == (8, 1, 4, 4)
        assert [tensor.name for tensor in component.graph.tensors] == ["weight"]
        assert export.licence == "MIT"
        assert export.provenance["onnx"] == onnx.__version__


def test_exported_graph_computes_what_the_file_does(source: Path, request_for: Make) -> None:
    network = local_model(OnnxFamily().export(request_for(source, BATCH)))["model"].load()
    pixels = np.random.default_rng(0).random((2, 1, 4, 4), np.float32)
    weight = np.eye(3, dtype=np.float32)[np.arange(16) % 3]
    np.testing.assert_allclose(network(pixels=pixels)["scores"], pixels.reshape(2, 16) @ weight, rtol=1e-6)


def test_several_files_are_components_by_their_stems(
    source: Path, request_for: Make, make_classifier: Callable[..., onnx.ModelProto]
) -> None:
    onnx.save(make_classifier(batch=1), source / "head.onnx")
    components = {c.name: c for c in OnnxFamily().export(request_for(source, "digits/" + BATCH)).components}
    assert list(components) == ["digits", "head"]
    assert components["head"].profiles == ()


def test_external_data_is_mapped(source: Path, request_for: Make) -> None:
    model = onnx.load(source / "digits.onnx")
    onnx.save(model, source / "digits.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (component,) = OnnxFamily().export(request_for(source, BATCH)).components
    assert component.graph.tensors[0].array().shape == (16, 3)


def test_assets_travel(source: Path, request_for: Make) -> None:
    (source / "assets").mkdir()
    (source / "assets" / "labels.txt").write_text("a\nb\nc\n")
    (source / "assets" / ".DS_Store").write_text("x")
    assert OnnxFamily().export(request_for(source, BATCH)).assets == {"labels.txt": b"a\nb\nc\n"}


def test_assets_must_be_small_plain_files_with_portable_names(source: Path, request_for: Make) -> None:
    folder = source / "assets"
    (folder / "inner").mkdir(parents=True)
    with pytest.raises(UsageError, match="inner is not a regular file"):
        OnnxFamily().export(request_for(source, BATCH))
    (folder / "inner").rmdir()
    (folder / "link").symlink_to(source / "digits.onnx")
    with pytest.raises(UsageError, match="link is not a regular file"):
        OnnxFamily().export(request_for(source, BATCH))
    (folder / "link").unlink()
    (folder / "aux.txt").write_text("")
    with pytest.raises(UsageError, match=r"'aux\.txt' has a name that Windows cannot store"):
        OnnxFamily().export(request_for(source, BATCH))
    (folder / "aux.txt").unlink()
    (folder / "large").write_bytes(bytes((16 << 20) + 1))
    with pytest.raises(LimitError, match="large has more than 16777216 bytes"):
        OnnxFamily().export(request_for(source, BATCH))


def test_assets_may_be_links_in_the_cache_of_the_hub(source: Path, request_for: Make, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--digits" / "snapshots" / "abc"
    (snapshot / "assets").mkdir(parents=True)
    blobs = tmp_path / "models--org--digits" / "blobs"
    blobs.mkdir()
    (blobs / "1").write_bytes((source / "digits.onnx").read_bytes())
    (blobs / "2").write_bytes(b"a\nb\nc\n")
    (snapshot / "model.onnx").symlink_to(blobs / "1")
    (snapshot / "assets" / "labels.txt").symlink_to(blobs / "2")
    assert OnnxFamily().export(request_for(snapshot, BATCH)).assets == {"labels.txt": b"a\nb\nc\n"}


def test_assets_that_differ_only_in_case_are_refused(source: Path, request_for: Make) -> None:
    (source / "assets").mkdir()
    for name in ("Labels.txt", "labels.txt"):
        (source / "assets" / name).write_text(name)
    with pytest.raises(UsageError, match="differ only in upper and lower case"):
        OnnxFamily().export(request_for(source, BATCH))


def test_missing_source_or_graph_is_named(tmp_path: Path, request_for: Make) -> None:
    with pytest.raises(NotFoundError, match="no such file or folder"):
        OnnxFamily().export(request_for(tmp_path / "nowhere"))
    with pytest.raises(NotFoundError, match=r"no \*\.onnx file"):
        OnnxFamily().export(request_for(tmp_path))


def test_file_that_is_no_model_is_malformed(tmp_path: Path, request_for: Make) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff" * 64)
    with pytest.raises(MalformedError, match="not an ONNX model"):
        OnnxFamily().export(request_for(tmp_path))


def test_component_name_must_be_plain(
    source: Path, request_for: Make, make_classifier: Callable[..., onnx.ModelProto]
) -> None:
    onnx.save(make_classifier(), source / "my head.onnx")
    with pytest.raises(UsageError, match="not a component's name: 'my head'"):
        OnnxFamily().export(request_for(source))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "fp16"}, "cannot change the precision to 'fp16'"),
        ({"license": "MIT"}, r"no option named 'license'[\s\S]*licence"),
    ],
)
def test_wrong_requests_are_usage_errors(
    source: Path, request_for: Make, arguments: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        OnnxFamily().export(request_for(source, BATCH, **arguments))


def test_dynamic_input_needs_a_profile_and_the_hint_shows_one(source: Path, request_for: Make) -> None:
    with pytest.raises(UsageError, match='--profile "pixels=1x1x4x4:1x1x4x4:8x1x4x4"'):
        OnnxFamily().export(request_for(source))


def test_model_that_the_checker_refuses_is_not_published(source: Path, request_for: Make) -> None:
    model = onnx.load(source / "digits.onnx")
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, source / "digits.onnx")
    with pytest.raises(BuildError, match=r"checker refuses.*digits\.onnx.*NoSuchOperator"):
        OnnxFamily().export(request_for(source, BATCH))


def test_checker_sees_subgraphs_and_accepts_weights_in_them(tmp_path: Path, request_for: Make) -> None:
    weight = onnx.numpy_helper.from_array(np.ones(64, np.float32), "inner")
    branch = helper.make_graph(
        [helper.make_node("Add", ["x", "inner"], ["sum"])],
        "branch",
        [],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [64])],
        [weight],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["same"])],
        "other",
        [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, [64])],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=other)],
        "choice",
        [
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [64]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    (component,) = OnnxFamily().export(request_for(tmp_path / "m.onnx")).components
    assert [tensor.name for tensor in component.graph.tensors] == ["inner"]


def test_importing_the_family_loads_no_heavy_library() -> None:
    code = "import sys, wszoo.families.onnx; print({'onnx', 'torch', 'onnxruntime', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
