"""The stored form of a splice program: a base that programs of one component share, and each program against it.

Programs of one component for several targets hold nearly the same literals, so that a further target mostly costs a few
hundred bytes against a sibling's body. The first byte says how a layer is packed:

0. One zstd frame of the body, with the base, if there is one, as dictionary; the body is the base if nothing comes out.
1. One xz stream of the body.
2. One xz stream of the body's lines, as bytes (:mod:`wszoo.plans.splice.lines`).
3. One xz stream of a renaming (:mod:`wszoo.plans.splice.renaming`) and one zstd frame of the body, with the base as
   dictionary, whose numbers are exchanged first. Where names have shifted, this is the smallest.
4. One xz stream of one zstd frame of the body's lines, with the base's lines as dictionary, both as bytes. Where
   little is new, or kernels have another text, as Turing's have, this is the smallest.

A base has the methods 1 and 2; a program 0, 3 and 4. An xz stream around a frame pays because what zstd spends on each
of its blocks of 128 KiB is nearly the same every time: 20 bytes, or 8 KB for the body of SDXL's unet against itself.
"""

from __future__ import annotations

from wszoo.codecs import xz, zstd
from wszoo.errors import LimitError, MalformedError
from wszoo.plans.splice.columns import Cursor
from wszoo.plans.splice.lines import Lines
from wszoo.plans.splice.renaming import Renaming

LEVEL = 19
_ZSTD, _XZ, _LINES, _RENAMED, _LINES_AGAINST = range(5)
_MAX_WRAPPED = 16 << 20  # bytes of a renaming and a frame, or of a frame, inside an xz stream
_MAX_BASE = 256 << 20  # bytes of a base that is renamed
_ENOUGH = 512  # bytes of a program packed; those of SDXL's unet against its base take half a minute to pack otherwise
_WORTH = 0.5  # of a body; lines that take more than this are left together


def pack_base(body: bytes) -> bytes:
    """Compress a body that others are packed against."""
    try:
        parts = Lines.of(body).to_bytes()
    except LimitError:
        parts = body
    if len(parts) < _WORTH * len(body):
        return bytes([_LINES]) + xz.compress(parts)
    return bytes([_XZ]) + xz.compress(body)


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
        return Lines.read(Cursor(xz.decompress(stored, limit=max_size))).body(max_size=max_size)
    raise MalformedError(f"a splice base is packed by method {method}, which is none of a base's")


def pack(body: bytes, base: bytes | None = None) -> bytes:
    """Compress a body; ``base`` is a body that whoever unpacks it holds too, or None.

    The base itself is packed as nothing: even against itself zstd takes 20 bytes for each 128 KiB.
    """
    if not base or body == base:
        return bytes([_ZSTD]) + zstd.compress(b"" if body == base else body, level=LEVEL, dictionary=base or None)
    try:
        ours, theirs = Lines.of(body), Lines.of(base)
        packed = _pack_lines(body, ours, theirs)
        if packed and len(packed) <= _ENOUGH:
            return packed
        found = [packed, _pack_renamed(body, ours, base, theirs)]
    except LimitError:
        found = []
    return min(filter(None, found), key=len, default=b"") or _pack_plain(body, base)


def _pack_plain(body: bytes, base: bytes) -> bytes:
    return bytes([_ZSTD]) + zstd.compress(body, level=LEVEL, dictionary=base)


def _pack_lines(body: bytes, ours: Lines, theirs: Lines) -> bytes | None:
    parts = ours.to_bytes()
    if len(parts) > len(body):
        return None
    return _wrapped(_LINES_AGAINST, zstd.compress(parts, level=LEVEL, dictionary=theirs.to_bytes()))


def _pack_renamed(body: bytes, ours: Lines, base: bytes, theirs: Lines) -> bytes | None:
    renaming = Renaming.between(theirs, ours)
    frame = zstd.compress(body, level=LEVEL, dictionary=_renamed(base, theirs, renaming))
    packed = _wrapped(_RENAMED, renaming.to_bytes() + frame)
    if len(renaming.old) or not body or (packed and len(packed) <= len(frame)):
        return packed
    return bytes([_ZSTD]) + frame


def _wrapped(method: int, content: bytes) -> bytes | None:
    return bytes([method]) + xz.compress(content) if len(content) <= _MAX_WRAPPED else None


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
    if method == _RENAMED:
        cursor = Cursor(xz.decompress(stored, limit=_MAX_WRAPPED))
        renaming = Renaming.read(cursor)
        known = _renamed(_needed(base), None, renaming)
        return _decoded(cursor.take(cursor.left).tobytes(), max_size, known)
    if method == _LINES_AGAINST:
        frame = xz.decompress(stored, limit=_MAX_WRAPPED)
        lines = Lines.read(Cursor(_decoded(frame, max_size, Lines.of(_needed(base)).to_bytes())))
        return lines.body(max_size=max_size)
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


def _renamed(base: bytes, lines: Lines | None, renaming: Renaming) -> bytes:
    """The base with its numbers exchanged; ``lines`` are its own, where they are known already."""
    if not len(renaming.old):
        return base
    return renaming.of(lines or Lines.of(base)).body(max_size=_MAX_BASE)
