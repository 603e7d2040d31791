"""Zstandard for blobs: one frame, of a size known beforehand, decoded within bounds.

A frame from outside may declare terabytes, hide a second frame behind the first or ask for a huge window. Whoever
stores a blob also stores its decoded size, so :func:`decompress` wants that size and refuses everything else before it
allocates anything (256 MiB of zeros compress to 8 KB).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import zstandard

from wszoo.errors import LimitError, MalformedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer


MAGIC = b"\x28\xb5\x2f\xfd"
MAX_WINDOW = 1 << 30  # also what a dictionary may span; encoders here never ask for more than data and dictionary take
MAX_LEVEL = 22
_DEFAULT_TREE = 8 << 20  # positions that the tree of level 19 remembers by itself
_NEAREST = {"hash_log": 6, "min_match": 7}  # 64 places; at level 1 it is 16,384
_LIGHT = 8 << 20  # bytes of window, which a decoder keeps; level 1 asks for 512 KiB, a hostile frame for 128 MiB
# Blocks hold up to 128 KiB; empty ones would cost 0.2 s of looking at a megabyte of them.
_LEAST_BLOCK = 1 << 10  # bytes a block, over all of a frame
_FREE_BLOCKS = 256
_RLE = 1  # type of a block that is one byte, repeated
_idle: deque[zstandard.ZstdDecompressor] = deque(maxlen=16)  # what they allocate is as much work as decoding 1 MB
_MAX_TREE_LOG = 27  # dictionaries of 64 MiB; compressing takes 1.3 GB then, decoding no more than before


def compress(data: Buffer, *, level: int, dictionary: Buffer | None = None) -> bytes:
    """Compress ``data`` into one frame that declares its size.

    Args:
        data: what to compress.
        level: 1 (fast) to 22 (small).
        dictionary: bytes that resemble ``data``; matches may refer to them. The window grows to reach all of them.
            Above 8 MiB so does the tree of the high levels (16 and up), with up to 1.3 GB of memory.

    Returns:
        The frame: no checksum (blobs are checked by sha256) and no dictionary number.
    """
    view = memoryview(data).cast("B")
    known = memoryview(dictionary).cast("B") if dictionary is not None else memoryview(b"")
    parameters = _parameters(level, len(view), dict_size=len(known), **_window(len(view), len(known)))
    return _compressor(parameters, known).compress(view)


def compress_planes(planes: Sequence[Buffer], *, level: int, nearest: bool) -> bytes:
    """Compress bytes of several kinds, one kind after the other, into one frame as :func:`compress` makes it.

    Args:
        planes: of one kind each. A plane begins a block of its own, since a block has one code for all of its bytes.
        level: as for :func:`compress`.
        nearest: only the last few places are searched for repeats, so that most bytes are coded by how frequent they
            are. For level 1, and for bytes of few values, whose repeats are chance and cost more than they save.
    """
    views = [memoryview(plane).cast("B") for plane in planes]
    size = sum(map(len, views))
    parameters = _parameters(level, size, **(_NEAREST if nearest else {}))
    encoder = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=size)
    frame = []
    for view in views:
        frame += [encoder.compress(view), encoder.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
    return b"".join([*frame, encoder.flush()])


def _parameters(level: int, size: int, **more: int) -> zstandard.ZstdCompressionParameters:
    return zstandard.ZstdCompressionParameters.from_level(
        level, source_size=max(size, 1), write_checksum=False, write_dict_id=False, **more
    )


def _window(size: int, known: int) -> dict[str, int]:
    if not known:
        return {}
    window = {"window_log": min(max((size + known - 1).bit_length(), 10), MAX_WINDOW.bit_length() - 1)}
    if known <= _DEFAULT_TREE:
        return window
    # The tree of the high levels remembers 2**(chain_log - 1) positions. With the default, only the end of a larger
    # dictionary is found: 51 MB against themselves take 136 KB and not 7.7.
    return {**window, "chain_log": min(known.bit_length() + 1, _MAX_TREE_LOG)}


def _compressor(parameters: zstandard.ZstdCompressionParameters, known: memoryview) -> zstandard.ZstdCompressor:
    if not known:
        return zstandard.ZstdCompressor(compression_params=parameters)
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=_raw_dictionary(known))


def _raw_dictionary(known: memoryview) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(known.tobytes(), dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def declared_size(data: Buffer, *, limit: int) -> int:
    """The decoded size that a frame's header declares.

    Raises:
        MalformedError: not a zstd frame, or one that does not declare its size.
        LimitError: it declares more than ``limit`` bytes.
    """
    size = _header(memoryview(data).cast("B")).content_size
    if size > limit:
        raise LimitError(f"a zstd frame declares {size:,} bytes, more than the {limit:,} allowed")
    return size


def decompress(data: Buffer, *, size: int, dictionary: Buffer | None = None) -> bytes:
    """Decode one frame that holds exactly ``size`` bytes.

    Args:
        data: the frame, and nothing after it.
        size: the decoded size in bytes, from a source that is trusted more than the frame.
        dictionary: the bytes that it was compressed against.

    Raises:
        MalformedError: not one whole frame of ``size`` bytes, or damaged.
        LimitError: it needs a window larger than its content (with the dictionary) can use.
    """
    frame = memoryview(data).cast("B")
    known = memoryview(dictionary).cast("B") if dictionary is not None else memoryview(b"")
    _checked_header(frame, size, len(known))
    if known:
        decoder = zstandard.ZstdDecompressor(dict_data=_raw_dictionary(known), max_window_size=MAX_WINDOW)
    else:
        decoder = _decoder()
    try:
        decoded = decoder.decompress(frame, read_across_frames=False, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise MalformedError(f"a zstd frame of {len(frame):,} bytes cannot be decoded: {error}") from error
    except MemoryError as error:
        raise LimitError(f"a zstd frame declares {size:,} bytes, more than this machine has memory for") from error
    if not known:
        _idle.append(decoder)
    if len(decoded) != size:
        raise MalformedError(f"a zstd frame decodes to {len(decoded):,} bytes, not the {size:,} expected")
    return decoded


class Reader:
    """Decodes one frame that holds exactly ``size`` bytes, as :func:`decompress` does, into memory of the caller's.

    In parts: who rearranges them as they come never has the content in memory twice.

    Args:
        data: the frame, and nothing after it.
        size: the decoded size in bytes, from a source that is trusted more than the frame.

    Raises:
        MalformedError: not one whole frame of ``size`` bytes.
        LimitError: it needs a window larger than its content can use, or has more blocks than anybody writes.
    """

    def __init__(self, data: Buffer, *, size: int) -> None:
        self._frame = memoryview(data).cast("B")
        self._header = _checked_header(self._frame, size, 0)
        if _length(self._frame, self._header, most=_FREE_BLOCKS + size // _LEAST_BLOCK) != len(self._frame):
            raise self._malformed("it is cut short, or something stands behind it")
        self._decoder = _decoder()
        self._stream = self._decoder.stream_reader(self._frame)

    def fill(self, out: Buffer) -> None:
        """Decode the next bytes, as many as ``out`` takes.

        Raises:
            MalformedError: the frame is damaged, or has fewer.
        """
        view = memoryview(out).cast("B")
        while view:
            if not (count := self._into(view)):
                raise self._malformed("it ends early")
            view = view[count:]

    def finish(self) -> None:
        """Make sure that this was all.

        Raises:
            MalformedError: it was not.
        """
        if self._into(memoryview(bytearray(1))):
            raise self._malformed("it holds more than it declares")
        if self._header.window_size <= _LIGHT:
            _idle.append(self._decoder)

    def _into(self, view: memoryview) -> int:
        try:
            return self._stream.readinto(view)
        except zstandard.ZstdError as error:
            if "Allocation error" in str(error):  # all that tells it apart
                window = self._header.window_size
                raise LimitError(f"a zstd frame asks for a window of {window:,} bytes, which cannot be had") from error
            raise self._malformed(error) from error

    def _malformed(self, why: object) -> MalformedError:
        return MalformedError(f"a zstd frame of {len(self._frame):,} bytes cannot be decoded: {why}")


def _decoder() -> zstandard.ZstdDecompressor:
    """One without a dictionary, for one thread; who is done with it, and had no error, puts it back."""
    try:
        return _idle.pop()
    except IndexError:
        return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)


def _length(frame: memoryview, header: zstandard.FrameParameters, *, most: int) -> int:
    """Bytes of the first frame, from block to block; 0 if it has no end. Source: RFC 8878, 3.1.1.

    Raises:
        LimitError: it has more than ``most`` blocks.
    """
    at = zstandard.frame_header_size(frame)
    for _ in range(most):
        block = int.from_bytes(frame[at : at + 3], "little")
        at += 3 + (1 if block >> 1 & 3 == _RLE else block >> 3)
        if block & 1:
            return at + 4 * header.has_checksum
        if at >= len(frame):
            return 0
    raise LimitError(f"a zstd frame of {len(frame):,} bytes has more than {most:,} blocks")


def _checked_header(frame: memoryview, size: int, known: int) -> zstandard.FrameParameters:
    header = _header(frame)
    if header.content_size != size:
        raise MalformedError(f"a zstd frame declares {header.content_size:,} bytes, not the {size:,} expected")
    useful = 1 << max((size + known).bit_length() + 1, 23)  # encoders round up, never below 8 MiB at high levels
    if header.window_size > min(useful, MAX_WINDOW) and header.window_size > size:
        raise LimitError(f"a zstd frame of {size:,} bytes asks for a window of {header.window_size:,}")
    return header


def _header(frame: memoryview) -> zstandard.FrameParameters:
    if bytes(frame[:4]) != MAGIC:
        raise MalformedError(f"not a zstd frame: it begins with {bytes(frame[:4]).hex() or 'nothing'}")
    try:
        header = zstandard.get_frame_parameters(frame)
    except zstandard.ZstdError as error:
        raise MalformedError(f"a zstd frame has a damaged header: {error}") from error
    if header.content_size in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
        raise MalformedError("a zstd frame does not declare its size")
    return header
