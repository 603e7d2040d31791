"""Weight-only quantization, one matrix after the other, in the standard form ``DequantizeLinear`` takes.

The numbers are ONNX Runtime's: scales from its quantization tools, rounding by its ``QuantizeLinear`` kernel. Matrices
stay ``(outputs, inputs)`` as checkpoints hold them. int8 and fp8 have a scale for each output; int4 one for each 128
inputs of an output. Round to nearest, symmetric, without calibration data.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from wszoo.backends.onnxruntime import reference
from wszoo.errors import MissingExtraError
from wszoo.families.bind import QUANTIZED_OPSET, Quantized
from wszoo.weights.graph import graph_from_model
from wszoo.weights.tensor import DTYPES, DType, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from wszoo.backends.ort_session import OrtEngine
    from wszoo.families.spool import Spool

BLOCK = 128
_CHUNK = 1 << 21  # elements quantized at once: 8 MB in fp32, and about six arrays of that size a thread
_THREADS = 16
_FP8_MAX = 448.0  # of e4m3fn
_NIBBLE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How a matrix is quantized.

    Attributes:
        name: as ``--precision`` names it.
        values: element type of what is stored.
        block: inputs that share a scale; 0 for all of an output's.
    """

    name: str
    values: DType
    block: int = 0

    def fits(self, shape: tuple[int, ...]) -> bool:
        """True for matrices whose rows are whole blocks."""
        return len(shape) == 2 and (not self.block or shape[1] % self.block == 0)  # noqa: PLR2004 - a matrix

    def scale_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the scales of a matrix ``(outputs, inputs)``."""
        return (shape[0], shape[1] // self.block) if self.block else (shape[0],)


SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(name="int8", values=DTYPES["int8"]),
        Scheme(name="int4", values=DTYPES["int4"], block=BLOCK),
        Scheme(name="fp8", values=DTYPES["float8e4m3fn"]),
    )
}


@dataclass(frozen=True, slots=True)
class Loss:
    """How far a quantized matrix is from the original; sums, so that several add up.

    Attributes:
        squares: of the differences.
        total: squares of the original.
        greatest: difference of one element, absolute.
    """

    squares: float = 0.0
    total: float = 0.0
    greatest: float = 0.0

    def __add__(self, other: Loss) -> Loss:
        return Loss(self.squares + other.squares, self.total + other.total, max(self.greatest, other.greatest))

    @property
    def relative(self) -> float:
        """Root of the ratio: 0.01 means that the error has a hundredth of the weights' own size."""
        return (self.squares / self.total) ** 0.5 if self.total else 0.0


def quantize(tensor: Tensor, scheme: Scheme, compute: DType, spool: Spool) -> tuple[Quantized, Loss]:
    """Quantize one matrix into the spool, some rows at a time.

    Args:
        tensor: ``(outputs, inputs)``, in a floating-point type.
        scheme: that fits its shape.
        compute: what the network computes in, hence the scales' type.
        spool: where values and scales are written.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        StorageError: no room.
    """
    return _stored(tensor, _quantized(tensor, scheme, compute), scheme, compute, spool)


