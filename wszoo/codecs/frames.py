"""Coding one frame of a tensor: raw, zstd, or zstd over byte-grouped elements.

Byte grouping puts the first bytes of all elements together, then the second bytes, and so on: sign and exponent bytes
of trained weights have few values, mantissa bytes have all, and zstd gains only on what stands together. What it gains
there are short codes for frequent bytes; repeats are chance, and looking for all of them makes frames larger. On
MiniLM's weights, each tensor a coded frame, in bf16, fp16 and fp32:

* level 1 over all bytes: 0.692, 0.854, 0.834 of the size
* a block begins with each group: 0.685, 0.848, 0.828
* and only near repeats are looked for: 0.671, 0.848, 0.821

Where rows repeat, near repeats take 0.84 and all of them 0.19, so both are tried.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wszoo.codecs import zstd
from wszoo.errors import IncompatibleError, MalformedError

if TYPE_CHECKING:
    from wszoo.buffers import Bytes

RAW = "raw"
ZSTD = "zstd"
LEVEL = 1  # level 3 gains under 1 % on weights and takes twice the time
SMALL = 16 << 10  # bytes of a frame that is kept raw: coding 2,000 of 8 KB saved 2 MB, and undoing it took 0.4 s
KEEP_RAW = 0.95  # a frame that does not get smaller than this is kept raw: raw frames are memory-mapped, not decoded

_PAIR = 2  # bytes of fp16 and bf16 elements, put together by arithmetic: 6 GB/s, strided copies 2 to 3.5 GB/s
_BLOCK = 1 << 21  # elements: 4 MiB a thread; with fewer, threads wait longer for more turns in Python
_PAGE = 4096  # bytes, at least

_GROUPED = re.compile(r"zstd\+bytes([248])")


@dataclass(frozen=True, slots=True)
class Coded:
    """An encoded frame.

    Attributes:
        codec: as it stands in the tensor table.
        data: the stored bytes.
    """

    codec: str
    data: bytes | Bytes


def encode(raw: Bytes, itemsize: int) -> Coded:
    """Encode a frame in the form that pays; small ones stay raw.

    Args:
        raw: flat ``uint8``.
        itemsize: bytes an element; 1 groups nothing.
    """
    if len(raw) <= SMALL:
        return Coded(RAW, raw)
    grouped = itemsize in {2, 4, 8} and len(raw) % itemsize == 0
    planes = list(np.ascontiguousarray(raw.reshape(-1, itemsize).T)) if grouped else [raw]
    packed = min((zstd.compress_planes(planes, level=LEVEL, nearest=nearest) for nearest in (True, False)), key=len)
    if len(packed) > KEEP_RAW * len(raw):
        return Coded(RAW, raw)
    return Coded(f"{ZSTD}+bytes{itemsize}" if grouped else ZSTD, packed)


def decode(codec: str, stored: Bytes, out: Bytes) -> None:
    """Decode a frame into ``out``, whose length is the declared raw size.

    Raises:
        MalformedError: the frame does not decode to exactly that size.
        IncompatibleError: an unknown codec.
    """
    if codec == RAW:
        if len(stored) != len(out):
            raise MalformedError(f"a raw frame of {len(stored)} bytes is declared as {len(out)}")
        out[:] = stored
        return
    grouped = _GROUPED.fullmatch(codec)
    if codec != ZSTD and grouped is None:
        raise IncompatibleError(
            f"unknown codec {codec!r}", hint="it was made by a later wszoo: upgrade with 'pip install --upgrade wszoo'"
        )
    itemsize = int(grouped[1]) if grouped else 1
    if len(out) % itemsize:
        raise MalformedError(f"a frame of {len(out)} bytes cannot have elements of {itemsize} bytes")
    # Brings in what is mapped, without the GIL. The reader looks at each block of it with the GIL: 0.4 to 2 ms a frame.
    stored[::_PAGE].max(initial=0)
    reader = zstd.Reader(stored, size=len(out))
    if itemsize == 1:
        reader.fill(out)
    elif itemsize == _PAIR:
        _read_pairs(reader, out)
    else:
        _read_planes(reader, itemsize, out)
    reader.finish()


def _read_planes(reader: zstd.Reader, itemsize: int, out: Bytes) -> None:
    """Undo byte grouping: plane ``i`` of what is read holds the ``i``-th bytes of all elements, in ``out``'s order.

    Copying a transposed array does it too, at 0.6 GB/s; zstd itself gives 3.3 GB/s.
    """
    block = np.empty(min(_BLOCK, len(out) // itemsize), np.uint8)
    for plane in (out[number::itemsize] for number in range(itemsize)):
        for start in range(0, len(plane), _BLOCK):
            part = plane[start : start + _BLOCK]
            reader.fill(block[: len(part)])
            part[:] = block[: len(part)]


def _read_pairs(reader: zstd.Reader, out: Bytes) -> None:
    """The same for elements of two bytes, faster.

    The low bytes wait in the second half of ``out`` for the high ones; elements grow from the front, and reach each low
    byte when it has been taken.
    """
    low, whole = out[len(out) // _PAIR :], out.view("<u2")  # the first byte of an element is the low one, anywhere
    reader.fill(low)
    high, aside = np.empty((2, min(_BLOCK, len(whole))), np.uint8)
    for start in range(0, len(whole), _BLOCK):
        part = whole[start : start + _BLOCK]
        above, below = high[: len(part)], low[start : start + len(part)]
        reader.fill(above)
        if _PAIR * (start + len(part)) > len(low) + start:  # the elements come to lie on them
            below = aside[: len(part)]
            below[:] = low[start : start + len(part)]
        np.left_shift(above, 8, out=part, dtype=np.uint16)
        np.bitwise_or(part, below, out=part)
