"""An engine's outputs where they are computed: on the GPU, for any library that speaks DLPack.

Has run on an H200 (``tests/gpu/arrays.py``): PyTorch and CuPy read what real CUDA streams wrote.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.backends import dlpack
from wszoo.backends.cuda_memory import Buffer
from wszoo.backends.dlpack_export import export
from wszoo.weights.tensor import dtype_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wszoo.backends.cuda_memory import Cuda, Event, Stream

_LEGACY = 1  # cudaStreamLegacy, which the protocol means by None
_UNSYNCHRONIZED = -1


class GpuArray:
    """An array on the GPU in C order, perhaps still being written: ``torch.from_dlpack(array)``.

    Its memory belongs to it, and to every array that another library made of it, whichever goes last. Freeing it waits
    for the GPU, so that no kernel reads what is gone (``cudaFree`` does).

    Args:
        cuda: the CUDA runtime.
        stream: of the engine that writes it.
        dtype: lower-case ONNX element type.
        shape: dimensions, outermost first.

    Attributes:
        dtype: see Args.
        shape: see Args.
        pointer: device address of the first element.

    Raises:
        IncompatibleError: the GPU has no room for it.
    """

    def __init__(self, cuda: Cuda, stream: Stream, dtype: str, shape: tuple[int, ...]) -> None:
        self._cuda, self._stream = cuda, stream
        self._memory = Buffer(cuda)
        self._written: Event | None = None
        self.dtype, self.shape = dtype, shape
        self.nbytes = math.prod(shape) * dtype_of(dtype).numpy.itemsize
        self.pointer = self._memory.reserve(self.nbytes)

    def written_at(self, event: Event) -> None:
        """Tell when it will have been written."""
        self._written = event

    def __dlpack_device__(self) -> tuple[int, int]:
        """A CUDA device, the first."""
        return dlpack.CUDA, 0

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """Lend it, without a copy.

        Args:
            stream: the CUDA stream that will read it, and that is made to wait until it is written: a handle, 1 or None
                for the legacy default stream, 2 for the thread's; -1 if the caller takes care of that.
            max_version: the newest DLPack that the caller knows.
            dl_device: where the caller wants it.
            copy: whether the caller wants one.

        Raises:
            BufferError: the caller wants a copy, or wants it elsewhere.
            ValueError: ``stream`` is 0, which could mean two streams.
            IncompatibleError: CUDA fails.
        """
        if copy or dl_device not in {None, self.__dlpack_device__()}:
            raise BufferError("wszoo lends its arrays where they are: copy them afterwards, as in torch's x.cpu()")
        if stream == 0:
            raise ValueError("stream 0 could mean two: give 1 for the legacy default stream, 2 for the thread's")
        if self._written is not None and stream != _UNSYNCHRONIZED:
            self._written.hold_up(_LEGACY if stream is None else stream)
        return export(self.pointer, self.dtype, self.shape, self.__dlpack_device__(), self._memory)

    def numpy(self) -> NDArray[Any]:
        """A copy in host memory.

        Raises:
            IncompatibleError: CUDA fails, or what computed it failed.
        """
        result = np.empty(self.shape, dtype_of(self.dtype).numpy)
        self._cuda.to_host(result, self.pointer, self._stream.handle)  # behind what writes it, on the same stream
        self._stream.synchronize()
        return result
