"""Reads views: byte ranges of tensors as stored, computed parts of all others, within a fixed memory, by any thread."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import as_strided

from wszoo.buffers import is_mapped, memory_of
from wszoo.errors import IntegrityError, LimitError, MalformedError
from wszoo.plans.splice.recent import Recent
from wszoo.plans.splice.views import bind
from wszoo.weights.tensor import Loading, LoadInParts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wszoo.buffers import Bytes
    from wszoo.plans.splice.columns import Ints
    from wszoo.plans.splice.views import Layout, View
    from wszoo.weights.tensor import Tensor

    Matrix = np.ndarray[tuple[int, int], np.dtype[np.uint8]]

SLAB = 4 << 20  # bytes of a permuted view that are computed at a time: far above a row, far below the memory limit
_SLABS = 64 << 20  # bytes of slabs kept
_SPARSE = 2  # rows that are this many times as long as what is wanted of them are not computed whole
_FEW = 8  # rows of a transposed matrix below which a slab is computed: they take a cache line an element
# Bytes of loaded tensors kept, as load() may decompress; those that it maps do not count. 16 threads are at 64 MiB of a
# plan at a time: enough for those of a 7B language model's widest block (172 MiB) and the tensor behind it (86 MiB).
_LOADED = 320 << 20
_LARGE = 128 << 20  # bytes of a tensor of which only ranges are loaded where it stands as it is: embeddings take a GB
_RANGE = 16 << 20  # bytes of such a range: a frame's
_BATCH = 256 << 10  # bytes computed at a time of what is wanted in order: they stay in a core's cache
_TURNED = 64  # rows at least of a transposed matrix, so that what is read of it comes in whole cache lines
_SHORT = 16  # reads of less than this part of a slab compute all of it, since others like it come soon


class Reader:
    """Reads byte ranges of views, computing permuted ones a slab at a time within a fixed memory.

    Threads may share one: a tensor or slab that several ask for is loaded once, by all of them where it has parts.

    Args:
        tensors: where views find their bytes.
        views: the views that will be asked for, by position.
        limit: the most bytes that may be loaded or computed in all, for a program that nobody vouches for: a few bytes
            from here and there in a permuted view take a slab each. None for no limit.

    Attributes:
        spent: bytes loaded and computed so far; what is read again while it is still kept costs nothing.

    Raises:
        MalformedError: a view names a tensor that does not exist, or a recipe that does not fit it.
    """

    def __init__(self, tensors: Sequence[Tensor], views: Sequence[View], *, limit: int | None = None) -> None:
        self.spent = 0
        self._limit = limit
        self._tensors = tensors
        self._views = views
        self.layouts = [_bound(view, tensors) for view in views]
        self._loaded = Recent(_LOADED)
        self._slabs = Recent(_SLABS)
        self._lock = threading.Lock()

    def raw(self, tensor: int) -> Bytes:
        """The tensor's bytes.

        Raises:
            IntegrityError: it loads another number of bytes than its type and shape take.
            LimitError: more was loaded and computed than the limit.
        """
        return self._loaded.get((tensor, 0), partial(self._load, tensor))

    def _copy_stored(self, tensor: int, start: int, out: Bytes) -> None:
        """As :meth:`copy`, of a tensor as it is: of large ones, only what is needed is loaded."""
        load_ = self._tensors[tensor].load
        if not isinstance(load_, LoadInParts) or self._tensors[tensor].nbytes <= _LARGE or (tensor, 0) in self._loaded:
            out[:] = self.raw(tensor)[start : start + len(out)]
            return
        at, stop = start, start + len(out)
        while at < stop:
            number, skip = divmod(at, _RANGE)
            data = self._loaded.get((tensor, number + 1), partial(self._load_range, tensor, load_, number * _RANGE))
            part = data[skip : skip + stop - at]
            out[at - start : at - start + len(part)] = part
            at += len(part)

    def _load_range(self, tensor: int, load_: LoadInParts, start: int) -> Loading:
        stop = min(start + _RANGE, self._tensors[tensor].nbytes)
        loading = load_.begin(start, stop)
        if len(loading.data) != stop - start:
            raise IntegrityError(f"tensor {self._tensors[tensor].name!r} ends before its byte {stop:,}")
        self._spend(memory_of(loading.data))
        return loading

    def _load(self, tensor: int) -> Loading:
        loading = load(self._tensors[tensor])
        self._spend(memory_of(loading.data))
        return loading

    def keeps(self, views: Iterable[int]) -> bool:
        """True where the tensors of these views stay loaded while all of them are read in turn."""
        return sum(self._tensors[each].nbytes for each in {self._views[view].tensor for view in views}) <= _LOADED

    def is_mapped(self, view: int) -> bool:
        """True where loading the view's tensor costs nothing, because it is a part of a mapped file."""
        return is_mapped(self.raw(self._views[view].tensor))

    def read(self, view: int, start: int, stop: int) -> Bytes:
        """Bytes ``[start, stop)`` of a view; not a copy where the view is the tensor as stored."""
        layout = self.layouts[view]
        if layout.is_in_place:
            self._spend(stop - start if layout.computes else 0)
            return layout.piece(self.raw(self._views[view].tensor), start, stop)
        size = self._rows_in_slab(layout) * layout.row_bytes
        first, last = start // size, max(start, stop - 1) // size
        parts = [self._slab(view, number) for number in range(first, last + 1)]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return joined[start - first * size : stop - first * size]

    def copy(self, view: int, start: int, out: Bytes) -> None:
        """Put the bytes of a view from ``start`` on into ``out``: what is read in order, and mostly once."""
        layout = self.layouts[view]
        if layout.is_stored:
            self._copy_stored(self._views[view].tensor, start, out)
            return
        in_order = layout.is_in_place or (len(out) >= SLAB // _SHORT and layout.row_bytes <= _BATCH)
        step = max(_BATCH, _TURNED * layout.row_bytes) if in_order else len(out) or 1
        for low in range(0, len(out), step):
            part = out[low : low + step]
            begin = start + low
            part[:] = (self._covering if in_order else self.read)(view, begin, begin + len(part))

    def _covering(self, view: int, start: int, stop: int) -> Bytes:
        """As :meth:`read`, of just the rows that are needed, and none of them kept."""
        layout = self.layouts[view]
        if layout.is_in_place:
            return self.read(view, start, stop)
        first, last = start // layout.row_bytes, -(-stop // layout.row_bytes)
        self._spend((last - first) * layout.row_bytes)
        data = layout.block(self.raw(self._views[view].tensor), outer=slice(first, last))
        return data[start - first * layout.row_bytes : stop - first * layout.row_bytes]

    def rows(self, view: int, source: int, stride: int, rows: int, length: int) -> Matrix:
        """``rows`` rows of ``length`` bytes of a view that begin ``stride`` bytes apart, from ``source`` on.

        Where a few rows of many tensors are wanted at a time, as when interleaved matrices are put together in order,
        slabs would be dropped before they are used up, so that only what is wanted is computed.
        """
        layout = self.layouts[view]
        if layout.is_in_place:
            if layout.computes and length * _SPARSE <= stride and not (source | stride | length) % 8:
                return self.gather(view, source + stride * np.arange(rows), length).reshape(rows, length)
        elif stride == layout.row_bytes and source % stride + length <= stride and self._is_few(view, source, rows):
            first, column = divmod(source, stride)
            self._spend(rows * stride)
            data = layout.block(self.raw(self._views[view].tensor), outer=slice(first, first + rows))
            return data.reshape(rows, stride)[:, column : column + length]
        data = self.read(view, source, source + (rows - 1) * stride + length)
        return as_strided(data, (rows, length), (stride, 1))

    def _is_few(self, view: int, source: int, rows: int) -> bool:
        """True where rows are fewer than a slab's, which is not there yet."""
        in_slab = self._rows_in_slab(self.layouts[view])
        return _FEW <= rows < in_slab and (view, source // self.layouts[view].row_bytes // in_slab) not in self._slabs

    def gather(self, view: int, offsets: Ints, count: int) -> Bytes:
        """``count`` bytes at each of ``offsets``, one behind the other; only for views in place."""
        return self.layouts[view].gather(self.raw(self._views[view].tensor), offsets, count)

    def anchors(self, view: int, element: int, count: int) -> Bytes:
        """``count`` elements of every row of the view's last axis, from ``element`` on."""
        layout = self.layouts[view]
        return layout.block(self.raw(self._views[view].tensor), inner=slice(element, element + count))

    def _slab(self, view: int, number: int) -> Bytes:
        return self._slabs.get((view, number), partial(self._computed, view, number))

    def _computed(self, view: int, number: int) -> Loading:
        layout = self.layouts[view]
        rows = self._rows_in_slab(layout)
        outer = slice(number * rows, min((number + 1) * rows, layout.view_shape[0]))
        self._spend(rows * layout.row_bytes)
        return Loading(layout.block(self.raw(self._views[view].tensor), outer=outer))

    def _spend(self, nbytes: int) -> None:
        with self._lock:
            self.spent += nbytes
            if self._limit is not None and self.spent > self._limit:
                raise LimitError(f"a splice program loads and computes more than {self._limit:,} bytes of tensors")

    @staticmethod
    def _rows_in_slab(layout: Layout) -> int:
        return max(1, SLAB // max(1, layout.row_bytes))


def load(tensor: Tensor) -> Loading:
    """Begin to load a tensor's raw bytes, their number checked.

    Raises:
        IntegrityError: it loads another number of bytes than its type and shape take.
    """
    load_ = tensor.load
    loading = load_.begin(0, tensor.nbytes) if isinstance(load_, LoadInParts) else Loading(np.asarray(load_()))
    if (raw := loading.data).size != tensor.nbytes:
        raise IntegrityError(
            f"tensor {tensor.name!r} has {raw.size:,} bytes, but {tensor.dtype.name} {list(tensor.shape)} takes "
            f"{tensor.nbytes:,}"
        )
    return loading


def _bound(view: View, tensors: Sequence[Tensor]) -> Layout:
    if not 0 <= view.tensor < len(tensors):
        raise MalformedError(f"a view names tensor {view.tensor} of {len(tensors)}")
    tensor = tensors[view.tensor]
    return bind(view.recipe, tensor.dtype, tensor.shape)
