from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from wszoo.testing.families import export_request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wszoo.families.protocol import ExportRequest


def classifier(batch: int | str = "batch", classes: int = 3) -> onnx.ModelProto:
    """``scores = pixels @ weight`` over 4x4 images; the weight's rows are class ``pixel % classes``."""
    weight = np.eye(classes, dtype=np.float32)[np.arange(16) % classes]
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, 1, 4, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with one classifier."""
    folder = tmp_path / "source"
    folder.mkdir()
    onnx.save(classifier(), folder / "digits.onnx")
    return folder


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[..., ExportRequest]:
    """An export request, with an empty scratch folder."""

    return lambda source, *profiles, **given: export_request(source, tmp_path / "scratch", *profiles, **given)


@pytest.fixture
def make_classifier() -> Callable[..., onnx.ModelProto]:
    return classifier
