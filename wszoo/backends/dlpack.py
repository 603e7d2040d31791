"""Arrays of other libraries, through the DLPack protocol: where their elements are, and of which type.

NumPy's own ``from_dlpack`` knows neither bfloat16 nor memory on a GPU, so the capsule is read here.

Source: DLPack 0.8, ``include/dlpack/dlpack.h`` (``DLManagedTensor``), which every producer still hands to a consumer
that does not ask for a newer version.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from wszoo.errors import UsageError
from wszoo.weights.tensor import dtype_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

CPU = 1  # kDLCPU
CUDA = 2  # kDLCUDA
_HOST = frozenset({CPU, 3})  # kDLCUDAHost: pinned host memory
_CODES = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 6: "bool"}


@runtime_checkable
class Producer(Protocol):
    """An array of any library that speaks DLPack."""

    def __dlpack__(self, *, stream: int | None = None) -> object:
        """A capsule named ``dltensor``."""
        ...

    def __dlpack_device__(self) -> tuple[int, int]:
        """Device type and number."""
        ...


class Tensor(ctypes.Structure):
    """``DLTensor``."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """An array on a GPU that belongs to someone else.

    Attributes:
        dtype: lower-case ONNX element type.
        shape: dimensions, outermost first.
        pointer: device address of the first element; C order, without gaps.
        device: number of the CUDA device.
        owner: keeps the memory alive.
    """

    dtype: str
    shape: tuple[int, ...]
    pointer: int
    device: int
    owner: object


def on_gpu(value: object) -> bool:
    """True when ``value`` speaks DLPack and lies on a CUDA device."""
    return isinstance(value, Producer) and value.__dlpack_device__()[0] == CUDA


def device_array(name: str, value: Producer, stream: int) -> DeviceArray:
    """Borrow an array on a GPU, without a copy.

    Args:
        name: the input's name, for messages.
        value: from any library.
        stream: the CUDA stream that will read it; its producer makes that stream wait for pending writes.

    Raises:
        UsageError: it cannot be exported, has gaps, or has an element type that ONNX does not know.
    """
    tensor, owner = _open(name, value, stream)
    shape = tuple(tensor.shape[: tensor.ndim])
    if not _contiguous(tensor, shape):
        raise UsageError(f"input {name!r} on the GPU is not contiguous", hint="pass x.contiguous()")
    pointer = (tensor.data or 0) + tensor.byte_offset
    return DeviceArray(_dtype(name, tensor), shape, pointer, tensor.device_id, owner)


def host_array(name: str, value: Producer) -> NDArray[Any]:
    """View an array in host memory as NumPy's, without a copy.

    Raises:
        UsageError: it cannot be exported, lies on a device, or has an element type that ONNX does not know.
    """
    device_type, _ = value.__dlpack_device__()
    if device_type not in _HOST:
        raise UsageError(
            f"input {name!r} lies on a device (DLPack type {device_type}) and this engine takes host memory",
            hint="copy it first, as in x.cpu()",
        )
    tensor, owner = _open(name, value, None)
    shape = tuple(tensor.shape[: tensor.ndim])
    dtype = dtype_of(_dtype(name, tensor)).numpy
    if math.prod(shape) == 0:
        return np.empty(shape, dtype)
    steps = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else c_order(shape)
    if min(steps, default=0) < 0:
        raise UsageError(f"input {name!r} has a negative stride", hint="pass a contiguous copy")
    span = 1 + sum((size - 1) * step for size, step in zip(shape, steps, strict=True))
    memory = (ctypes.c_uint8 * (span * dtype.itemsize)).from_address(tensor.data + tensor.byte_offset)
    memory.owner = owner  # a ctypes array takes attributes, and NumPy keeps the array alive
    flat = np.frombuffer(memory, dtype)
    return np.lib.stride_tricks.as_strided(flat, shape, tuple(step * dtype.itemsize for step in steps), writeable=False)


def _open(name: str, value: Producer, stream: int | None) -> tuple[Tensor, object]:
    try:
        capsule = value.__dlpack__() if stream is None else value.__dlpack__(stream=stream)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"input {name!r} cannot be exported through DLPack: {error}") from error
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    try:
        address = get_pointer(capsule, b"dltensor")
    except ValueError as error:
        raise UsageError(f"input {name!r} gives a DLPack capsule that was used before") from error
    # The capsule is read, not consumed: it stays "dltensor", so dropping it calls the producer's deleter.
    return Tensor.from_address(address), (capsule, value)


def _dtype(name: str, tensor: Tensor) -> str:
    kind = _CODES.get(tensor.code, "")
    text = "bool" if kind == "bool" else f"{kind}{tensor.bits}"
    known = {"bool", "bfloat16", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64))}
    if tensor.lanes != 1 or text not in known | {"float16", "float32", "float64"}:
        raise UsageError(f"input {name!r} has a DLPack element type that ONNX does not know: code {tensor.code}")
    return text


def c_order(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of an array in C order without gaps, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _contiguous(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    if not tensor.strides or math.prod(shape) == 0:
        return True
    steps = tensor.strides[: tensor.ndim]
    return all(size == 1 or step == want for size, step, want in zip(shape, steps, c_order(shape), strict=True))
