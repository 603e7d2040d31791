"""One file of tensors that an export has computed: written one after the other, mapped when they are needed.

Weights that are converted or quantized are made once and would fill the memory if they were kept there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.store.files import storage_errors
from wszoo.weights.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from wszoo.buffers import Bytes
    from wszoo.weights.tensor import DType

_ALIGNED = 64  # bytes: what ONNX Runtime's and NumPy's kernels load at once
_PIECE = 1 << 22  # elements that are converted at once: 16 MB in fp32


class Spool:
    """Appends tensors to a file.

    Args:
        path: does not exist yet; must outlive the tensors.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = 0

    def add(self, name: str, dtype: DType, shape: tuple[int, ...], array: NDArray[Any]) -> Tensor:
        """Write an array's bytes, and give them back as a tensor that is mapped from the file.

        Args:
            name: the tensor's.
            dtype: its element type; 4-bit types come packed.
            shape: its dimensions in elements.
            array: as many bytes as that takes.

        Raises:
            StorageError: the file cannot be written.
        """
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if flat.nbytes != dtype.nbytes(shape):
            raise ValueError(f"{name}: {flat.nbytes} bytes for {dtype.name} {shape}")
        return self._tensor(name, dtype, shape, self._append([flat], flat.nbytes))

    def add_as(self, tensor: Tensor, dtype: DType) -> Tensor:
        """Write a tensor in another floating-point type, a piece at a time; numbers that are too large become infinite.

        Args:
            tensor: in a floating-point type.
            dtype: the wanted one.

        Raises:
            StorageError: the file cannot be written.
        """
        flat = tensor.array().reshape(-1)
        pieces = (_bytes_as(flat[at : at + _PIECE], dtype) for at in range(0, len(flat), _PIECE))
        start = self._append(pieces, dtype.nbytes(tensor.shape))
        return self._tensor(tensor.name, dtype, tensor.shape, start)

    def _append(self, pieces: Iterable[Bytes], size: int) -> int:
        start = -(-self._end // _ALIGNED) * _ALIGNED
        with storage_errors(f"write {size} bytes of weights to {self._path}"), self._path.open("ab") as file:
            file.write(bytes(start - self._end))
            for piece in pieces:
                file.write(piece.data)
        self._end = start + size
        return start

    def _tensor(self, name: str, dtype: DType, shape: tuple[int, ...], start: int) -> Tensor:
        size = dtype.nbytes(shape)

        def load() -> Bytes:
            return np.asarray(np.memmap(self._path, np.uint8, "r", start, (size,))) if size else np.zeros(0, np.uint8)

        return Tensor(name, dtype, shape, load)


def _bytes_as(values: NDArray[Any], dtype: DType) -> Bytes:
    with np.errstate(over="ignore"):  # of fp16: whoever asked looks for what is not finite
        return values.astype(np.float32, copy=False).astype(dtype.numpy, copy=False).view(np.uint8)
