"""Tree digests: of an assembled plan's chunks, so that all cores hash it and no chunk waits for another.

The tree digest of some bytes is the sha256 of the sha256 digests (32 bytes each, in order) of their chunks of ``CHUNK``
bytes, the last one shorter. There are always two levels, so no list of digests can pass for a chunk; one sha256 from
end to end, by itself, takes 1.7 times as long as `cp`. ADR 23 has the reasons.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.parallel import ordered_map

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from typing_extensions import Buffer

CHUNK = 4 << 20  # bytes; a constant of the format


def tree_digest(leaves: Iterable[bytes]) -> Digest:
    """The tree digest of bytes whose chunks have these digests (32 bytes each)."""
    return Digest.of(b"".join(leaves))


def leaf(chunk: Buffer) -> bytes:
    """What a chunk counts for in the tree."""
    return hashlib.sha256(chunk).digest()


class Tree:
    """The tree digest of what comes piece by piece, as ``hashlib`` computes a digest."""

    def __init__(self) -> None:
        self._leaves: list[bytes] = []
        self._open, self._size = hashlib.sha256(), 0

    def update(self, data: Buffer, /) -> None:
        """Take the next bytes."""
        view = memoryview(data).cast("B")
        while view:
            part = view[: CHUNK - self._size]
            self._open.update(part)
            self._size, view = self._size + len(part), view[len(part) :]
            if self._size == CHUNK:
                self._leaves.append(self._open.digest())
                self._open, self._size = hashlib.sha256(), 0

    def digest(self) -> bytes:
        """The digest so far, 32 bytes."""
        return hashlib.sha256(b"".join((*self._leaves, self._open.digest() if self._size else b""))).digest()

    def hexdigest(self) -> str:
        """The digest so far, 64 characters."""
        return self.digest().hex()


def tree_of_file(path: Path) -> Digest:
    """The tree digest of a file's content, read in order and hashed by all cores."""
    with path.open("rb") as file:
        return tree_digest(ordered_map(leaf, iter(partial(file.read, CHUNK), b"")))
