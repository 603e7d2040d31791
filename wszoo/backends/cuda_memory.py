"""The little of the CUDA runtime that running a plan takes: memory, copies and a stream, with typed errors.

Written against cuda-bindings 13; has run on an H200 (``tests/gpu/arrays.py``).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from wszoo.backends.installed import load_module
from wszoo.errors import IncompatibleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_ADVICE = {  # cudaError_t
    2: "close what else uses the GPU, or give smaller inputs",  # cudaErrorMemoryAllocation
    35: "install a newer NVIDIA driver",  # cudaErrorInsufficientDriver
}


class Cuda:
    """The CUDA runtime on the current device.

    Args:
        runtime: the module ``cuda.bindings.runtime``.
    """

    def __init__(self, runtime: Any) -> None:  # noqa: ANN401 - the module has no type information
        self._runtime = runtime

    @classmethod
    def open(cls, *, extra: str, purpose: str) -> Cuda:
        """Load the CUDA runtime and make sure that there is a device.

        Args:
            extra: the extra of wszoo that brings it.
            purpose: what needs it, as a clause.

        Raises:
            MissingExtraError: ``cuda-bindings`` is not installed.
            IncompatibleError: there is no driver, or no GPU.
        """
        cuda = cls(load_module("cuda.bindings.runtime", extra=extra, purpose=purpose))
        advice = "install an NVIDIA driver, or take the portable plan, which needs none"
        try:
            count = cuda.call("cudaGetDeviceCount")
        except (IncompatibleError, RuntimeError) as error:
            raise IncompatibleError(f"{purpose} needs an NVIDIA GPU and its driver: {error}", hint=advice) from error
        if not count:
            raise IncompatibleError(f"{purpose} needs an NVIDIA GPU, and the driver reports none", hint=advice)
        return cuda

    def call(self, function: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever the function returns
        """Call a function of the runtime.

        Returns:
            What it gives beside its status; None when it gives nothing.

        Raises:
            IncompatibleError: its status is not success; the message has CUDA's text.
        """
        status, *values = getattr(self._runtime, function)(*arguments)
        if int(status) != 0:
            _, text = self._runtime.cudaGetErrorString(status)
            reason = text.decode() if isinstance(text, bytes) else str(text)
            raise IncompatibleError(f"CUDA's {function} failed: {reason}", hint=_ADVICE.get(int(status), ""))
        return values[0] if values else None

    def product(self) -> str:
        """The current device's name, as in ``NVIDIA GeForce RTX 4090``.

        Raises:
            IncompatibleError: CUDA fails.
        """
        name = self.call("cudaGetDeviceProperties", 0).name
        return name.decode() if isinstance(name, bytes) else str(name)

    def driver(self) -> str:
        """The newest CUDA version that the driver supports, as CUDA writes it: ``13010``.

        Raises:
            IncompatibleError: CUDA fails.
        """
        return str(self.call("cudaDriverGetVersion"))

    def capture(self, stream: Any, work: Callable[[], bool]) -> Graph | None:  # noqa: ANN401 - an opaque handle
        """Record what ``work`` starts on a stream instead of running it.

        Args:
            stream: only ``work`` uses it meanwhile.
            work: returns False when it failed.

        Returns:
            What was recorded; None when it cannot be recorded: some kernels synchronize.

        Raises:
            IncompatibleError: CUDA fails.
        """
        self.call(
            "cudaStreamBeginCapture", stream, self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )
        done = work()
        try:
            graph = self.call("cudaStreamEndCapture", stream)
        except IncompatibleError:
            return None
        if not done or graph is None:
            return None
        try:
            return Graph(self, self.call("cudaGraphInstantiate", graph, 0))
        finally:
            self.call("cudaGraphDestroy", graph)

    def to_device(self, pointer: int, array: NDArray[Any], stream: Any) -> None:  # noqa: ANN401 - an opaque handle
        """Start copying an array in C order to device memory; keep it until the stream is synchronized."""
        if array.nbytes:
            kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
            self.call("cudaMemcpyAsync", pointer, array.ctypes.data, array.nbytes, kind, stream)

    def to_host(self, array: NDArray[Any], pointer: int, stream: Any) -> None:  # noqa: ANN401
        """Start copying device memory to an array in C order; it is filled when the stream is synchronized."""
        if array.nbytes:
            kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
            self.call("cudaMemcpyAsync", array.ctypes.data, pointer, array.nbytes, kind, stream)

    def on_device(self, target: int, source: int, size: int, stream: Any) -> None:  # noqa: ANN401
        """Start copying ``size`` bytes of device memory to another place there."""
        if size:
            kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
            self.call("cudaMemcpyAsync", target, source, size, kind, stream)

    def event(self, stream: Any) -> Event:  # noqa: ANN401
        """Mark what was started on a stream so far.

        Raises:
            IncompatibleError: CUDA fails.
        """
        event = Event(self, self.call("cudaEventCreateWithFlags", self._runtime.cudaEventDisableTiming))
        self.call("cudaEventRecord", event.handle, stream)
        return event

    def has_happened(self, event: Event) -> bool:
        """Whether all that an event marks is done; also True when some of it failed, which the stream then tells."""
        (status,) = self._runtime.cudaEventQuery(event.handle)
        return int(status) != int(self._runtime.cudaError_t.cudaErrorNotReady)


class Event:
    """A mark on a stream from :meth:`Cuda.event`, destroyed with this object.

    Attributes:
        handle: as cuda-bindings has it.
    """

    def __init__(self, cuda: Cuda, handle: Any) -> None:  # noqa: ANN401 - an opaque handle
        self._cuda = cuda
        self.handle = handle

    def hold_up(self, stream: int) -> None:
        """Make a stream wait for what is marked, without waiting here.

        Args:
            stream: a handle, or 1 or 2 for the default streams.

        Raises:
            IncompatibleError: CUDA fails.
        """
        self._cuda.call("cudaStreamWaitEvent", stream, self.handle, 0)

    def __del__(self) -> None:
        with suppress(Exception):  # at exit the runtime may be gone, and the memory with it
            self._cuda.call("cudaEventDestroy", self.handle)


class Stream:
    """A CUDA stream, destroyed with this object.

    Attributes:
        handle: as cuda-bindings has it.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self.handle = cuda.call("cudaStreamCreate")

    def __int__(self) -> int:
        return int(self.handle)

    def synchronize(self) -> None:
        """Wait for all that was started on it.

        Raises:
            IncompatibleError: something of it failed.
        """
        self._cuda.call("cudaStreamSynchronize", self.handle)

    def __del__(self) -> None:
        with suppress(Exception):  # at exit the runtime may be gone, and the memory with it
            self._cuda.call("cudaStreamDestroy", self.handle)


