"""Views: the exact forms in which a plan may hold a tensor's bytes.

A :class:`Recipe` says how the bytes come out of a tensor. The steps run in this order, each optional:

1. *cast* the elements to another float type, round to nearest even;
2. *scale*: multiply by a scalar of that type, rounded once (builders fold attention's scalar into Q and K);
3. *pad* one axis with zeros at its end (a first convolution's 3 channels become 4);
4. *permute* the axes, then flatten in C order.

All steps give the same bits on every machine: products of two 16-bit floats are exact in float32 and rounded once, and
every NaN that a cast or a scale yields is replaced by the canonical quiet one, because the hardware's choices differ.
4-bit types can be transposed (two even axes), never cast, scaled or padded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view

from wszoo.errors import MalformedError
from wszoo.weights.tensor import DTYPES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wszoo.buffers import Bytes
    from wszoo.plans.splice.columns import Ints
    from wszoo.weights.tensor import DType

MAX_RANK = 8
MAX_PAD = 1 << 16
BYTE = 8  # bits; types of fewer share a byte

_QUIET_NAN = {"float16": 0x7E00, "bfloat16": 0x7FC0, "float32": 0x7FC00000}
_ALL = slice(None)
_STRIPE = 16
_TABLED = 1 << 16  # elements of a table; making it takes as long as the arithmetic for as many


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a view's bytes come out of a tensor's; the default is the bytes as they are stored.

    Attributes:
        cast: name of the float type to convert to, or empty.
        scale: little-endian bytes of the scalar to multiply by, in the type after the cast, or empty.
        pad: (axis of the tensor, its new length), or ``None``.
        permutation: the tensor's axes in the order of the view, or empty for the identity.
    """

    cast: str = ""
    scale: bytes = b""
    pad: tuple[int, int] | None = None
    permutation: tuple[int, ...] = ()


