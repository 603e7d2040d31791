"""An ONNX Runtime session over weights that stay where they are: mapped from the store, given by name."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from wszoo.backends.initializers import split
from wszoo.backends.inputs import check_names, check_values, host_array
from wszoo.errors import BuildError, IncompatibleError
from wszoo.weights.foreign import parse_model
from wszoo.weights.tensor import dtype_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wszoo.schema.model import Value
    from wszoo.weights.graph import Graph
    from wszoo.weights.tensor import DType, Tensor

_LOG = logging.getLogger(__name__)
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_FATAL = 4  # what ONNX Runtime reports also comes as an exception; its own log would go to the user's terminal
_PREAMBLE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (?:This is an invalid model\. )?")


def check_graph(ort: Any, component: str, graph: Graph) -> None:  # noqa: ANN401 - the module
    """Make ONNX Runtime resolve every node and type of a graph with its weights, and let go of it.

    Raises:
        BuildError: it refuses; the message has its reason, which names the node.
        IncompatibleError: an input or output has 4-bit elements.
        MalformedError: the graph and its tensors do not belong together.
    """
    check_values(component, graph)
    try:
        _session(ort, graph, _options(ort, frugal=True), [_CPU])
    except _Refused as error:
        raise BuildError(
            f"ONNX Runtime refuses the network {component!r}: {error}",
            hint="change the export so that every node is an operator of the ONNX standard with matching types",
        ) from error.__cause__


class OrtEngine:
    """A portable plan, loaded.

    Args:
        ort: the ``onnxruntime`` module.
        component: the network's name, for messages.
        graph: the network; its tensors' memory is used for as long as the engine lives.
        device: ``cuda`` or ``cpu``; without CUDA in this ONNX Runtime the CPU is used either way.
        frugal: take little memory and more time: weights stay as they are, and each is widened when its node runs.

    Raises:
        IncompatibleError: ONNX Runtime refuses the graph, or an input or output has 4-bit elements.
        MalformedError: the graph and its tensors do not belong together.
    """

    def __init__(
        self,
        ort: Any,  # noqa: ANN401 - the module
        component: str,
        graph: Graph,
        device: str,
        *,
        frugal: bool = False,
    ) -> None:
        self._ort = ort
        self._component = component
        self._graph = graph
        self._fed = [tensor.name for tensor in split(graph)[1]] if frugal else []
        check_values(component, graph)
        providers = _providers(ort, device)
        try:
            make = _fed_session if frugal else _session
            self._session, self._weights = make(ort, graph, _options(ort, frugal=frugal), providers)
        except _Refused as error:
            raise IncompatibleError(
                f"ONNX Runtime {ort.__version__} refuses the network {component!r}: {error}",
                hint="install a newer onnxruntime",
            ) from error.__cause__
        if providers[0] == _CUDA != self._session.get_providers()[0]:
            _LOG.warning("ONNX Runtime could not start CUDA; %s runs on the CPU", component)

    @property
    def inputs(self) -> Sequence[Value]:
        """What it takes."""
        return self._graph.inputs

    @property
    def outputs(self) -> Sequence[Value]:
        """What it gives."""
        return self._graph.outputs

    @property
    def raw(self) -> Any:  # noqa: ANN401 - onnxruntime has no type information
        """The ``onnxruntime.InferenceSession``. It reads the engine's memory: keep the engine while using it."""
        return self._session

    def __call__(self, **arrays: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401 - see Args
        """Run once.

        Args:
            **arrays: for each input an array in host memory: NumPy's, or any that speaks DLPack.

        Returns:
            For each output an array that the caller owns.

        Raises:
            UsageError: an input is missing, unknown, not an array, or of another element type.
            IncompatibleError: a rank or fixed dimension differs, or ONNX Runtime fails on these shapes.
        """
        check_names(self.inputs, arrays)
        feeds = {
            value.name: _ort_value(self._ort, host_array(value, arrays[value.name]), dtype_of(value.dtype))
            for value in self.inputs
        }
        feeds |= dict(zip(self._fed, self._weights, strict=True)) if self._fed else {}
        names = [value.name for value in self.outputs]
        try:
            results = self._session.run_with_ort_values(names, feeds)
        except Exception as error:  # onnxruntime's classes have no base in common
            shapes = ", ".join(f"{name} {feed.shape()}" for name, feed in feeds.items())
            raise IncompatibleError(
                f"ONNX Runtime failed to run {self._component!r} on {shapes}: {_reason(error)}"
            ) from error
        return {
            value.name: _to_array(result, dtype_of(value.dtype))
            for value, result in zip(self.outputs, results, strict=True)
        }


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """ONNX Runtime's reason; its own exception is the cause."""


def _options(ort: Any, *, frugal: bool = False) -> Any:  # noqa: ANN401
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    # By default (level 4) the CPU rounds activations to int8 when weights are int4, 0.5 % off in a 64 x 48 product;
    # this backend is what other plans are compared with, so it computes in the graph's own type.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if frugal:
        # Optimizing folds casts of fp16 weights into fp32 copies, twice the model's size in memory; prepacking copies
        # weights once more; an arena never gives memory back.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.enable_mem_pattern = options.enable_cpu_mem_arena = False
        # By default all casts of weights run first, as they wait for nothing; by priority each runs when it is needed.
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    return options


def _providers(ort: Any, device: str) -> list[str]:  # noqa: ANN401
    if device != "cuda" or _CUDA not in ort.get_available_providers():
        return [_CPU]
    if hasattr(ort, "preload_dlls"):  # finds CUDA and cuDNN in the nvidia-* packages; prints what it misses
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    return [_CUDA, _CPU]


def _session(ort: Any, graph: Graph, options: Any, providers: list[str]) -> tuple[Any, list[Any]]:  # noqa: ANN401
    """The session, and what must live as long as it."""
    proto, tensors = split(graph)
    weights = [_weight(ort, tensor) for tensor in tensors]
    if weights:
        options.add_external_initializers([tensor.name for tensor in tensors], weights)
    try:
        return ort.InferenceSession(proto, options, providers=providers), weights
    except Exception as error:  # onnxruntime's classes have no base in common
        raise _Refused(_reason(error)) from error


def _fed_session(ort: Any, graph: Graph, options: Any, providers: list[str]) -> tuple[Any, list[Any]]:  # noqa: ANN401
    """The same with the weights as inputs, given with every run: ONNX Runtime copies initializers, also mapped ones.

    Measured with 1.32: a session over a mapped fp16 matrix of 200 MiB took 200 MiB as initializer, none as input.
    """
    proto, tensors = split(graph)
    model = parse_model(proto)
    names = {tensor.name for tensor in tensors}
    kept = [init for init in model.graph.initializer if init.name not in names]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    known = {value.name for value in model.graph.input}
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.dtype.onnx, tensor.shape)
        for tensor in tensors
        if tensor.name not in known
    )
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    except Exception as error:  # onnxruntime's classes have no base in common
        raise _Refused(_reason(error)) from error
    return session, [_weight(ort, tensor) for tensor in tensors]


