"""A loaded plan of the TensorRT family: arrays in, arrays out.

Has run only with a fake of the runtime, on a CPU and over real CUDA on an H200 (``tests/gpu/arrays.py``): no machine at
hand has a GPU that TensorRT-RTX supports.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from wszoo.backends import dlpack
from wszoo.backends.cuda_memory import Buffer, Cuda, Stream
from wszoo.backends.gpu_arrays import GpuArray
from wszoo.backends.inputs import check_names, check_one, choose_profile, host_array
from wszoo.backends.trt_cache import RuntimeCache
from wszoo.backends.trt_graphs import Recorder
from wszoo.backends.trt_types import ONNX_NAMES
from wszoo.errors import IncompatibleError, UsageError
from wszoo.gpu.machine import product_key
from wszoo.weights.tensor import dtype_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from wszoo.backends.cuda_memory import Event
    from wszoo.backends.dlpack import DeviceArray
    from wszoo.backends.protocol import Assembled
    from wszoo.schema.model import Value

    Feeds = Mapping[str, NDArray[Any] | DeviceArray]


class TrtEngine:
    """Runs a plan on one GPU; calls from several threads take turns.

    Args:
        trt: ``tensorrt_rtx`` or a sibling.
        cuda: the CUDA runtime.
        engine: an ``ICudaEngine``.
        assembled: the plan's facts.
        keep: what must live as long as the engine.

    Raises:
        IncompatibleError: the engine's inputs are not the graph's, or there is no memory for its activations.
    """

    def __init__(self, trt: Any, cuda: Cuda, engine: Any, assembled: Assembled, keep: object) -> None:  # noqa: ANN401
        self._keep = keep
        self._engine = engine
        self._component = assembled.config.component
        self._profiles = assembled.config.profiles
        self._inputs = _as_built(engine, assembled.graph.inputs)
        self._outputs = _as_built(engine, assembled.graph.outputs)
        self._cuda, self._stream, self._lock = cuda, Stream(cuda), Lock()
        kernels = assembled.cache / f"{product_key(cuda.product())}-{trt.__version__}.runtime"
        self._cache = RuntimeCache(trt, engine, kernels, cuda_graphs=assembled.cuda_graphs)
        record = assembled.cuda_graphs and not self._cache.records
        self._recorder = Recorder(cuda, self._stream.handle) if record else None
        self._context = self._cache.context()
        if self._context is None:
            raise IncompatibleError(f"the GPU has no room for the activations of {self._component!r}")
        self._profile = 0
        self._buffers = {value.name: Buffer(cuda) for value in (*self._inputs, *self._outputs)}
        self._in_flight: deque[tuple[Event, Feeds]] = deque()  # inputs stay until the GPU has read them

    @property
    def inputs(self) -> Sequence[Value]:
        """What it takes."""
        return self._inputs

    @property
    def outputs(self) -> Sequence[Value]:
        """What it gives."""
        return self._outputs

    @property
    def raw(self) -> Any:  # noqa: ANN401 - the class belongs to TensorRT
        """The ``ICudaEngine``."""
        return self._engine

    def __call__(self, **arrays: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401 - see Args
        """Run once.

        Args:
            **arrays: for each input an array in host memory (NumPy's, or any that speaks DLPack), or a contiguous one
                on the GPU that speaks DLPack, which is read where it is.

        Returns:
            For each output an array in host memory that the caller owns.

        Raises:
            UsageError: an input is missing, unknown, not an array, or of another element type.
            IncompatibleError: a shape is outside every profile, or CUDA or TensorRT fails.
        """
        with self._lock:
            feeds = self._feed(arrays)
            results = {value.name: np.empty(self._shape(value), dtype_of(value.dtype).numpy) for value in self._outputs}
            self._execute(feeds, {name: self._own(name, result.nbytes) for name, result in results.items()})
            for name, result in results.items():
                self._cuda.to_host(result, self._buffers[name].pointer, self._stream.handle)
            self._stream.synchronize()
            self._in_flight.clear()
        return results

    def on_gpu(self, **arrays: Any) -> dict[str, GpuArray]:  # noqa: ANN401 - as for calls
        """Start a run, and leave its outputs on the GPU; returns before they are computed.

        Args:
            **arrays: as for calls. Those on the GPU may be dropped, but not written to, before the outputs are there.

        Returns:
            For each output an array on the GPU that the caller owns, in new memory: ``torch.from_dlpack(out["z"])``.

        Raises:
            UsageError: as for calls.
            IncompatibleError: as for calls; what fails on the GPU later is told by the next call.
        """
        with self._lock:
            feeds = self._feed(arrays)
            results = {
                value.name: GpuArray(self._cuda, self._stream, value.dtype, self._shape(value))
                for value in self._outputs
            }
            # A CUDA graph is good for the addresses that it was recorded with, so its outputs stay where they are.
            steady = self._recorder is not None or self._cache.records
            places = {name: self._own(name, each.nbytes) if steady else each.pointer for name, each in results.items()}
            self._execute(feeds, places)
            for name, result in results.items() if steady else ():
                self._cuda.on_device(result.pointer, places[name], result.nbytes, self._stream.handle)
            written = self._cuda.event(self._stream.handle)
            for result in results.values():
                result.written_at(written)
            self._in_flight.append((written, feeds))
        return results

    def _feed(self, arrays: Mapping[str, Any]) -> Feeds:
        """Check the inputs, choose the profile, and put the inputs where the engine reads them."""
        check_names(self._inputs, arrays)
        while self._in_flight and self._cuda.has_happened(self._in_flight[0][0]):
            self._in_flight.popleft()
        feeds = {value.name: self._take(value, arrays[value.name]) for value in self._inputs}
        self._select(choose_profile(self._profiles, _shapes(feeds)))
        for name, feed in feeds.items():
            self._bind(name, feed)
        return feeds

    def _execute(self, feeds: Feeds, places: Mapping[str, int]) -> None:
        """Start the run; outputs go to ``places``, which are device addresses."""
        for name, place in places.items():
            self._context.set_tensor_address(name, place)
        shapes = _shapes(feeds)
        if not self._start(feeds, shapes):
            raise IncompatibleError(f"TensorRT failed to run {self._component!r} on {shapes}")
        self._cache.save(shapes)

    def _start(self, feeds: Feeds, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        def start() -> bool:
            return bool(self._context.execute_async_v3(int(self._stream)))

        if self._recorder is None:
            return start()
        addresses = [buffer.pointer for buffer in self._buffers.values()]
        addresses += [feed.pointer for feed in feeds.values() if not isinstance(feed, np.ndarray)]
        return self._recorder.run((self._profile, *sorted(shapes.items()), *addresses), start)

    def _take(self, value: Value, given: object) -> NDArray[Any] | DeviceArray:
        if not isinstance(given, dlpack.Producer) or not dlpack.on_gpu(given):
            return np.asarray(host_array(value, given), order="C")
        array = dlpack.device_array(value.name, given, int(self._stream))
        check_one(value, array.dtype, array.shape)
        if array.device != 0:
            raise UsageError(f"input {value.name!r} is on GPU {array.device}, and the plan was loaded onto GPU 0")
        return array

    def _select(self, profile: int) -> None:
        if profile != self._profile:
            if not self._context.set_optimization_profile_async(profile, int(self._stream)):
                raise IncompatibleError(f"TensorRT cannot switch to profile {self._profiles[profile].name!r}")
            self._profile = profile

    def _bind(self, name: str, feed: NDArray[Any] | DeviceArray) -> None:
        if isinstance(feed, np.ndarray):
            pointer = self._buffers[name].reserve(feed.nbytes)
            self._cuda.to_device(pointer, feed, self._stream.handle)
        else:
            pointer = feed.pointer
        shape = tuple(feed.shape)
        if not (self._context.set_input_shape(name, shape) and self._context.set_tensor_address(name, pointer)):
            raise IncompatibleError(f"TensorRT does not take input {name!r} of shape {shape}")

    def _own(self, name: str, size: int) -> int:
        """Where the engine's own memory for an output begins."""
        return self._buffers[name].reserve(size)

    def _shape(self, value: Value) -> tuple[int, ...]:
        shape = tuple(self._context.get_tensor_shape(value.name))
        if min(shape, default=0) < 0:
            raise IncompatibleError(
                f"the shape of output {value.name!r} depends on values, which wszoo does not run with TensorRT",
                hint="take the portable plan",
            )
        return shape

    def __del__(self) -> None:
        with suppress(Exception):  # at exit the runtime may be gone, and the memory with it
            self._stream.synchronize()  # inputs that others own may still be read


def _shapes(feeds: Feeds) -> dict[str, tuple[int, ...]]:
    return {name: tuple(feed.shape) for name, feed in feeds.items()}


def _as_built(engine: Any, values: Sequence[Value]) -> tuple[Value, ...]:  # noqa: ANN401
    names = {engine.get_tensor_name(number) for number in range(engine.num_io_tensors)}
    missing = [value.name for value in values if value.name not in names]
    if missing:
        raise IncompatibleError(f"the plan was built from another graph: it has no {', '.join(missing)}")
    return tuple(msgspec.structs.replace(value, dtype=_dtype(engine, value.name)) for value in values)


def _dtype(engine: Any, name: str) -> str:  # noqa: ANN401
    theirs = engine.get_tensor_dtype(name).name
    if theirs not in ONNX_NAMES:
        raise IncompatibleError(f"the plan's {name!r} has the element type {theirs}, which no array can hold")
    return ONNX_NAMES[theirs]
