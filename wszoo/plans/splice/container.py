"""The stored form of a splice program: a base that programs of one component share, and each program against it.

Programs of one component for several targets hold nearly the same literals. With a sibling's body as raw dictionary the
second target costs about a kilobyte. The base is packed by xz, which is smaller, and the rest by zstd, which takes a
dictionary; what zstd makes of a large body is packed by xz once more.
"""

from __future__ import annotations

from wszoo.codecs import xz, zstd

LEVEL = 19
_LARGE = 8 << 20  # bytes of a base above which the frame may be wrapped; smaller ones are stored as they always were
_MAX_WRAPPED = 16 << 20  # bytes of a frame inside an xz stream


def pack_base(body: bytes) -> bytes:
    """Compress a body that others are packed against."""
    return xz.compress(body)


def unpack_base(blob: bytes, *, max_size: int) -> bytes:
    """Restore what :func:`pack_base` made.

    Raises:
        MalformedError: not one whole, undamaged stream.
        LimitError: the body has more than ``max_size`` bytes, or takes too much memory to decode.
    """
    return xz.decompress(blob, limit=max_size)


def pack(body: bytes, base: bytes | None = None) -> bytes:
    """Compress a body; ``base`` is a body that whoever unpacks it holds too, or None.

    The base itself is packed as nothing: even against itself zstd takes 20 bytes for each 128 KiB. These are nearly
    the same every time, so that a large body's frame is wrapped in xz: 51 MB take 0.4 instead of 7.7 KB.
    """
    frame = zstd.compress(b"" if body == base else body, level=LEVEL, dictionary=base or None)
    if body == base or len(base or b"") <= _LARGE or len(frame) > _MAX_WRAPPED:
        return frame
    return min(frame, xz.compress(frame), key=len)


def unpack(blob: bytes, *, max_size: int, base: bytes | None = None) -> bytes:
    """Restore a body from what :func:`pack` made.

    Args:
        blob: one zstd frame, or one xz stream that holds one.
        max_size: the largest body accepted, in bytes; a body is never much larger than its plan.
        base: the same as for :func:`pack`.

    Raises:
        MalformedError: not one whole, undamaged frame or stream.
        LimitError: the body, the frame in a stream, or the window to decode it, is too large.
    """
    frame = xz.decompress(blob, limit=_MAX_WRAPPED) if blob.startswith(xz.MAGIC) else blob
    size = zstd.declared_size(frame, limit=max_size)
    return zstd.decompress(frame, size=size, dictionary=base or None) or base or b""
