"""What is to be transferred: files made of ranges of blobs, cut into segments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
    from pathlib import Path

    from wszoo.digest import Digest
    from wszoo.schema.oci import Descriptor


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of a blob on a remote.

    Attributes:
        blob: which.
        offset: first byte.
        length: bytes.
    """

    blob: Descriptor
    offset: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file to make.

    Attributes:
        key: what other processes that want the same call it; a blob's digest.
        ranges: its bytes, one range after the other.
        present: whether it is in the store, made by anybody.
        place: puts the finished file where it belongs.
        check: raises IntegrityError where the file is not what it should be.
        arrived: is told, once, that it is in the store (None), or will be and is in this file now.
        whole: it is one blob as a whole, which ``key`` is the digest of.
    """

    key: Digest
    ranges: tuple[Range, ...]
    present: Callable[[], bool]
    place: Callable[[Finished], None]
    check: Callable[[Finished], None] = lambda _: None
    arrived: Callable[[Path | None], None] = lambda _: None
    whole: bool = True

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(each.length for each in self.ranges)


@dataclass(frozen=True, slots=True)
class Finished:
    """A file whose bytes are all here.

    Attributes:
        item: what it was to be.
        path: where it is; whoever places it, synced, moves it away.
        digest: of its content.
    """

    item: Item
    path: Path
    digest: Digest


@dataclass(slots=True)
class Segment:
    """A part of an item: what is noted when it is whole, and what a killed process loses.

    Attributes:
        number: its position.
        at: first byte in the file.
        length: bytes in the file.
        ranges: where they come from; mostly one.
        reached: bytes that are written.
        counted: bytes that progress was told of; never told twice.
        failures: in a row, without a byte in between.
    """

    number: int
    at: int
    length: int
    ranges: tuple[Range, ...]
    reached: int = 0
    counted: int = field(default=0)
    failures: int = 0

    def rest(self) -> Range:
        """The next range to ask for."""
        skip = self.reached
        for each in self.ranges:
            if skip < each.length:
                return Range(each.blob, each.offset + skip, each.length - skip)
            skip -= each.length
        return self.ranges[-1]

    @property
    def left(self) -> int:
        """Bytes that lack."""
        return self.length - self.reached

    def uncounted(self) -> int:
        """Bytes that progress was not told of; the caller tells it now."""
        fresh = max(0, self.reached - self.counted)
        self.counted += fresh
        return fresh


@dataclass(slots=True, eq=False)
class Run:
    """Segments in a row that one worker fetches, with one request if they stand in a row on the remote too.

    Attributes:
        segments: that are not whole yet; the first is being fetched, and the last may be taken by another worker.
        began: ``time.monotonic()`` when it was taken.
        got: bytes that were written since then.
    """

    segments: deque[Segment]
    began: float
    got: int = 0

    @property
    def left(self) -> int:
        """Bytes that lack."""
        return sum(segment.left for segment in self.segments)

    def lasts(self, now: float) -> float:
        """Seconds until its end, if it goes on as it went."""
        age = now - self.began
        return age * self.left / self.got if self.got else age

    def rest(self) -> Range:
        """The next range to ask for."""
        first, *others = self.segments
        found = first.rest()
        length, whole = found.length, found.length == first.left
        for segment in others:
            following = segment.ranges[0]
            if not whole or (following.blob.digest, following.offset) != (found.blob.digest, found.offset + length):
                break
            length, whole = length + following.length, len(segment.ranges) == 1
        return Range(found.blob, found.offset, length)


def cut(item: Item, size: int) -> list[Segment]:
    """An item's segments of ``size`` bytes; the last may be shorter."""
    segments: list[Segment] = []
    parts: list[Range] = []
    at, room = 0, size
    for each in item.ranges:
        offset, left = each.offset, each.length
        while left:
            length = min(left, room)
            parts.append(Range(each.blob, offset, length))
            offset, left, room = offset + length, left - length, room - length
            if not room:
                segments.append(Segment(len(segments), at, size, tuple(parts)))
                at, parts, room = at + size, [], size
    if parts:
        segments.append(Segment(len(segments), at, size - room, tuple(parts)))
    return segments