def _weight(ort: Any, tensor: Tensor) -> Any:  # noqa: ANN401
    if tensor.dtype.name.startswith("complex"):
        raise _Refused(f"tensor {tensor.name!r} is {tensor.dtype.name}, which it has no kernels for")
    raw = tensor.load()
    if not tensor.dtype.packed:
        return _ort_value(ort, raw.view(tensor.dtype.numpy).reshape(tensor.shape), tensor.dtype)
    # ONNX Runtime wants the logical shape, and reads two elements a byte; NumPy has no such type. So the packed bytes
    # are dressed as an array of one byte an element, which nobody reads past the first half.
    steps = tuple(int(np.prod(tensor.shape[axis + 1 :])) for axis in range(len(tensor.shape)))
    dressed = np.lib.stride_tricks.as_strided(raw, tensor.shape, steps, writeable=False)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(dressed, tensor.dtype.onnx)


def _ort_value(ort: Any, array: NDArray[Any], dtype: DType) -> Any:  # noqa: ANN401
    # As unsigned integers, because onnxruntime knows none of ml_dtypes' types; the ONNX type says what they are.
    # A weight may stand at any offset of a pack, and kernels may load aligned: copy those few that are not.
    plain = np.require(np.asarray(array, order="C").view(f"u{dtype.bits // 8}"), requirements=["A"])
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(plain, dtype.onnx)


def _to_array(value: Any, dtype: DType) -> NDArray[Any]:  # noqa: ANN401
    shape = tuple(value.shape())
    array = np.empty(shape, dtype.numpy)
    if array.nbytes:  # OrtValue.numpy() knows neither bfloat16 nor fp8
        ctypes.memmove(array.ctypes.data, value.data_ptr(), array.nbytes)
    return array


def _reason(error: Exception) -> str:
    return _PREAMBLE.sub("", str(error).strip())
