"""Columns of whole numbers as bytes: LEB128, one column after the other, so that zstd sees like beside like.

A *column* is its length in bytes (one LEB128 number), then its numbers: seven bits a byte, the lowest first, the top
bit set on every byte but the last. Signed columns are zigzag coded: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4.
"""

from __future__ import annotations

import numpy as np

from wszoo.errors import LimitError, MalformedError

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]

# Zigzag of 2**40: a tebibyte, far above any plan, and far enough from overflow to add 2**22 of them.
MAX_VALUE = 1 << 41
_MAX_BYTES = 6
_GROUP = 7


def encode(values: Ints) -> bytes:
    """A column of numbers from 0 to ``MAX_VALUE``."""
    lengths = np.searchsorted(1 << (np.arange(1, _MAX_BYTES) * _GROUP), values, side="right") + 1
    ends = np.cumsum(lengths)
    payload = np.zeros(int(lengths.sum()), np.uint8)
    for place in range(int(lengths.max(initial=0))):  # by number, not by byte, as in Cursor.column
        longer = np.flatnonzero(lengths > place)
        seven = values[longer] >> (_GROUP * place) & 127
        payload[ends[longer] - lengths[longer] + place] = seven | (lengths[longer] > place + 1) << _GROUP
    return number(len(payload)) + payload.tobytes()


def encode_signed(values: Ints) -> bytes:
    """A column of numbers of either sign, zigzag coded."""
    return encode((values << 1) ^ (values >> 63))


def number(value: int) -> bytes:
    """One LEB128 number."""
    out = bytearray()
    while value > 127:  # noqa: PLR2004 - seven bits
        out.append(value & 127 | 128)
        value >>= _GROUP
    out.append(value)
    return bytes(out)


class Cursor:
    """Reads numbers and columns from bytes that nobody vouches for.

    Every method raises :class:`MalformedError` where the bytes end early or do not follow the format, and
    :class:`LimitError` where a number is over its limit.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self._at

    def take(self, count: int) -> memoryview:
        """The next ``count`` bytes."""
        if count > self.left:
            raise MalformedError(f"a splice program ends early: {count:,} bytes wanted, {self.left:,} left")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, limit: int) -> int:
        """The next LEB128 number, at most ``limit``."""
        value = 0
        for place in range(_MAX_BYTES):
            byte = self.take(1)[0]
            value |= (byte & 127) << (_GROUP * place)
            if byte < 128:  # noqa: PLR2004 - the top bit ends a number
                break
        else:
            raise MalformedError(f"a number in a splice program takes more than {_MAX_BYTES} bytes")
        if value > limit:
            raise LimitError(f"a number in a splice program is {value:,}, over its limit of {limit:,}")
        return value

    def column(self, count: int) -> Ints:
        """The next column, which must hold ``count`` numbers."""
        size = self.number(self.left)
        if size > _MAX_BYTES * count:
            raise MalformedError(f"a column of {count:,} numbers in a splice program has {size:,} bytes")
        payload = np.frombuffer(self.take(size), np.uint8)
        ends = np.flatnonzero(payload < 128)  # noqa: PLR2004 - the top bit ends a number
        if len(ends) != count or (len(payload) and payload[-1] >= 128):  # noqa: PLR2004
            raise MalformedError(f"a column of a splice program holds {len(ends):,} numbers, not {count:,}")
        if not count:
            return np.zeros(0, np.int64)
        starts = np.concatenate(([0], ends[:-1] + 1))
        lengths = ends - starts + 1
        if lengths.max() > _MAX_BYTES:
            raise MalformedError(f"a number in a splice program takes more than {_MAX_BYTES} bytes")
        values = (payload[starts] & 127).astype(np.int64)
        for place in range(1, int(lengths.max())):  # by number, not by byte: a hostile column has six bytes for each
            longer = np.flatnonzero(lengths > place)
            values[longer] |= (payload[starts[longer] + place] & 127).astype(np.int64) << (_GROUP * place)
        if values.max() > MAX_VALUE:
            raise LimitError(f"a number in a splice program is {values.max():,}, over the limit of {MAX_VALUE:,}")
        return values

    def signed_column(self, count: int) -> Ints:
        """The next zigzag column, which must hold ``count`` numbers."""
        values = self.column(count)
        return (values >> 1) ^ -(values & 1)
