"""From a network without weights to an ONNX model whose weights are inputs, named as the checkpoint names them.

torch exports shapes; onnxscript then folds what is constant. Weights are inputs while it does: it would otherwise fold
the transposition of a small one into a copy under another name, which no other version of the model would share.
"""

from __future__ import annotations

import importlib
import tempfile
from typing import TYPE_CHECKING, Any

from wszoo.families.bind import QUANTIZED_OPSET
from wszoo.families.torch_export import exporting, require_torch
from wszoo_llm.libraries import require
from wszoo_llm.network import CacheShape, decoder, input_names, output_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx
    import torch

_PREFIX = "net."  # of the wrapper
_HINT = "docs/llm.md lists the architectures that were tried; the whole story is chained to this error"
BATCH, LENGTH, PAST, TOTAL = 2, 3, 5, 8  # sizes to trace with: 2 or more, all different


def export(module: Any, shapes: Sequence[CacheShape], *, every_logit: bool = False) -> onnx.ModelProto:  # noqa: ANN401
    """Export a network whose parameters have shapes and perhaps no meaning.

    Args:
        module: see :func:`wszoo_llm.network.fill_shapes`.
        shapes: of the cache, by layer.
        every_logit: give the logits of all positions, not of the last.

    Returns:
        A model with the inputs ``input_ids``, ``attention_mask``, ``position_ids``, ``past_key_values.N.key`` and
        ``.value``, then one for each parameter; and the outputs ``logits`` and ``present.N.key`` and ``.value``.

    Raises:
        BuildError: torch cannot export it.
        MissingExtraError: torch or onnxscript is not installed.
    """
    return trace(
        decoder(module, every_logit=every_logit),
        _example(module, shapes),
        _dynamic(len(shapes)),
        input_names(len(shapes)),
        output_names(len(shapes)),
    )


def trace(
    wrapped: torch.nn.Module,
    example: Mapping[str, Any],
    dynamic: Mapping[str, Any],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> onnx.ModelProto:
    """Export a module that holds a network as ``net``; parameters that it uses become inputs, without that prefix.

    Args:
        wrapped: in evaluation mode.
        example: arguments of its ``forward``.
        dynamic: names of their dynamic dimensions, as torch takes them.
        inputs: names for the graph's inputs, in order.
        outputs: the same for its outputs.

    Raises:
        BuildError: torch cannot export it.
        MissingExtraError: torch or onnxscript is not installed.
    """
    torch, ir = require_torch(), require("onnx_ir")
    with tempfile.TemporaryDirectory(prefix="wszoo-") as reports, exporting(_name(wrapped), _HINT):
        program = torch.onnx.export(
            wrapped,
            (),
            kwargs=dict(example),
            dynamic_shapes=dict(dynamic),
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=QUANTIZED_OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
            artifacts_dir=reports,  # of failures, which else land in the current folder
        )
        model = program.model
        _weights_to_inputs(ir, model, set(wrapped.state_dict()))
        importlib.import_module("onnxscript.optimizer").optimize(model)
    proto: onnx.ModelProto = ir.serde.serialize_model(model)
    _name_shapes(proto)
    return proto


def _example(module: Any, shapes: Sequence[CacheShape]) -> dict[str, Any]:  # noqa: ANN401
    torch = require_torch()
    dtype = next(module.parameters()).dtype
    past = [
        torch.zeros((BATCH, shape.heads, PAST, width), dtype=dtype)
        for shape in shapes
        for width in (shape.key_width, shape.value_width)
    ]
    return {
        "input_ids": torch.zeros((BATCH, LENGTH), dtype=torch.int64),
        "attention_mask": torch.ones((BATCH, TOTAL), dtype=torch.int64),
        "position_ids": torch.arange(PAST, TOTAL)[None].repeat(BATCH, 1),
        "past": past,
    }


def _dynamic(layers: int) -> dict[str, Any]:
    return {
        "input_ids": {0: "batch", 1: "length"},
        "attention_mask": {0: "batch", 1: "total"},
        "position_ids": {0: "batch", 1: "length"},
        "past": [{0: "batch", 2: "past"}] * (2 * layers),
    }


def _weights_to_inputs(ir: Any, model: Any, names: set[str]) -> None:  # noqa: ANN401
    graph = model.graph
    for name in [name for name in graph.initializers if name in names]:
        value = graph.initializers.pop(name)
        if not value.uses():
            continue
        value.type, value.shape = ir.TensorType(value.const_value.dtype), ir.Shape(value.const_value.shape)
        value.const_value = None
        value.name = name.removeprefix(_PREFIX)
        graph.inputs.append(value)


def _name_shapes(model: onnx.ModelProto) -> None:
    # torch writes "past + length" where an output's dimension is computed; that is the whole sequence.
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param") and "+" in dim.dim_param:
                dim.dim_param = "total"


def _name(wrapped: torch.nn.Module) -> str:
    return f"this {type(wrapped.net).__name__}"