class Graph:
    """Work recorded by :meth:`Cuda.capture`, destroyed with this object."""

    def __init__(self, cuda: Cuda, handle: Any) -> None:  # noqa: ANN401 - an opaque handle
        self._cuda = cuda
        self._handle = handle

    def launch(self, stream: Any) -> None:  # noqa: ANN401
        """Start it on a stream.

        Raises:
            IncompatibleError: CUDA fails.
        """
        self._cuda.call("cudaGraphLaunch", self._handle, stream)

    def __del__(self) -> None:
        with suppress(Exception):  # at exit the runtime may be gone, and the memory with it
            self._cuda.call("cudaGraphExecDestroy", self._handle)


class Buffer:
    """Device memory that grows and is freed with this object.

    Attributes:
        pointer: its address; changes when it grows.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._size = 0
        self.pointer = 0

    def reserve(self, size: int) -> int:
        """Make room for ``size`` bytes, what was there is lost, and return the address.

        Raises:
            IncompatibleError: the GPU has not that much memory left.
        """
        if size > self._size or not self.pointer:
            self._free()
            self.pointer = int(self._cuda.call("cudaMalloc", max(size, 1)))
            self._size = size
        return self.pointer

    def _free(self) -> None:
        if self.pointer:
            pointer, self.pointer, self._size = self.pointer, 0, 0
            self._cuda.call("cudaFree", pointer)

    def __del__(self) -> None:
        with suppress(Exception):  # at exit the runtime may be gone, and the memory with it
            self._free()
