"""Precisions: what is stored as what, and what the quantized versions have in common with the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from wszoo_llm import tiny
from wszoo_llm.family import LlmFamily

from wszoo.digest import Digest
from wszoo.families.compare import TOLERANCES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wszoo.families.protocol import ExportRequest
    from wszoo.weights.graph import Graph


def graph_of(request: ExportRequest) -> tuple[Graph, dict[str, str]]:
    export = LlmFamily().export(request)
    (component,) = export.components
    return component.graph, dict(export.options)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("half") / "llama", precision="fp16", num_hidden_layers=1)


def test_int4_is_compared_and_its_loss_is_told_by_layer(half: Path, request_for: Callable[..., ExportRequest]) -> None:
    graph, options = graph_of(request_for(half, precision="int4"))
    quantized = [tensor for tensor in graph.tensors if tensor.dtype.name == "int4"]
    assert {tensor.name.split(".")[-2] for tensor in quantized} == {"weight"}
    assert options["quantized"] == f"{len(quantized)} of 12 weights"
    assert 0.05 < float(options["error.layer.0"].split()[0]) < 0.2
    assert 0 < float(options["error.logits"].split()[0]) < 1
    assert float(options["error"].split()[0]) < TOLERANCES["fp16"].rtol


@pytest.mark.parametrize(("precision", "kind", "loss"), [("int8", "int8", 0.02), ("fp8", "float8e4m3fn", 0.05)])
def test_versions_share_embeddings_norms_and_output_with_fp16(
    half: Path, request_for: Callable[..., ExportRequest], precision: str, kind: str, loss: float
) -> None:
    graph, options = graph_of(request_for(half, precision=precision, compare="no"))
    assert options["compared_with"].startswith("nothing")
    assert float(options["error.layer.0"].split()[0]) < loss
    plain = {tensor.name: tensor for tensor in graph.tensors if tensor.dtype.name == "float16"}
    shared = {name for name in plain if not name.endswith("_scales")}
    assert shared == {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
    }
    from wszoo_llm import source, weights

    there = weights.read_tensors(source.read_source(half))
    assert all(Digest.of(plain[name].load()) == Digest.of(there[name].load()) for name in shared)
    assert sum(tensor.dtype.name == kind for tensor in graph.tensors) == 7


def test_bf16_is_kept_and_compared_in_fp32(tmp_path: Path, request_for: Callable[..., ExportRequest]) -> None:
    folder = tiny.make(tmp_path / "bf16", "qwen2", precision="bf16", num_hidden_layers=1)
    graph, options = graph_of(request_for(folder))
    assert {tensor.dtype.name for tensor in graph.tensors} == {"bfloat16"}
    assert (options["precision"], options["compared_with"]) == ("bf16", "transformers, all layers")


def test_tied_embedding_is_stored_once_and_stays_out_of_quantization(
    tmp_path: Path, request_for: Callable[..., ExportRequest]
) -> None:
    folder = tiny.make(tmp_path / "tied", "qwen3", precision="fp16", num_hidden_layers=1)
    graph, _ = graph_of(request_for(folder, precision="int4", compare="no"))
    words = [tensor for tensor in graph.tensors if tiny.WORDS in tensor.shape]
    assert [tensor.dtype.name for tensor in words] == ["float16"]