def quantize_all(
    tensors: Iterable[Tensor], scheme: Scheme, compute: DType, spool: Spool
) -> Iterator[tuple[Tensor, Quantized, Loss]]:
    """:func:`quantize` for many, in threads: NumPy and ONNX Runtime let go of the interpreter.

    Written in the order of ``tensors``, so that the file is the same however many threads there are.

    Raises:
        MissingExtraError, StorageError: as there.
    """
    _kernel(scheme.name)  # before threads make one each
    workers = min(_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as threads:
        waiting: deque[tuple[Tensor, Future[_Arrays]]] = deque()
        for tensor in tensors:
            waiting.append((tensor, threads.submit(_quantized, tensor, scheme, compute)))
            if len(waiting) > workers:
                done, arrays = waiting.popleft()
                yield done, *_stored(done, arrays.result(), scheme, compute, spool)
        for done, arrays in waiting:
            yield done, *_stored(done, arrays.result(), scheme, compute, spool)


@dataclass(frozen=True, slots=True)
class _Arrays:
    values: NDArray[Any]
    scales: NDArray[Any]
    loss: Loss


def _quantized(tensor: Tensor, scheme: Scheme, compute: DType) -> _Arrays:
    outputs, inputs = tensor.shape
    array = tensor.array()
    step = max(1, _CHUNK // inputs)
    values, scales, loss = [], [], Loss()
    for start in range(0, outputs, step):
        wide = array[start : start + step].astype(np.float32)
        scale = _scales(wide, scheme).astype(compute.numpy)
        rounded = _round(wide, scale.astype(np.float32), scheme)
        loss += _loss(wide, rounded, scale, scheme)
        values.append(_packed(rounded) if scheme.values.packed else rounded)
        scales.append(scale)
    return _Arrays(np.concatenate(values), np.concatenate(scales), loss)


def _stored(tensor: Tensor, arrays: _Arrays, scheme: Scheme, compute: DType, spool: Spool) -> tuple[Quantized, Loss]:
    stored = spool.add(f"{tensor.name}.{scheme.name}", scheme.values, tensor.shape, arrays.values)
    shape = scheme.scale_shape(tensor.shape)
    factors = spool.add(f"{tensor.name}.{scheme.name}_scales", compute, shape, arrays.scales)
    axis = 1 if scheme.block else 0
    return Quantized(values=stored, scales=factors, axis=axis, block=scheme.block), arrays.loss


def dequantized(quantized: Quantized) -> NDArray[np.float32]:
    """What the network computes with, in fp32."""
    shape, scales = quantized.values.shape, quantized.scales.array().astype(np.float32)
    values = quantized.values.array()
    if quantized.values.dtype.packed:
        values = _unpacked(values).reshape(shape)
    wide = values.astype(np.float32)
    if not quantized.block:
        return wide * scales[:, None]
    blocks = wide.reshape(shape[0], -1, quantized.block) * scales[:, :, None]
    return blocks.reshape(shape)


def _scales(wide: NDArray[np.float32], scheme: Scheme) -> NDArray[np.float32]:
    """One for each row and block: (rows, blocks), or (rows,)."""
    block = scheme.block or wide.shape[1]
    columns = wide.reshape(-1, block).T  # the tools want blocks along the first axis
    if scheme.values.name.startswith("float8"):
        greatest = np.abs(columns).max(axis=0)
        found = np.where(greatest > 0, greatest / _FP8_MAX, 1).astype(np.float32)
    else:
        _, raw = _tools().compute_scale_zp_blocked(columns, scheme.values.onnx, 0, block, True)
        found = raw.reshape(-1)
    return found.reshape(len(wide), -1) if scheme.block else found


def _round(wide: NDArray[np.float32], scale: NDArray[np.float32], scheme: Scheme) -> NDArray[Any]:
    rounded = _kernel(scheme.name)(x=wide, scale=scale)["y"]
    # int4 comes as int8, which NumPy knows: half a step outside of the range where the scale was rounded down.
    return np.clip(rounded, -8, 7) if scheme.values.packed else rounded


@cache
def _kernel(name: str) -> OrtEngine:
    scheme = SCHEMES[name]
    make, types = onnx.helper, onnx.TensorProto
    stored = types.INT8 if scheme.values.packed else scheme.values.onnx
    more = {"block_size": scheme.block} if scheme.block else {}
    node = make.make_node(
        "QuantizeLinear", ["x", "scale"], ["y"], axis=1 if scheme.block else 0, output_dtype=stored, **more
    )
    scale = ["rows", "blocks"] if scheme.block else ["rows"]
    graph = make.make_graph(
        [node],
        "quantize",
        [
            make.make_tensor_value_info("x", types.FLOAT, ["rows", "columns"]),
            make.make_tensor_value_info("scale", types.FLOAT, scale),
        ],
        [make.make_tensor_value_info("y", stored, ["rows", "columns"])],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", QUANTIZED_OPSET)], ir_version=10)
    return reference(graph_from_model(model), "quantize")


def _tools() -> Any:  # noqa: ANN401 - a module without types
    try:
        from onnxruntime.quantization import quant_utils
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "ort", "quantizing weights") from error
    return quant_utils


def _loss(wide: NDArray[np.float32], rounded: NDArray[Any], scale: NDArray[Any], scheme: Scheme) -> Loss:
    off = rounded.astype(np.float32)
    off.reshape(-1, scheme.block or wide.shape[1])[...] *= scale.astype(np.float32).reshape(-1, 1)
    off -= wide
    flat, original = off.reshape(-1), wide.reshape(-1)
    greatest = max(float(flat.max(initial=0)), -float(flat.min(initial=0)))
    return Loss(float(np.dot(flat, flat)), float(np.dot(original, original)), greatest)


def _packed(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    # Two nibbles are one 16-bit number here: the second element's, in the upper byte, moves down beside the first's.
    pairs = values.reshape(-1).view("<u2")
    packed = (pairs >> np.uint16(8 - _NIBBLE)) & np.uint16(0xF0)
    packed |= pairs & np.uint16(0x0F)
    return packed.astype(np.uint8)


def _unpacked(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    pairs = np.stack([packed << _NIBBLE, packed & 0xF0], axis=-1).reshape(-1)
    return pairs.view(np.int8) >> _NIBBLE
