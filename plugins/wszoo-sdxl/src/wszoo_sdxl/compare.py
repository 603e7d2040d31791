"""Comparing an export with torch without a second copy of the weights, so that the full size is compared too.

ONNX Runtime on a CPU computes fp16 in fp32, and its optimizer folds every weight into an fp32 copy: 10 GB for the unet.
Without optimizer each weight is widened when its node runs, and dropped. The truth, torch in fp32, is had the same
way: the fp16 module itself, with each operation's operands widened when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from wszoo.backends.initializers import split
from wszoo.errors import BuildError
from wszoo.families.compare import TOLERANCES, Comparison, Tolerance, compare_outputs
from wszoo.families.torch_export import require_torch
from wszoo.weights.graph import Graph
from wszoo.weights.tensor import DTYPES, Tensor, dtype_of
from wszoo_sdxl.components import to_torch
from wszoo_sdxl.libraries import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import torch
    from numpy.typing import NDArray

_LOG_FATAL = 4


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
    run = _session(widened(graph) if precision == "bf16" else graph, name)
    outputs = [value.name for value in graph.outputs]
    for case in cases:
        theirs, noise = _torch(module, case, outputs, wide=False), {}
        if precision != "fp32":
            exact = _torch(module, case, outputs, wide=True)
            noise = {key: float(np.abs(theirs[key] - exact[key]).max(initial=0)) for key in outputs}
            theirs = exact
        result = compare_outputs(result, run(case), theirs, name, noise=noise)
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


def _session(graph: Graph, name: str) -> Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]:
    ort = require("onnxruntime", "export")
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_FATAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_mem_pattern = options.enable_cpu_mem_arena = False  # an arena never gives memory back
    # By default all casts of weights come first, as they wait for nothing; by priority each comes when it is needed.
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    proto, tensors = split(graph)
    weights = [_weight(ort, tensor) for tensor in tensors]
    options.add_external_initializers([tensor.name for tensor in tensors], weights)
    try:
        session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's classes have no base in common
        raise BuildError(f"ONNX Runtime refuses {name!r}: {error}") from error
    names = [value.name for value in graph.outputs]
    dtypes = {value.name: dtype_of(value.dtype).numpy for value in graph.inputs}

    def run(case: Mapping[str, NDArray[Any]], _kept: object = weights) -> dict[str, NDArray[Any]]:
        try:
            found = session.run(names, {key: array.astype(dtypes[key]) for key, array in case.items()})
        except Exception as error:  # as above
            raise BuildError(f"ONNX Runtime failed to run {name!r}: {error}") from error
        return dict(zip(names, found, strict=True))

    return run


def _weight(ort: Any, tensor: Tensor) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    plain = tensor.array().view(f"u{tensor.dtype.bits // 8}")  # where it lies, in types that onnxruntime can name
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(plain, tensor.dtype.onnx)


def widened(graph: Graph) -> Graph:
    """The same graph with fp32 wherever it has bf16, which ONNX Runtime's CPU kernels do not know."""
    model = onnx.ModelProto.FromString(graph.proto)
    narrow, wide = DTYPES["bfloat16"], DTYPES["float32"]
    for init in model.graph.initializer:
        if init.data_type == narrow.onnx:
            if init.raw_data:
                init.raw_data = np.frombuffer(init.raw_data, narrow.numpy).astype(np.float32).tobytes()
            init.data_type = wide.onnx
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == narrow.onnx:
            value.type.tensor_type.elem_type = wide.onnx
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in {"to", "dtype"} and attribute.i == narrow.onnx:
                attribute.i = wide.onnx
            if attribute.HasField("t") and attribute.t.data_type == narrow.onnx:
                numbers = onnx.numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(numbers, attribute.t.name))
    values = {"bfloat16": "float32"}
    return Graph(
        model.SerializeToString(),
        tuple(_wide_tensor(tensor) for tensor in graph.tensors),
        *(
            tuple(
                type(value)(name=value.name, dtype=values.get(value.dtype, value.dtype), shape=value.shape)
                for value in side
            )
            for side in (graph.inputs, graph.outputs)
        ),
    )


def _wide_tensor(tensor: Tensor) -> Tensor:
    if tensor.dtype.name != "bfloat16":
        return tensor

    def load() -> NDArray[np.uint8]:
        return tensor.array().astype(np.float32).reshape(-1).view(np.uint8)

    return Tensor(tensor.name, DTYPES["float32"], tensor.shape, load)
