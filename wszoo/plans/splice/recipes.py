"""Which views to look for: those that builders are known to use first, rarer ones for what these leave over."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wszoo.errors import MalformedError
from wszoo.plans.splice.views import AS_STORED, BYTE, Recipe, View, bind
from wszoo.weights.tensor import dtype_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from wszoo.weights.tensor import Tensor

MIN_TENSOR = 32  # smaller ones cost as much to name as to store
_MIN_TURNED = 128
_FLOATS = ("float32", "float16", "bfloat16")
_PADS = (4, 8, 16, 32)  # channels that kernels want at least, or a multiple of
_MAX_AXES = 4
_FEW_SCALES = 2


class Scale(NamedTuple):
    """A scalar that the graph multiplies by, which a builder may fold into a matrix.

    Attributes:
        dtype: lower-case ONNX name of its type.
        value: its little-endian bytes.
    """

    dtype: str
    value: bytes


def common(tensors: Sequence[Tensor], scales: Sequence[tuple[str, bytes]] = ()) -> list[View]:
    """The views that most plans are made of.

    These are: as stored, kernels with channels last, matrices transposed, and matrices scaled where the graph has only
    a scalar or two that they may be scaled by.
    """
    return [view for i, tensor in enumerate(tensors) for view in _distinct(i, tensor, _usual(tensor, scales))]


def _usual(tensor: Tensor, scales: Sequence[tuple[str, bytes]]) -> Iterator[Recipe]:
    yield from _common(tensor)
    if len(tensor.shape) == 2 and tensor.dtype.name in _FLOATS:  # noqa: PLR2004 - matrices
        factors = _factors(tensor, scales)
        if len(factors) <= _FEW_SCALES:
            yield from (Recipe(scale=factor) for factor in factors)


def _common(tensor: Tensor) -> Iterator[Recipe]:
    yield AS_STORED
    rank = len(tensor.shape)
    if tensor.nbytes < _MIN_TURNED:
        return
    if rank == 4:  # noqa: PLR2004
        yield Recipe(permutation=(0, 2, 3, 1) if tensor.shape[2] * tensor.shape[3] > 1 else (1, 0, 2, 3))
    elif rank in (2, 3):
        yield Recipe(permutation=(1, 0) if rank == 2 else (0, 2, 1))  # noqa: PLR2004 - nibbles: bind() refuses rank 3


def rare(tensors: Sequence[Tensor], wanted: Iterable[int], scales: Sequence[tuple[str, bytes]]) -> list[View]:
    """All other views of the wanted tensors: scaled, cast, padded, and every permutation."""
    return [view for i in wanted for view in _distinct(i, tensors[i], _rare(tensors[i], scales))]


def _distinct(number: int, tensor: Tensor, recipes: Iterable[Recipe]) -> Iterator[View]:
    """Views of one tensor, without recipes that do not fit it or give the same bytes as one before."""
    if tensor.nbytes < MIN_TENSOR:
        return
    seen = set()
    for recipe in recipes:
        try:
            layout = bind(recipe, tensor.dtype, tensor.shape)
        except MalformedError:
            continue
        if layout not in seen:
            seen.add(layout)
            yield View(tensor=number, recipe=recipe)


def _rare(tensor: Tensor, scales: Sequence[tuple[str, bytes]]) -> Iterator[Recipe]:
    rank = len(tensor.shape)
    orders = [(), *permutations(range(rank))] if 1 < rank <= _MAX_AXES else [()]
    usual = [(), *(recipe.permutation for recipe in _common(tensor))]
    if tensor.dtype.name in _FLOATS:
        for factor in _factors(tensor, scales):
            yield from (Recipe(scale=factor, permutation=order) for order in usual)
        for cast in _FLOATS:
            if cast != tensor.dtype.name:
                yield from (Recipe(cast=cast, permutation=order) for order in usual)
    yield from (Recipe(permutation=order) for order in orders)
    if tensor.dtype.bits < BYTE:
        return
    for axis, length in enumerate(tensor.shape):
        for size in _PADS:
            padded = -(-length // size) * size
            if length < padded and (padded <= 2 * length or length <= _PADS[0]):
                yield from (Recipe(pad=(axis, padded), permutation=order) for order in dict.fromkeys(usual))


def _factors(tensor: Tensor, scales: Sequence[tuple[str, bytes]]) -> list[bytes]:
    found = []
    for dtype, raw in scales:
        if dtype in _FLOATS:
            value = np.frombuffer(raw, dtype_of(dtype).numpy)[:1]
            with np.errstate(all="ignore"):
                found.append(value.astype(np.float32).astype(tensor.dtype.numpy).tobytes())
    return list(dict.fromkeys(found))
