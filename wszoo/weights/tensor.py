"""The noun that the whole tool passes around: a named, typed, shaped run of raw bytes that is read only when needed."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from wszoo.buffers import Bytes

_BYTE = 8  # bits


@dataclass(frozen=True, slots=True)
class DType:
    """An element type, named as in ONNX in lower case (``float16``, ``int4``).

    Attributes:
        name: the lower-case ONNX name.
        onnx: the number in ``onnx.TensorProto.DataType``.
        bits: bits an element takes in raw data; 4-bit types put two elements in a byte, the low nibble first.
        numpy_name: what NumPy or ml_dtypes calls the type that :attr:`numpy` is.
    """

    name: str
    onnx: int
    bits: int
    numpy_name: str

    @property
    def numpy(self) -> np.dtype[Any]:
        """The element type that NumPy computes with; ``uint8`` pairs of nibbles for 4-bit types."""
        return _numpy(self.numpy_name)

    @property
    def packed(self) -> bool:
        """True where several elements share a byte."""
        return self.bits < _BYTE

    def nbytes(self, shape: Sequence[int]) -> int:
        """Raw bytes of a tensor of that shape; an odd number of 4-bit elements is rounded up to a whole byte."""
        return (math.prod(shape) * self.bits + 7) // _BYTE

    @property
    def is_float(self) -> bool:
        """True where multiplying by a scalar makes sense: fp64 down to fp8."""
        return "float" in self.name


@cache
def _numpy(name: str) -> np.dtype[Any]:
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # 20 ms, which a stream of fp16 weights need not wait for

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return found


# The numbers are those of onnx.TensorProto.DataType, written out because importing onnx takes 0.3 s and a client that
# only pulls has no other use for it; a test compares them.
_ROWS = (
    ("float32", 1, 32, "float32"),
    ("uint8", 2, 8, "uint8"),
    ("int8", 3, 8, "int8"),
    ("uint16", 4, 16, "uint16"),
    ("int16", 5, 16, "int16"),
    ("int32", 6, 32, "int32"),
    ("int64", 7, 64, "int64"),
    ("bool", 9, 8, "bool"),
    ("float16", 10, 16, "float16"),
    ("float64", 11, 64, "float64"),
    ("uint32", 12, 32, "uint32"),
    ("uint64", 13, 64, "uint64"),
    ("complex64", 14, 64, "complex64"),
    ("complex128", 15, 128, "complex128"),
    ("bfloat16", 16, 16, "bfloat16"),
    ("float8e4m3fn", 17, 8, "float8_e4m3fn"),
    ("float8e4m3fnuz", 18, 8, "float8_e4m3fnuz"),
    ("float8e5m2", 19, 8, "float8_e5m2"),
    ("float8e5m2fnuz", 20, 8, "float8_e5m2fnuz"),
    ("uint4", 21, 4, "uint8"),
    ("int4", 22, 4, "uint8"),
    ("float4e2m1", 23, 4, "uint8"),
)
DTYPES = {row[0]: DType(*row) for row in _ROWS}
_BY_ONNX = {dtype.onnx: dtype for dtype in DTYPES.values()}


def dtype_of(name: str) -> DType:
    """Look up an element type by its lower-case ONNX name.

    Raises:
        MalformedError: no such type, or one without a fixed size (strings).
    """
    try:
        return DTYPES[name]
    except KeyError:
        raise MalformedError(f"unknown element type {name!r}", hint=f"known: {', '.join(DTYPES)}") from None


def dtype_from_onnx(number: int) -> DType:
    """Look up an element type by its number in ``onnx.TensorProto.DataType``.

    Raises:
        MalformedError: a type that wszoo cannot store as raw bytes.
    """
    try:
        return _BY_ONNX[number]
    except KeyError:
        raise MalformedError(f"ONNX element type {number} cannot be stored as raw bytes") from None


@dataclass(frozen=True, slots=True)
class Loading:
    """A tensor's bytes that are being decoded.

    Attributes:
        data: the bytes, once all parts were called.
        parts: each decodes some of them; in any order, on any thread, once. None where nothing is to be done.
    """

    data: Bytes
    parts: tuple[Callable[[], None], ...] = ()


@dataclass(frozen=True, slots=True)
class LoadInParts:
    """A tensor's ``load``, which several threads may do together.

    Attributes:
        begin: starts with bytes ``[start, stop)``, of which what lies beyond the end is left out.
    """

    begin: Callable[[int, int], Loading]

    def __call__(self) -> Bytes:
        """All of it, here and now."""
        loading = self.begin(0, sys.maxsize)
        for part in loading.parts:
            part()
        return loading.data


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor whose bytes are loaded on demand.

    Attributes:
        name: unique in its component; an ONNX initializer's name or a Constant node's output.
        dtype: element type.
        shape: dimensions, outermost first.
        load: returns ``nbytes`` little-endian raw bytes in C order as a flat, read-only ``uint8`` array. The array may
            be memory-mapped; loading twice gives equal bytes, and nothing is kept between calls. What is decoded
            may be a :class:`LoadInParts`.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    load: Callable[[], Bytes]

    @property
    def nbytes(self) -> int:
        """Raw size."""
        return self.dtype.nbytes(self.shape)

    def array(self) -> NDArray[Any]:
        """The elements as an array of ``shape``; 4-bit types come as their flat packed bytes."""
        return self.shaped(self.load())

    def shaped(self, raw: Bytes) -> NDArray[Any]:
        """The tensor's bytes as :meth:`array` gives them."""
        return raw if self.dtype.packed else raw.view(self.dtype.numpy).reshape(self.shape)


def tensor_from_array(name: str, array: NDArray[Any]) -> Tensor:
    """Wrap an array that is in memory; the element type is found from NumPy's.

    Raises:
        MalformedError: the array's type has no ONNX counterpart.
    """
    kept = np.ascontiguousarray(array)
    dtype = next((each for each in DTYPES.values() if not each.packed and each.numpy == kept.dtype), None)
    if dtype is None:
        raise MalformedError(f"tensor {name!r} has the element type {array.dtype}, which ONNX does not know")
    flat = kept.reshape(-1).view(np.uint8)
    return Tensor(name, dtype, tuple(array.shape), lambda: flat)