AS_STORED = Recipe()


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A tensor, by its position in the sequence that the caller holds, seen through a recipe."""

    tensor: int
    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A recipe bound to an element type and a shape, with axes of length 1 dropped and neighbours merged.

    Attributes:
        source: element type of the tensor.
        target: element type of the view.
        shape: merged dimensions of the tensor.
        order: merged axes in the view's order.
        pad: (merged axis, its new length) or ``None``.
        scale: as in :class:`Recipe`.
    """

    source: DType
    target: DType
    shape: tuple[int, ...]
    order: tuple[int, ...]
    pad: tuple[int, int] | None
    scale: bytes

    @cached_property
    def view_shape(self) -> tuple[int, ...]:
        """Dimensions of the view: padded, permuted, merged; at least one."""
        return tuple(self.pad[1] if self.pad and self.pad[0] == axis else self.shape[axis] for axis in self.order)

    @cached_property
    def nbytes(self) -> int:
        """Bytes in the view."""
        return (math.prod(self.view_shape) * self.target.bits + 7) // 8

    @cached_property
    def is_stored(self) -> bool:
        """True where the view's bytes are the tensor's bytes."""
        return self.is_in_place and not self.computes

    @property
    def is_in_place(self) -> bool:
        """True where every element stays where it is, whatever becomes of its bits."""
        return len(self.order) == 1 and not self.pad

    @property
    def computes(self) -> bool:
        """True where elements change their bits, not only their place."""
        return bool(self.scale) or self.source is not self.target

    @cached_property
    def row_bytes(self) -> int:
        """Bytes in one step of the view's first axis."""
        return self.nbytes // self.view_shape[0] if self.nbytes else 0

    @property
    def inner_bytes(self) -> int:
        """Bytes along the view's last axis."""
        return self.view_shape[-1] * self.target.bits // 8

    def block(self, raw: Bytes, *, outer: slice = _ALL, inner: slice = _ALL) -> Bytes:
        """Bytes of a part of the view, in its order.

        Args:
            raw: the tensor's bytes.
            outer: elements of the view's first axis to take.
            inner: elements of its last axis to take (ignored where there is only one axis).
        """
        if self.source.bits < BYTE:
            return self._nibbles(raw, outer, inner)
        values = raw.view(self.source.numpy if self.computes else _unit(self.source)).reshape(self.shape)
        cut = [_ALL] * len(self.order)
        cut[-1], cut[0] = inner, outer
        part = values.transpose(self.order)[tuple(_clip(cut, self._lengths()))]
        if self.computes:
            part = self._converted(part)
        shape = tuple(len(range(*c.indices(n))) for c, n in zip(cut, self.view_shape, strict=True))
        if part.shape == shape:
            return _flattened(part).view(np.uint8)
        padded = np.zeros(shape, part.dtype)
        padded[tuple(slice(n) for n in part.shape)] = part
        return padded.reshape(-1).view(np.uint8)

    def piece(self, raw: Bytes, start: int, stop: int) -> Bytes:
        """Bytes ``[start, stop)`` of the view; only for views in place, and no copy where nothing is computed."""
        if not self.computes:
            return raw[start:stop]
        size = self.target.bits // 8
        low, high = start // size, -(-stop // size)
        values = self._converted(raw.view(self.source.numpy)[low:high])
        return values.view(np.uint8)[start - low * size : stop - low * size]

    def gather(self, raw: Bytes, offsets: Ints, count: int) -> Bytes:
        """``count`` bytes of the view at each of ``offsets``, which are whole elements; only for views in place."""
        if not self.computes:
            return sliding_window_view(raw, count)[offsets].reshape(-1)
        size = self.target.bits // 8
        values = sliding_window_view(raw.view(self.source.numpy), count // size)[offsets // size]
        return self._converted(values).reshape(-1).view(np.uint8)

    def _converted(self, part: NDArray[Any]) -> NDArray[Any]:
        return _conversion(part.dtype, self.target, self.scale)(part)

    def _lengths(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.order)

    def _nibbles(self, raw: Bytes, outer: slice, inner: slice) -> Bytes:
        # The view's first axis is the tensor's second: packed two by two, so an odd cut takes one nibble too many.
        # Two rows' low nibbles make a byte, and their high ones, before anything is turned: half as much to turn.
        rows, columns = self.shape
        low, high, _ = outer.indices(columns)
        packed = raw.reshape(rows, columns // 2)[inner, low // 2 : (high + 1) // 2]
        even, odd = packed[0::2], packed[1::2]
        turned = np.empty((packed.shape[1], 2, len(even)), np.uint8)
        for half, pairs in enumerate(((even & 15) | (odd << 4), (even >> 4) | (odd & 240))):
            turned[:, half] = _flattened(pairs.T).reshape(pairs.shape[::-1])
        skip = low % 2
        return turned.reshape(-1, len(even))[skip : skip + high - low].reshape(-1)


def _unit(dtype: DType) -> np.dtype[Any]:
    # Moving bf16 or fp8 as ml_dtypes' types takes a slow generic loop; as integers of their size it does not.
    return np.dtype(f"u{dtype.bits // 8}") if dtype.bits <= 64 else dtype.numpy  # noqa: PLR2004 - no u16 in NumPy


def _flattened(part: NDArray[Any]) -> NDArray[Any]:
    """The elements in C order; transposed ones 16 columns at a time, five times as fast as NumPy's copy.

    All stripes in one call: each call takes the GIL when it is done, and threads that ask for it every 2 microseconds
    spend more time on handing it on than on copying (16 threads on 2 cores: 12,000 switches for 340 MB instead of 200).
    """
    if part.ndim != 2 or part.strides[0] >= part.strides[1]:  # noqa: PLR2004 - a matrix
        return np.ascontiguousarray(part).reshape(-1)
    part = part.view(f"u{part.itemsize}") if part.itemsize <= 8 else part  # noqa: PLR2004 - no u16 in NumPy
    turned = np.empty(part.shape, part.dtype)
    whole = part.shape[1] // _STRIPE * _STRIPE
    np.positive(_stripes(part[:, :whole]), out=_stripes(turned[:, :whole]), order="C")
    turned[:, whole:] = part[:, whole:]
    return turned.reshape(-1)


def _stripes(matrix: NDArray[Any]) -> NDArray[Any]:
    """A matrix as one of 16 columns after the other: (stripe, row, column in the stripe)."""
    rows, columns = matrix.shape
    down, along = matrix.strides
    return as_strided(matrix, (columns // _STRIPE, rows, _STRIPE), (along * _STRIPE, down, along))


def _clip(cut: list[slice], lengths: tuple[int, ...]) -> list[slice]:
    return [slice(c.start, n if c.stop is None else min(c.stop, n)) for c, n in zip(cut, lengths, strict=True)]


class _Conversion:
    """Casts and scales elements; 16-bit ones by a table of all there can be, seven times as fast, once that pays."""

    def __init__(self, source: np.dtype[Any], target: DType, scale: bytes) -> None:
        self._source = source
        self._target = target
        self._scale = scale
        self._seen = 0

    def __call__(self, part: NDArray[Any]) -> NDArray[Any]:
        self._seen += part.size
        if self._source.itemsize != 2 or self._seen < _TABLED:  # noqa: PLR2004 - bytes
            return _cast_and_scale(part, self._target, self._scale)
        axes = np.argsort([-stride for stride in part.strides], kind="stable")  # in the order of memory
        keys = np.ascontiguousarray(part.transpose(axes)).view(np.uint16)
        out = np.empty(keys.shape, self._table.dtype)
        flat, flat_out = keys.reshape(-1), out.reshape(-1)
        for low in range(0, len(flat), _TABLED):  # take() makes its indices 64 bits wide
            flat_out[low : low + _TABLED] = self._table.take(flat[low : low + _TABLED], mode="clip")
        return out.transpose(np.argsort(axes))

    @cached_property
    def _table(self) -> NDArray[Any]:
        every = np.arange(_TABLED, dtype=np.uint16).view(self._source)
        return _cast_and_scale(every, self._target, self._scale)


@lru_cache(maxsize=64)
def _conversion(source: np.dtype[Any], target: DType, scale: bytes) -> _Conversion:
    return _Conversion(source, target, scale)


def _cast_and_scale(part: NDArray[Any], target: DType, scale: bytes) -> NDArray[Any]:
    with np.errstate(all="ignore"):
        values = part.astype(target.numpy)
        if scale:
            factor = np.frombuffer(scale, target.numpy)[0].astype(np.float32)
            values = (values.astype(np.float32) * factor).astype(target.numpy)
    bits = values.view(_unit(target))
    broken = values != values  # noqa: PLR0124 - ml_dtypes has no isnan of its own
    if broken.any():
        bits[broken] = _QUIET_NAN[target.name]
    return bits


def bind(recipe: Recipe, dtype: DType, shape: tuple[int, ...]) -> Layout:
    """Bind a recipe to a tensor's type and shape.

    Raises:
        MalformedError: the recipe does not fit them.
    """
    order = recipe.permutation or tuple(range(len(shape)))
    if len(shape) > MAX_RANK and recipe.permutation:
        raise MalformedError(f"a view permutes {len(shape)} axes, more than {MAX_RANK}")
    if sorted(order) != list(range(len(shape))):
        raise MalformedError(f"a view permutes axes {list(order)} of a tensor with {len(shape)} axes")
    _check_numbers(recipe, dtype)
    pad = _checked_pad(recipe.pad, shape)
    merged, turned, where = _merge(shape, order, pad[0] if pad else -1)
    target = DTYPES[recipe.cast] if recipe.cast else dtype
    placed = (where, pad[1]) if pad else None
    if dtype.bits < BYTE and recipe != AS_STORED and (turned != (1, 0) or pad or any(n % 2 for n in merged)):
        raise MalformedError(f"a view of a {dtype.name} tensor {list(shape)} does not transpose two even axes")
    return Layout(source=dtype, target=target, shape=merged, order=turned, pad=placed, scale=recipe.scale)


def _check_numbers(recipe: Recipe, dtype: DType) -> None:
    if not recipe.cast and not recipe.scale:
        return
    target = recipe.cast or dtype.name
    for name in (dtype.name, target):
        if name not in _QUIET_NAN:
            raise MalformedError(f"a view casts or scales {name!r} elements", hint=f"possible: {', '.join(_QUIET_NAN)}")
    if recipe.scale and len(recipe.scale) * 8 != DTYPES[target].bits:
        raise MalformedError(f"a view scales {target} elements by a scalar of {len(recipe.scale)} bytes")


def _checked_pad(pad: tuple[int, int] | None, shape: tuple[int, ...]) -> tuple[int, int] | None:
    if pad is None:
        return None
    axis, length = pad
    if not 0 <= axis < len(shape) or not shape[axis] < length <= MAX_PAD:
        raise MalformedError(f"a view pads axis {axis} of a tensor {list(shape)} to {length}")
    return pad


def _merge(shape: tuple[int, ...], order: tuple[int, ...], pinned: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Drop axes of length 1 and merge axes that stay neighbours; the ``pinned`` axis stays on its own."""
    groups: list[list[int]] = []
    kept = [axis for axis in range(len(shape)) if shape[axis] != 1 or axis == pinned]
    after = dict(pairwise(kept))
    for axis in (axis for axis in order if axis in kept):
        if groups and after.get(groups[-1][-1]) == axis and pinned not in (axis, groups[-1][-1]):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    by_source = sorted(groups)
    if not groups:
        return (1,), (0,), -1
    merged = tuple(math.prod(shape[axis] for axis in group) for group in by_source)
    turned = tuple(by_source.index(group) for group in groups)
    return merged, turned, next((i for i, group in enumerate(by_source) if group == [pinned]), -1)
