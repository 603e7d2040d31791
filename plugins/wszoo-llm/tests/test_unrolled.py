"""A network of which some layers were traced and the others made from them is the network that transformers runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from wszoo_llm import graph, layers, network, source, tiny, traced, unroll
from wszoo_llm.family import LlmFamily

from wszoo.families.compare import TOLERANCES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wszoo.families.protocol import ExportRequest

LAYERS = 7
KINDS = ["sliding_attention"] * 2 + ["full_attention"] + ["sliding_attention"] * 3 + ["full_attention"]


@pytest.mark.parametrize(
    ("kind", "changes", "chosen"),
    [("llama", {}, "0, 1, 6"), ("phi", {}, "0, 1, 6"), ("gemma3", {"layer_types": KINDS}, "0, 1, 2, 6")],
)
def test_every_layer_computes_what_it_does_in_transformers(
    kind: str, changes: dict[str, object], chosen: str, tmp_path: Path, request_for: Callable[..., ExportRequest]
) -> None:
    folder = tiny.make(tmp_path / kind, kind, num_hidden_layers=LAYERS, **changes)
    export = LlmFamily().export(request_for(folder))
    (component,) = export.components
    assert export.options["traced_layers"] == chosen
    assert export.options["compared_with"] == "transformers, all layers"
    assert float(export.options["error"].split()[0]) < TOLERANCES["fp32"].rtol
    taken = [value.name for value in component.graph.inputs]
    assert taken == network.input_names(LAYERS)
    assert [value.name for value in component.graph.outputs] == network.output_names(LAYERS)
    found = {layers.layer_of(tensor.name) for tensor in component.graph.tensors}
    assert found == {None, *range(LAYERS)}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, list[object]]:
    """Two layers of each of two kinds, traced, and their kinds."""
    types = ["sliding_attention", "full_attention"] * 2
    folder = tiny.make(tmp_path_factory.mktemp("mixed") / "gemma3", "gemma3", num_hidden_layers=4, layer_types=types)
    read = source.read_source(folder)
    module = network.bare_module(read, "fp32")
    kinds = layers.kinds(module)
    assert kinds is not None
    shapes = network.cache_shapes(module)
    network.fill_shapes(module)
    return graph.export(module, shapes), kinds


def test_unrolled_graph_is_valid_and_as_long_as_asked(mixed: tuple[onnx.ModelProto, list[object]]) -> None:
    model, (sliding, full, *_) = mixed
    made = unroll.unroll(model, [0, 1, 2, 9], [sliding, *[full, sliding] * 4, full])
    onnx.checker.check_model(made, full_check=True)
    products = [sum(node.op_type == "MatMul" for node in each.graph.node) for each in (model, made)]
    assert (products[1] - 1) / (products[0] - 1) == 10 / 4  # one is the output layer's
    assert [value.name for value in made.graph.output] == network.output_names(10)


def test_layers_that_only_seem_to_be_of_one_kind_are_not_unrolled(mixed: tuple[onnx.ModelProto, list[object]]) -> None:
    model, _ = mixed
    with pytest.raises(unroll.Unlike, match="layer 0 takes"):
        unroll.unroll(model, [0, 1, 2, 9], ["same"] * 10)


def test_whole_network_is_traced_where_unrolling_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise unroll.Unlike("no")

    monkeypatch.setattr(traced, "unroll", refuse)
    read = source.read_source(tiny.make(tmp_path / "llama", num_hidden_layers=5))
    made = traced.trace(read, "fp32", network.bare_module(read, "fp32"))
    assert not made.unrolled
    assert made.layers == (0, 1, 2, 3, 4)
    assert "past_key_values.4.key" in {value.name for value in made.model.graph.input}


def test_two_layers_of_each_kind_between_the_first_and_the_last_stand_for_all() -> None:
    assert layers.representatives(["a"] * 32) == [0, 1, 31]
    assert layers.representatives(["a", "b"] * 13) == [0, 1, 2, 3, 25]
    assert layers.representatives(["a", "b", "c"]) == [0, 1, 2]


def test_layers_are_told_apart_by_their_settings_and_not_by_their_number(tmp_path: Path) -> None:
    folder = tiny.make(tmp_path / "gemma3", "gemma3", num_hidden_layers=LAYERS, layer_types=KINDS)
    kinds = layers.kinds(network.bare_module(source.read_source(folder), "fp32"))
    assert kinds is not None
    assert [kinds.index(kind) for kind in kinds] == [0, 0, 2, 0, 0, 0, 2]


def test_names_of_layers_are_read_and_changed_once() -> None:
    assert layers.layer_of("model.layers.12.mlp.3.weight") == 12
    assert layers.layer_of("lm_head.weight") is None
    assert layers.in_layer("model.layers.12.mlp.3.weight", 5) == "model.layers.5.mlp.3.weight"
    assert layers.in_layer("past_key_values.0.key", 31) == "past_key_values.31.key"
