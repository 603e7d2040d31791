"""The stored form of a splice program: its body in one zstd frame, optionally against a sibling's body.

Programs of one component for several targets hold nearly the same literals. With a sibling's body as raw dictionary the
second target costs a few kilobytes.
"""

from __future__ import annotations

from wszoo.codecs import zstd

LEVEL = 19


def pack(body: bytes, base: bytes | None = None) -> bytes:
    """Compress a body; ``base`` is the body of another program that whoever unpacks it holds too."""
    return zstd.compress(body, level=LEVEL, dictionary=base)


def unpack(blob: bytes, *, max_size: int, base: bytes | None = None) -> bytes:
    """Restore a body from what :func:`pack` made.

    Args:
        blob: one zstd frame.
        max_size: the largest body accepted, in bytes; a body is never much larger than its plan.
        base: the same as for :func:`pack`.

    Raises:
        MalformedError: not one whole, undamaged frame.
        LimitError: the body, or the window to decode it, is too large.
    """
    size = zstd.declared_size(blob, limit=max_size)
    return zstd.decompress(blob, size=size, dictionary=base)
