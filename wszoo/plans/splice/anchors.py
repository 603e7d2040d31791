"""Anchors: 16 bytes out of every few kilobytes of every view, sorted so that a plan's bytes can be looked up.

A view is cut into segments of 32 bytes (small tensors) to 4 KiB: rows where rows are that long, parts of rows where
they are longer, so that cut or interleaved columns still hold anchors. An anchor is taken at a segment's first place
that does not look like zeros, a constant or small numbers, which would be found everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wszoo.buffers import Bytes
    from wszoo.plans.splice.columns import Ints, Mask
    from wszoo.plans.splice.reader import Reader
    from wszoo.plans.splice.views import Layout

Pairs = np.ndarray[tuple[int, int], np.dtype[np.uint64]]
Keys = np.ndarray[tuple[int], np.dtype[np.uint64]]

ANCHOR = 16
MAX_SEGMENT = 4096
MIN_SEGMENT = 32
_SEGMENTS = 64  # anchors that even a small tensor should have, so that parts of it are found
_DENSE = 256 << 10  # bytes at a view's start where rows have anchors in their middle too: columns that were cut off
_PARTS = 8  # hold some of these, and whatever one row leads to is extended to all
_ROWS = 4096  # short rows up to this many have an anchor each, so that they are found in any order
_RETRIES = (0, 16, 48, 112, 240, 752, 2032)  # places in a segment that are tried for an anchor
_MATERIALISE = 64 << 20  # views that can only be indexed by computing them whole are skipped above this
_CANDIDATES = 4  # views kept for one anchor; more would not be told apart anyway
_FLAGS = 8  # an anchor: so few other bytes pass for one that looking these up is a small part of the work,
_MAX_FLAGS = 1 << 26  # up to this: 64 MiB, over 8 million anchors, which are 20 GB of weights
_SCRAMBLE = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """All anchors, sorted by ``mix``. ``view`` and ``source`` (an offset in it, in bytes) say where each was taken.

    ``flags`` says of the first eight bytes of 16 whether any anchor may begin with them. ``buckets`` holds, for each
    value of a mix's top bits, where its anchors begin: a look-up reads two neighbours there and one anchor or two.
    """

    mix: Keys
    view: Ints
    source: Ints
    flags: Mask
    buckets: np.ndarray[tuple[int], np.dtype[np.uint32]]

    def lookup(self, mix: Keys) -> tuple[Ints, Ints]:
        """Anchors of some keys: (position among the keys, position among the anchors), in order of both."""
        top = (mix >> _shift(len(self.buckets) - 1)).view(np.int64)
        low = self.buckets[top].astype(np.int64)
        count = self.buckets[top + 1] - low
        asked = np.repeat(np.arange(len(mix)), count)
        entry = np.repeat(low - np.cumsum(count) + count, count) + np.arange(len(asked))
        equal = np.flatnonzero(self.mix[entry] == mix[asked])
        return asked[equal], entry[equal]


def slots(keys: Keys, size: int) -> Ints:
    """Where keys fall in a table whose size is a power of two."""
    return ((keys * _SCRAMBLE[0]) >> _shift(size)).view(np.int64)


def _shift(size: int) -> np.uint64:
    return np.uint64(65 - size.bit_length())


def mixed(low: Keys, high: Keys) -> Keys:
    """One number for 16 bytes; not to be trusted, only to be looked up."""
    return (low ^ ((high << np.uint64(31)) | (high >> np.uint64(33)))) * _SCRAMBLE[1]


def row_length(layout: Layout, shape: tuple[int, ...]) -> int:
    """Bytes in a view's natural row: its last axis, or the tensor's if it is in place, with outer ones if too short."""
    if not layout.is_in_place:
        shape = layout.view_shape
    size = math.prod(shape[-1:]) * layout.target.bits // 8
    for length in reversed(shape[:-1]):
        if size >= MIN_SEGMENT:
            break
        size *= length
    return max(1, size)


def build(reader: Reader, rows: Sequence[int]) -> Index | None:
    """Index views; ``None`` where no view has an anchor.

    Args:
        reader: reads the views, all of which are indexed.
        rows: their natural row lengths in bytes.
    """
    keys, number, source = [], [], []
    for view in range(len(reader.layouts)):
        for offsets, pairs in _anchors(view, reader, rows[view]):
            keys.append(pairs)
            number.append(np.full(len(offsets), view, np.int64))
            source.append(offsets)
    if not keys:
        return None
    pairs = np.concatenate(keys)
    return _sorted(pairs[:, 0].copy(), pairs[:, 1].copy(), np.concatenate(number), np.concatenate(source))


def _sorted(low: Keys, high: Keys, view: Ints, source: Ints) -> Index:
    mix = mixed(low, high)
    order = np.argsort(mix, kind="stable")  # equal ones stay in the order of views and offsets
    mix, view, source, low = mix[order], view[order], source[order], low[order]
    fresh = np.diff(mix, prepend=~mix[:1]) != 0
    other = fresh | (np.diff(view, prepend=-1) != 0)  # of equal anchors in one view only the first is kept
    group = np.cumsum(other)
    rank = group - group[fresh].repeat(np.diff(np.append(np.flatnonzero(fresh), len(mix))))
    keep = other & (rank < _CANDIDATES)
    mix, view, source, low = mix[keep], view[keep], source[keep], low[keep]
    size = min(1 << max(16, int(len(mix) * _FLAGS).bit_length()), _MAX_FLAGS)
    flags = np.zeros(size, np.bool_)
    flags[slots(low, size)] = True
    size //= _FLAGS
    buckets = np.zeros(size + 1, np.uint32)
    np.cumsum(np.bincount((mix >> _shift(size)).view(np.int64), minlength=size), out=buckets[1:])
    return Index(mix=mix, view=view, source=source, flags=flags, buckets=buckets)


def _anchors(view: int, reader: Reader, row: int) -> Iterator[tuple[Ints, Pairs]]:
    layout = reader.layouts[view]
    if layout.nbytes < ANCHOR:
        return
    step = _segment(row, layout.nbytes)
    if layout.is_in_place:
        yield _flat(lambda at: reader.gather(view, at, ANCHOR), layout.nbytes, max(row, step), step)
    elif layout.inner_bytes >= ANCHOR and not layout.pad:
        yield from _sliced(view, reader, step)
    elif layout.nbytes <= _MATERIALISE:
        windows = sliding_window_view(reader.read(view, 0, layout.nbytes), ANCHOR)
        yield _flat(lambda at: windows[at].reshape(-1), layout.nbytes, max(row, step), step)


def _segment(row: int, total: int) -> int:
    """Distance of anchors: a whole number of rows, or an even part of one."""
    want = min(max(total // _SEGMENTS, MIN_SEGMENT), MAX_SEGMENT)
    if row <= want:
        return row * (want // row) if total > row * _ROWS else row
    fewest = -(-row // want)
    for parts in range(fewest + fewest % 2, 4 * fewest, 2):
        if row % (parts * 8) == 0:
            return row // parts
    return want // 8 * 8


def _flat(gather: Callable[[Ints], Bytes], size: int, row: int, step: int) -> tuple[Ints, Pairs]:
    starts = (np.arange(0, size, row)[:, None] + np.arange(0, row, step)[None, :]).reshape(-1)
    fine = max(MIN_SEGMENT, row // _PARTS // ANCHOR * ANCHOR)
    if fine < step:
        starts = np.union1d(starts, np.arange(0, min(size, _DENSE), fine))
    found_at, found = [], []
    for retry in _RETRIES:
        if retry + ANCHOR > step and retry:
            break
        at = starts + retry
        inside = at <= size - ANCHOR
        starts, at = starts[inside], at[inside]
        pairs = gather(at).reshape(-1, ANCHOR).view(np.uint64)
        good = _telling(pairs[:, 0])
        found_at.append(at[good])
        found.append(pairs[good])
        starts = starts[~good]
        if not len(starts):
            break
    at, pairs = np.concatenate(found_at), np.concatenate(found)
    order = np.argsort(at)
    return at[order], pairs[order]


def _sliced(view: int, reader: Reader, step: int) -> Iterator[tuple[Ints, Pairs]]:
    layout = reader.layouts[view]
    inner, bits = layout.inner_bytes, layout.target.bits
    every = max(1, step // inner)  # short rows: an anchor in every so many
    starts = np.arange(0, layout.nbytes, inner)[::every]
    for column in range(0, inner - ANCHOR + 1, step):
        waiting = np.ones(len(starts), np.bool_)
        for retry in _RETRIES:
            at = column + retry
            if at + ANCHOR > min(inner, column + max(step, ANCHOR)) or not waiting.any():
                break
            taken = reader.anchors(view, at * 8 // bits, ANCHOR * 8 // bits)
            pairs = taken.reshape(-1, ANCHOR)[::every].copy().view(np.uint64)
            good = waiting & _telling(pairs[:, 0])
            yield starts[good] + at, pairs[good]
            waiting &= ~good


def _telling(keys: Keys) -> Mask:
    """Which keys are neither periodic in 1, 2 or 4 bytes nor mostly zero bytes."""
    half = (keys >> np.uint64(32)) == (keys & np.uint64(0xFFFFFFFF))
    zeros: Ints = (np.ascontiguousarray(keys).view(np.uint8).reshape(-1, 8) == 0).sum(axis=1)
    telling: Mask = ~half & (zeros < 5)  # noqa: PLR2004 - two small 32-bit numbers have five or more
    return telling
