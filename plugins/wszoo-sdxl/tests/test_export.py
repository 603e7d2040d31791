from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from wszoo_sdxl import components as parts
from wszoo_sdxl.compare import compare, widened
from wszoo_sdxl.family import SdxlFamily
from wszoo_sdxl.layout import COMPONENTS, read_layout
from wszoo_sdxl.load import load

from wszoo.errors import BuildError
from wszoo.families.compare import TOLERANCES
from wszoo.names import is_portable_file_name
from wszoo.weights.tensor import tensor_from_array

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wszoo.families.protocol import ExportRequest

Exported = "tuple[LocalModel, dict[str, str]]"


def test_all_five_components_are_exported_with_dynamic_sizes(exported: Exported) -> None:
    model, _ = exported
    assert tuple(model.components) == COMPONENTS
    takes = {name: {value.name: value.shape for value in graph.inputs} for name, graph in model.graphs.items()}
    assert takes == {
        "text_encoder": {"input_ids": ("batch", 77)},
        "text_encoder_2": {"input_ids": ("batch", 77)},
        "unet": {
            "sample": ("batch", 4, "height", "width"),
            "timestep": (1,),
            "encoder_hidden_states": ("batch", 77, 64),
            "text_embeds": ("batch", 32),
            "time_ids": ("batch", 6),
        },
        "vae_decoder": {"latents": ("batch", 4, "height", "width")},
        "vae_encoder": {"pixels": ("batch", 3, "height", "width")},
    }
    gives = {name: tuple(value.name for value in graph.outputs) for name, graph in model.graphs.items()}
    assert gives == parts.OUTPUTS


def test_every_component_agrees_with_torch_in_fp32_and_says_by_how_much(exported: Exported) -> None:
    _, options = exported
    assert options["compared_with"] == "torch"
    for name in COMPONENTS:
        assert float(options[f"error.{name}"].split()[0]) < TOLERANCES["fp32"].rtol


@pytest.fixture
def smaller(copy: Path) -> Path:
    """The tiny model with a unet of one level, which exports in a third of the time."""
    import diffusers
    from wszoo_sdxl import tiny

    config = {
        **diffusers.UNet2DConditionModel.load_config(copy / "unet"),
        "down_block_types": ["CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D"],
        "block_out_channels": [32],
        "attention_head_dim": [2],
        "transformer_layers_per_block": [1],
    }
    unet = diffusers.UNet2DConditionModel.from_config(config)
    tiny.fill(unet, 0)
    unet.save_pretrained(copy / "unet")
    return copy


def test_fp16_unet_agrees_with_torch_and_never_concatenates_two_types(
    smaller: Path, request_for: Callable[..., ExportRequest]
) -> None:
    export = SdxlFamily().export(request_for(smaller, components="unet"))
    (unet,) = export.components
    assert float(export.options["error.unet"].split()[0]) < TOLERANCES["fp16"].rtol
    assert {tensor.dtype.name for tensor in unet.graph.tensors} == {"float16"}
    model = onnx.shape_inference.infer_shapes(onnx.ModelProto.FromString(unet.graph.proto), strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.input)}
    joined = [node for node in model.graph.node if node.op_type == "Concat"]
    assert joined
    for node in joined:
        assert len({types[name] for name in node.input if name in types}) <= 1, node.name


@pytest.mark.parametrize(("precision", "inside"), [("mixed", {"float32", "float16"}), ("bf16", {"bfloat16"})])
def test_the_vae_has_a_precision_of_its_own(
    base: Path, request_for: Callable[..., ExportRequest], precision: str, inside: set[str]
) -> None:
    export = SdxlFamily().export(request_for(base, components="vae_decoder", vae_precision=precision))
    (decoder,) = export.components
    assert {tensor.dtype.name for tensor in decoder.graph.tensors} == inside
    assert decoder.graph.inputs[0].dtype == parts.PRECISIONS[precision]
    assert export.options["vae_precision"] == precision


def test_the_vae_is_fp32_beside_an_fp16_unet(base: Path, request_for: Callable[..., ExportRequest]) -> None:
    options = SdxlFamily().export(request_for(base)).options
    assert (options["precision"], options["vae_precision"]) == ("fp16", "fp32")


def test_small_files_travel_under_names_that_every_system_takes(exported: Exported) -> None:
    model, _ = exported
    assert all(is_portable_file_name(name) for name in model.assets)
    assert {"tokenizer.vocab.json", "tokenizer_2.merges.txt", "scheduler.scheduler_config.json"} <= set(model.assets)


def test_export_with_a_wrong_weight_is_not_published(exported: Exported, base: Path) -> None:
    graph = exported[0].graphs["vae_decoder"]
    tensors = list(graph.tensors)
    wrong = tensors[0].array().copy()
    wrong.flat[0] += 10
    tensors[0] = tensor_from_array(tensors[0].name, wrong)
    layout = read_layout(base, "vae_decoder")
    module = parts.wrap("vae_decoder", load(layout, "vae_decoder", "fp32", ()))
    shape = parts.shape_of("vae_decoder", layout.configs["vae"])
    case = parts.example(graph.inputs, shape, 0, 1, (4, 6))
    compare(graph, module, [case], precision="fp32", name="vae_decoder")
    with pytest.raises(BuildError, match="differs from torch"):
        compare(replace(graph, tensors=tuple(tensors)), module, [case], precision="fp32", name="vae_decoder")


def test_widening_leaves_a_graph_without_bf16_as_it_is(exported: Exported) -> None:
    graph = exported[0].graphs["text_encoder"]
    same = widened(graph)
    assert [tensor.dtype.name for tensor in same.tensors] == [tensor.dtype.name for tensor in graph.tensors]
    np.testing.assert_array_equal(same.tensors[0].array(), graph.tensors[0].array())


def test_refiner_has_one_text_encoder_and_five_time_ids(
    refiner: Path, request_for: Callable[..., ExportRequest]
) -> None:
    layout = read_layout(refiner)
    assert layout.components == COMPONENTS[1:]
    shape = parts.shape_of("unet", layout.configs["unet"])
    assert (shape.time_ids, shape.context, shape.pooled) == (5, 32, 32)
    export = SdxlFamily().export(request_for(refiner))
    assert not any(name.startswith("tokenizer.") for name in export.assets)
    assert any(name.startswith("tokenizer_2.") for name in export.assets)


def test_real_sdxl_configs_are_understood() -> None:
    unet = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "in_channels": 4,
        "block_out_channels": [320, 640, 1280],
    }
    base = {**unet, "projection_class_embeddings_input_dim": 2816, "cross_attention_dim": 2048}
    assert parts.shape_of("unet", base) == parts.Shape()
    refiner = {**unet, "projection_class_embeddings_input_dim": 2560, "cross_attention_dim": 1280}
    refiner["block_out_channels"] = [384, 768, 1536, 1536]
    assert parts.shape_of("unet", refiner) == parts.Shape(context=1280, time_ids=5, multiple=8)
