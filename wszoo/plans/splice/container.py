"""The stored form of a splice program: a base that programs of one component share, and each program against it.

Programs of one component for several targets hold nearly the same literals, so that a further target mostly costs a few
hundred bytes against a sibling's body. The first byte says how a layer is packed:

0. One zstd frame of the body, with the base, if there is one, as dictionary; the body is the base if nothing comes out.
1. One xz stream of the body.
2. One xz stream of the body's lines, as bytes (:mod:`wszoo.plans.splice.lines`).
3. The lines that are new, and where the others come from (:mod:`wszoo.plans.splice.against`).
4. One xz stream of that. It pays where names have shifted, because a renaming is as large as 4 KB before.

A base has the methods 1 and 2; a program 0, 3 and 4.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from wszoo.codecs import xz, zstd
from wszoo.errors import LimitError, MalformedError
from wszoo.plans.splice import against
from wszoo.plans.splice.columns import Cursor
from wszoo.plans.splice.lines import Lines
from wszoo.plans.splice.renaming import Renaming

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVEL = 19
_ZSTD, _XZ, _LINES, _AGAINST, _AGAINST_XZ = range(5)
_MAX_WRAPPED = 16 << 20  # bytes in an xz stream of method 4
_ENOUGH = 0.001  # of a body; a zstd frame of it is not tried then, which takes 10 s for SDXL's unet
_WORTH = 0.5  # of a body; lines that take more than this are left together


@contextmanager
def _within_memory() -> Iterator[None]:
    """What is within its limits may still be more than a small machine has."""
    try:
        yield
    except MemoryError as error:
        raise LimitError("a splice layer takes more memory to decode than this machine has") from error


def pack_base(body: bytes) -> bytes:
    """Compress a body that others are packed against."""
    try:
        parts = Lines.of(body).to_bytes()
    except LimitError:
        parts = body
    if len(parts) < _WORTH * len(body):
        return bytes([_LINES]) + xz.compress(parts)
    return bytes([_XZ]) + xz.compress(body)


@_within_memory()
def unpack_base(blob: bytes, *, max_size: int) -> bytes:
    """Restore what :func:`pack_base` made.

    Raises:
        MalformedError: not one whole, undamaged stream, or of a method that no base has.
        LimitError: the body has more than ``max_size`` bytes, or takes too much memory to decode.
    """
    method, stored = _method(blob)
    if method == _XZ:
        return xz.decompress(stored, limit=max_size)
    if method == _LINES:
        lines = Cursor(xz.decompress(stored, limit=max_size))
        return Lines.read(lines, max_size=max_size).body(max_size=max_size)
    raise MalformedError(f"a splice base is packed by method {method}, which is none of a base's")


def pack(body: bytes, base: bytes | None = None) -> bytes:
    """Compress a body; ``base`` is a body that whoever unpacks it holds too, or None.

    The base itself is packed as nothing: even against itself zstd takes 20 bytes for each 128 KiB.
    """
    if not base or body == base:
        return _pack_plain(b"" if body == base else body, base or None)
    packed = _pack_against(body, base)
    if packed and (len(packed) <= _ENOUGH * len(body) or not body):  # a frame of nothing stands for the base
        return packed
    return min(filter(None, (packed, _pack_plain(body, base))), key=len)


def _pack_plain(body: bytes, base: bytes | None) -> bytes:
    return bytes([_ZSTD]) + zstd.compress(body, level=LEVEL, dictionary=base)


def _pack_against(body: bytes, base: bytes) -> bytes | None:
    """The smallest of what can be made with a renaming and without one: kernels of another text share no names."""
    try:
        ours, theirs = Lines.of(body), Lines.of(base)
        renaming = Renaming.between(theirs, ours)
        renamings = (renaming, Renaming.none()) if len(renaming.old) else (renaming,)
        made = [against.encode(ours, theirs, renaming, max_size=len(body)) for renaming in renamings]
    except LimitError:
        return None
    found = [bytes([_AGAINST]) + content for content in made]
    found += [bytes([_AGAINST_XZ]) + xz.compress(content) for content in made if len(content) <= _MAX_WRAPPED]
    return min(found, key=len)


@_within_memory()
def unpack(blob: bytes, *, max_size: int, base: bytes | None = None) -> bytes:
    """Restore a body from what :func:`pack` made.

    Args:
        blob: a layer.
        max_size: the largest body accepted, in bytes; a body is never much larger than its plan.
        base: the same as for :func:`pack`.

    Raises:
        MalformedError: not one whole, undamaged frame or stream, or of a method that no layer has.
        LimitError: the body, its lines, what is in a stream, the base with its numbers exchanged, or the window to
            decode, is too large.
    """
    method, stored = _method(blob)
    if method == _ZSTD:
        return _decoded(stored, max_size, base) or base or b""
    if method == _AGAINST:
        return against.decode(Cursor(stored), _needed(base), max_size=max_size)
    if method == _AGAINST_XZ:
        content = xz.decompress(stored, limit=_MAX_WRAPPED)
        return against.decode(Cursor(content), _needed(base), max_size=max_size)
    raise MalformedError(f"a splice program is packed by method {method}, which is none of a program's")


def _method(blob: bytes) -> tuple[int, bytes]:
    if not blob:
        raise MalformedError("a splice layer is empty")
    return blob[0], blob[1:]


def _needed(base: bytes | None) -> bytes:
    if not base:
        raise MalformedError("a splice program is packed against a base, and has none")
    return base


def _decoded(frame: bytes, max_size: int, dictionary: bytes | None) -> bytes:
    return zstd.decompress(frame, size=zstd.declared_size(frame, limit=max_size), dictionary=dictionary or None)
