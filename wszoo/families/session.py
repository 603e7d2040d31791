"""A graph in ONNX Runtime on the CPU, with its weights handed over where they lie: what exports are checked against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx

from wszoo.errors import BuildError, MissingExtraError
from wszoo.weights.graph import external_initializers
from wszoo.weights.tensor import dtype_from_onnx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wszoo.schema.model import Value
    from wszoo.weights.graph import Graph
    from wszoo.weights.tensor import Tensor

_BYTE = 8


class GraphSession:
    """Runs a graph; has the shape of :class:`wszoo.families.protocol.RunnableComponent`.

    Args:
        graph: the network.
        name: for messages.

    Raises:
        BuildError: ONNX Runtime refuses the graph.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, graph: Graph, name: str = "model") -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "torch", "comparing an export with its original") from error
        self._graph = graph
        self._name = name
        options = ort.SessionOptions()
        options.log_severity_level = 3
        proto, kept = _inline_packed(graph)
        self._values = [_ort_value(ort, tensor) for tensor in kept]  # must live as long as the session
        options.add_external_initializers([tensor.name for tensor in kept], self._values)
        try:
            self._session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises pybind classes without a public base
            raise BuildError(f"ONNX Runtime refuses {name!r}: {error}") from error
        self._ort = ort

    @property
    def inputs(self) -> Sequence[Value]:
        """What it takes."""
        return self._graph.inputs

    @property
    def outputs(self) -> Sequence[Value]:
        """What it gives."""
        return self._graph.outputs

    def __call__(self, **arrays: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run once.

        Raises:
            BuildError: ONNX Runtime fails.
        """
        feed = {name: _ort_array(self._ort, array) for name, array in arrays.items()}
        names = [value.name for value in self._graph.outputs]
        try:
            results = self._session.run_with_ort_values(names, feed)
        except Exception as error:  # as above
            shapes = {name: list(array.shape) for name, array in arrays.items()}
            raise BuildError(f"ONNX Runtime failed to run {self._name!r} on {shapes}: {error}") from error
        return {value.name: _numpy(value, result) for value, result in zip(self._graph.outputs, results, strict=True)}


def _inline_packed(graph: Graph) -> tuple[bytes, list[Tensor]]:
    # An OrtValue takes its shape from a NumPy array, and packed 4-bit elements have none: those stay in the graph.
    packed = {tensor.name: tensor for tensor in graph.tensors if tensor.dtype.bits < _BYTE}
    if not packed:
        return graph.proto, list(graph.tensors)
    model = onnx.ModelProto.FromString(graph.proto)
    for init in external_initializers(model.graph):
        if init.name in packed:
            init.ClearField("external_data")
            init.data_location = onnx.TensorProto.DEFAULT
            init.raw_data = packed[init.name].load().tobytes()
    return model.SerializeToString(), [tensor for tensor in graph.tensors if tensor.name not in packed]


def _ort_value(ort: Any, tensor: Tensor) -> Any:  # noqa: ANN401 - onnxruntime ships no types
    return _ort_array(ort, tensor.array())


def _ort_array(ort: Any, array: NDArray[Any]) -> Any:  # noqa: ANN401
    for kind, number in _FOREIGN.items():
        if array.dtype == kind:
            bits = np.ascontiguousarray(array).view(np.uint8 if kind.itemsize == 1 else np.uint16)
            return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, number)
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def _numpy(value: Value, result: Any) -> NDArray[Any]:  # noqa: ANN401
    return np.asarray(result.numpy()) if value.dtype != "bfloat16" else _bfloat16(result)


def _bfloat16(result: Any) -> NDArray[Any]:  # noqa: ANN401
    return np.asarray(result.numpy()).view(ml_dtypes.bfloat16)


_FOREIGN = {
    dtype_from_onnx(number).numpy: number
    for number in (
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.FLOAT8E4M3FN,
        onnx.TensorProto.FLOAT8E4M3FNUZ,
        onnx.TensorProto.FLOAT8E5M2,
        onnx.TensorProto.FLOAT8E5M2FNUZ,
    )
}
