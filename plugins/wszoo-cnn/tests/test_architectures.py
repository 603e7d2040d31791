"""Each architecture, in each precision, exported and compared with torch; the comparison is the family's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers
from wszoo_cnn.family import CnnFamily

from wszoo.families.local import local_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wszoo.families.protocol import ExportRequest

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("ResNet", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "bottleneck"}),
    "convnext": ("ConvNext", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32}),
    "efficientnet": (
        "EfficientNet",
        {
            "image_size": 32,
            "width_coefficient": 0.25,
            "depth_coefficient": 0.25,
            "hidden_dim": 320,
            "in_channels": [32, 16],
            "out_channels": [16, 24],
            "kernel_sizes": [3, 5],
            "strides": [1, 2],
            "num_block_repeats": [1, 2],
            "expand_ratios": [1, 6],
            "depthwise_padding": [],
        },
    ),
    "mobilenet_v1": ("MobileNetV1", {"image_size": 32, "depth_multiplier": 0.25}),
    "mobilenet_v2": ("MobileNetV2", {"image_size": 32, "depth_multiplier": 0.25}),
    "vit": (
        "ViT",
        {
            "image_size": 32,
            "patch_size": 8,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        },
    ),
}


def enliven(model: torch.nn.Module) -> None:
    """Give a network weights that keep signals near 1 in every layer, as training does.

    As made, EfficientNet's and MobileNet's logits are 1e-30: a comparison of such numbers proves nothing.
    """
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if tensor.ndim > 1:
                fan_in = tensor[0].numel()
                tensor.normal_(0, (2 / fan_in) ** 0.5)
            elif name.endswith(("running_var", "weight", "layer_scale_parameter")):
                tensor.uniform_(0.5, 1.5)
            else:
                tensor.normal_(0, 0.02)


def save_small(kind: str, folder: Path) -> torch.nn.Module:
    prefix, arguments = SMALL[kind]
    torch.manual_seed(0)
    config = getattr(transformers, f"{prefix}Config")(num_labels=7, **arguments)
    model = getattr(transformers, f"{prefix}ForImageClassification")(config).eval()
    enliven(model)
    model.save_pretrained(folder)
    return model


# Both MobileNets have 13 and 17 blocks however narrow they are: 10 s for each export, so one precision has to do.
CASES = [(kind, precision) for kind in SMALL for precision in ("fp32", "fp16")]
SLOW = {("mobilenet_v1", "fp16"), ("mobilenet_v2", "fp32")}


@pytest.mark.parametrize(("kind", "precision"), [case for case in CASES if case not in SLOW])
def test_export_equals_torch(
    kind: str, precision: str, tmp_path: Path, request_for: Callable[..., ExportRequest]
) -> None:
    original = save_small(kind, tmp_path / "checkpoint")

    request = request_for(tmp_path / "checkpoint", precision=precision, image_size="32")
    export = CnnFamily().export(request)

    assert export.options["precision"] == precision
    assert export.options["compared_cases"] == "3"
    (component,) = export.components
    dtype = {"fp32": "float32", "fp16": "float16"}[precision]
    assert component.graph.inputs[0].dtype == dtype
    assert component.graph.inputs[0].shape == ("batch", 3, 32, 32)
    assert component.graph.outputs[0].shape == ("batch", 7)
    assert {tensor.dtype.name for tensor in component.graph.tensors} == {dtype}
    # Once more on other inputs, at a batch size that the family did not compare, and in fp32 for both precisions.
    pixels = np.random.default_rng(99).standard_normal((3, 3, 32, 32), np.float32)
    with torch.inference_mode():
        expected = original.float()(torch.from_numpy(pixels)).logits.numpy()
    logits = local_model(export)["model"].load()(pixel_values=pixels.astype(dtype))["logits"]
    assert np.ptp(expected, axis=0).max() > 0.02  # the network does depend on its input
    error = np.abs(logits.astype(np.float32) - expected).max()
    assert error <= {"fp32": 1e-4, "fp16": 5e-2}[precision] * max(1.0, np.abs(expected).max())


def test_export_keeps_each_weight_once(tmp_path: Path, request_for: Callable[..., ExportRequest]) -> None:
    original = save_small("vit", tmp_path / "checkpoint")
    (component,) = CnnFamily().export(request_for(tmp_path / "checkpoint")).components
    parameters = sum(tensor.numel() * tensor.element_size() for tensor in original.state_dict().values())
    assert component.graph.weight_bytes <= parameters * 1.05


def test_graph_names_no_path_of_this_machine(tmp_path: Path, request_for: Callable[..., ExportRequest]) -> None:
    save_small("resnet", tmp_path / "checkpoint")
    (component,) = CnnFamily().export(request_for(tmp_path / "checkpoint", image_size="32")).components
    assert b"site-packages" not in component.graph.proto
    assert b"stack_trace" not in component.graph.proto
    assert b".py" not in component.graph.proto
