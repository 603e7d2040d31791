"""Comparing an export with torch without a second copy of the weights, so that the full size is compared too.

ONNX Runtime's side is the frugal reference, which widens each weight when its node runs, and drops it. The truth, torch
in fp32, is had the same way: the fp16 module itself, with each operation's operands widened when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx

from wszoo.backends.onnxruntime import reference
from wszoo.families.compare import TOLERANCES, Comparison, Tolerance, compare_outputs
from wszoo.families.torch_export import require_torch
from wszoo.weights.apart import Graph
from wszoo.weights.tensor import DTYPES, Tensor, dtype_of
from wszoo_sdxl.components import to_torch
from wszoo_sdxl.libraries import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

    from wszoo.schema.model import Value

NARROW, WIDE = DTYPES["bfloat16"], DTYPES["float32"]


def compare(
    graph: Graph,
    module: torch.nn.Module,
    cases: Iterable[Mapping[str, NDArray[Any]]],
    *,
    precision: str,
    name: str,
) -> Comparison:
    """Run a graph in ONNX Runtime and its module in torch, and compare every output.

    fp32 is compared with the module as it is; less with the module computing in fp32 on the same rounded weights, and
    the export may be three times as far off as the module in its own precision is.

    Args:
        graph: the export.
        module: what was exported.
        cases: inputs by name, in the export's types.
        precision: of both.
        name: for messages.

    Raises:
        BuildError: they differ by more than :data:`wszoo.families.compare.TOLERANCES`, or a number is not finite.
        MissingExtraError: onnxruntime is not installed.
    """
    tolerance: Tolerance = TOLERANCES["fp16" if precision == "mixed" else precision]
    result = Comparison(tolerance=tolerance)
    ours = widened(graph) if precision == "bf16" else graph
    run, dtypes = reference(ours, name, frugal=True), {value.name: dtype_of(value.dtype).numpy for value in ours.inputs}
    outputs = [value.name for value in graph.outputs]
    for case in cases:
        theirs, noise = _torch(module, case, outputs, wide=False), {}
        if precision != "fp32":
            exact = _torch(module, case, outputs, wide=True)
            noise = {key: float(np.abs(theirs[key] - exact[key]).max(initial=0)) for key in outputs}
            theirs = exact
        found = run(**{key: array.astype(dtypes[key]) for key, array in case.items()})
        result = compare_outputs(result, found, theirs, name, noise=noise)
    result.require_meaning(name)
    return result


def _torch(
    module: torch.nn.Module, case: Mapping[str, NDArray[Any]], outputs: Sequence[str], *, wide: bool
) -> dict[str, NDArray[np.float32]]:
    torch = require_torch()
    tensors = {key: _to_torch(array, wide=wide) for key, array in case.items()}
    with torch.inference_mode(), _wide_mode() if wide else torch.inference_mode():
        found = module(**tensors)
    every = [found] if isinstance(found, torch.Tensor) else list(found)
    return {name: tensor.float().numpy() for name, tensor in zip(outputs, every, strict=True)}


def _to_torch(array: NDArray[Any], *, wide: bool) -> torch.Tensor:
    tensor = to_torch(array)
    return tensor.float() if wide and tensor.is_floating_point() else tensor


def _wide_mode() -> Any:  # noqa: ANN401 - a class of torch's, which is imported late
    """While it is entered, operations get fp16 and bf16 operands in fp32, and give fp32 where those are asked for."""
    torch = require_torch()
    overrides, tree_map = require("torch.overrides", "export"), require("torch.utils._pytree", "export").tree_map

    narrow = (torch.float16, torch.bfloat16)

    def widen(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, torch.Tensor):
            return value.float() if value.dtype in narrow else value
        return torch.float32 if value in narrow else value

    class Wide(overrides.TorchFunctionMode):  # type: ignore[misc,name-defined]
        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: object,
            args: tuple[object, ...] = (),
            kwargs: dict[str, object] | None = None,
        ) -> Any:  # noqa: ANN401
            del types
            with torch._C.DisableTorchFunction():  # noqa: SLF001 - widening is not to be widened
                return func(*tree_map(widen, args), **tree_map(widen, kwargs or {}))

    return Wide()


def widened(graph: Graph) -> Graph:
    """The same graph with fp32 wherever it has bf16, which ONNX Runtime's CPU kernels do not know."""
    model = onnx.ModelProto.FromString(graph.proto)
    for init in model.graph.initializer:
        _widen_initializer(init)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == NARROW.onnx:
            value.type.tensor_type.elem_type = WIDE.onnx
    for node in model.graph.node:
        for attribute in node.attribute:
            _widen_attribute(attribute)
    tensors = tuple(_wide_tensor(tensor) for tensor in graph.tensors)
    inputs, outputs = (tuple(map(_wide_value, side)) for side in (graph.inputs, graph.outputs))
    return Graph(model.SerializeToString(), tensors, inputs, outputs)


def _widen_initializer(init: onnx.TensorProto) -> None:
    if init.data_type == NARROW.onnx:
        if init.raw_data:
            init.raw_data = np.frombuffer(init.raw_data, NARROW.numpy).astype(np.float32).tobytes()
        init.data_type = WIDE.onnx


def _widen_attribute(attribute: onnx.AttributeProto) -> None:
    if attribute.name in {"to", "dtype"} and attribute.i == NARROW.onnx:
        attribute.i = WIDE.onnx
    if attribute.HasField("t") and attribute.t.data_type == NARROW.onnx:
        numbers = onnx.numpy_helper.to_array(attribute.t).astype(np.float32)
        attribute.t.CopyFrom(onnx.numpy_helper.from_array(numbers, attribute.t.name))


def _wide_value(value: Value) -> Value:
    return msgspec.structs.replace(value, dtype=WIDE.name) if value.dtype == NARROW.name else value


def _wide_tensor(tensor: Tensor) -> Tensor:
    if tensor.dtype.name != NARROW.name:
        return tensor

    def load() -> NDArray[np.uint8]:
        return tensor.array().astype(np.float32).reshape(-1).view(np.uint8)

    return Tensor(tensor.name, WIDE, tensor.shape, load)
