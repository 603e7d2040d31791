"""Fetching the tensors that are missing, out of packs of which the others are here.

A store that holds one model often has most tensors of the next: a fine-tuned version, another precision of one
component. What is missing of a pack is fetched with range requests into a *local pack*, and a table says where each
tensor of the pack stands (see :mod:`wszoo.store.substitutes`). Ranges have no digest of their own, so every tensor is
decoded and hashed before the table is written; where one is wrong, its packs are fetched as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.parallel import ordered_map
from wszoo.store.models import known_models
from wszoo.store.substitutes import Place, Substitute, all_substitutes, made, note_made, write_substitute
from wszoo.transfer import tuning as tunings
from wszoo.transfer.fetching import transfer
from wszoo.transfer.items import Finished, Item, Range
from wszoo.weights.located import ALIGN, StoredFrame, known_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from wszoo.names import Ref
    from wszoo.progress import Progress
    from wszoo.remotes.protocol import Remote
    from wszoo.schema.model import ModelConfig
    from wszoo.schema.oci import Descriptor
    from wszoo.store.store import Store
    from wszoo.transfer.following import Follower
    from wszoo.transfer.tuning import Tuning
    from wszoo.weights.located import Located

WORTH = (
    0.7  # a pack of which more is missing than this is fetched as a whole: one request, and others can have it from us
)
GAP = 64 << 10  # bytes between two ranges that are rather fetched than asked for separately


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What to fetch of packs that are not fetched as a whole.

    Attributes:
        ranges: by pack, in order, none overlapping.
        here: where tensors of these packs are; hashed.
        wanted: tensors with a frame in one of these packs -> their frames, as the model says it.
    """

    ranges: Mapping[Digest, tuple[Range, ...]]
    here: Mapping[Digest, Located]
    wanted: Mapping[Digest, Located]

    @property
    def packs(self) -> set[Digest]:
        """The packs."""
        return set(self.ranges)

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        return sum(each.length for ranges in self.ranges.values() for each in ranges)

    def of(self, pack: Descriptor) -> Part:
        """What is fetched of one of the packs."""
        ranges = self.ranges[pack.digest]
        return Part(pack=pack, ranges=len(ranges), size=sum(each.length for each in ranges))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is fetched of a pack.

    Attributes:
        pack: which.
        ranges: byte ranges that are asked for, before they are cut into segments.
        size: their bytes.
    """

    pack: Descriptor
    ranges: int
    size: int


NOTHING = Parts(ranges={}, here={}, wanted={})


def plan_parts(store: Store, ref: Ref, config: ModelConfig, lacking: Sequence[Descriptor]) -> Parts:
    """Decide which of the packs that are lacking are fetched in part.

    Args:
        store: may hold some of the tensors.
        ref: of the model, whose earlier version is the likeliest to have them.
        config: of the model.
        lacking: blobs that are not in the store.
    """
    packs = {each.digest: each for each in lacking if each.digest in set(config.packs)}
    known = _known(store, ref) if packs else {}
    wanted = {tensor: at for tensor, at in known_tensors([config]).items() if any(f.pack in packs for f in at)}
    # A pack that is lacking may be there, cut short: what is left of it is no reason to keep it.
    known = {tensor: at for tensor, at in known.items() if not any(frame.pack in packs for frame in at)}
    here = {tensor: known[tensor] for tensor in wanted if tensor in known}
    if not here or not _choose(packs, wanted, here):
        return NOTHING
    # Another model's table may be wrong, or lie to put its own bytes into this model.
    here = {tensor: here[tensor] for tensor, good in _checked(store, here) if good}
    ranges = _choose(packs, wanted, here)
    wanted = {tensor: at for tensor, at in wanted.items() if any(frame.pack in ranges for frame in at)}
    return Parts(ranges=ranges, here=here, wanted=wanted)


def fetch_parts(
    remotes: Sequence[Remote],
    store: Store,
    parts: Parts,
    progress: Progress,
    label: str,
    *,
    tuning: Tuning | None = None,
    follower: Follower | None = None,
) -> set[Digest]:
    """Fetch what is missing of some packs; the packs of the model that are fetched as a whole are here already.

    A follower is told of none of them, since their tensors are good only when this is over; it may still give up.

    Returns:
        The packs that have to be fetched as a whole after all, since a tensor was wrong.

    Raises:
        WszooError: as for :func:`wszoo.transfer.fetch`.
    """
    items = {pack: _item(store, ranges) for pack, ranges in parts.ranges.items() if ranges}
    transfer(remotes, store, list(items.values()), progress, label, tuning=tuning or tunings.DEFAULT, follower=follower)
    local = {pack: (made(store.layout, item.key), parts.ranges[pack]) for pack, item in items.items()}
    places = {tensor: parts.here.get(tensor) or _moved(at, local) for tensor, at in parts.wanted.items()}
    fresh = {tensor: at for tensor, at in places.items() if tensor not in parts.here}
    with progress.stage("check tensors", sum(frame.raw for at in fresh.values() for frame in at)) as advance:
        wrong = set()
        for tensor, good in _checked(store, fresh):
            advance(sum(frame.raw for frame in fresh[tensor]))
            wrong |= {frame.pack for frame in parts.wanted[tensor]} & parts.packs if not good else set()
    for pack in parts.packs - wrong:
        inside = {t: places[t] for t, at in parts.wanted.items() if any(frame.pack == pack for frame in at)}
        write_substitute(store.layout, Substitute(pack=pack, tensors={t: _table(at) for t, at in inside.items()}))
    return wrong


def _known(store: Store, ref: Ref) -> dict[Digest, Located]:
    """Where tensors are in the store, by its models and tables; unchecked."""
    known = known_tensors(known_models(store, last=ref))
    known = {tensor: at for tensor, at in known.items() if _whole(store, at)}
    for table in all_substitutes(store.layout):
        for tensor, places in table.tensors.items():
            at = tuple(StoredFrame(p.blob, p.offset, p.stored, p.raw, p.codec) for p in places)
            if tensor not in known and _whole(store, at):
                known[tensor] = at
    return known


def _checked(store: Store, located: Mapping[Digest, Located]) -> Iterator[tuple[Digest, bool]]:
    """Which tensors decode, from where they are said to be, to what they should."""
    from wszoo.weights.packs import holds  # NumPy: 0.1 s, which a pull of whole packs need not wait for

    return zip(located, ordered_map(lambda each: holds(store.blobs, each, located[each]), located), strict=True)


def _whole(store: Store, at: Located) -> bool:
    """Whether the blobs of a tensor are here; their age starts anew, so that gc leaves them to us."""
    return all(store.blobs.hold(frame.pack) for frame in at)


def _choose(
    packs: Mapping[Digest, Descriptor], wanted: Mapping[Digest, Located], here: Mapping[Digest, Located]
) -> dict[Digest, tuple[Range, ...]]:
    spans: dict[Digest, list[tuple[int, int]]] = {pack: [] for pack in packs}
    for tensor, at in wanted.items():
        for frame in at:
            if frame.pack in packs and tensor not in here:
                spans[frame.pack].append((frame.offset, frame.offset + frame.stored))
    found = {pack: tuple(_ranges(packs[pack], each)) for pack, each in spans.items()}
    limits = {pack: WORTH * descriptor.size for pack, descriptor in packs.items()}
    return {pack: ranges for pack, ranges in found.items() if sum(each.length for each in ranges) <= limits[pack]}


def _ranges(pack: Descriptor, spans: Iterable[tuple[int, int]]) -> Iterator[Range]:
    """Spans made whole units of the alignment, so that frames keep theirs, and joined where they are close."""
    begin = end = 0
    aligned = sorted((start - start % ALIGN, min(stop + -stop % ALIGN, pack.size)) for start, stop in spans)
    for start, stop in aligned:
        if end and start > end + GAP:
            yield Range(pack, begin, end - begin)
            begin, end = start, stop
        elif not end:
            begin, end = start, stop
        else:
            end = max(end, stop)
    if end > begin:
        yield Range(pack, begin, end - begin)


def _item(store: Store, ranges: tuple[Range, ...]) -> Item:
    key = Digest.of("".join(f"{each.blob.digest} {each.offset} {each.length}\n" for each in ranges).encode())

    def present() -> bool:
        blob = made(store.layout, key)
        return blob is not None and store.blobs.hold(blob)

    def place(finished: Finished) -> None:
        store.blobs.adopt(finished.path, finished.digest)
        note_made(store.layout, key, finished.digest)

    return Item(key=key, ranges=ranges, present=present, place=place, whole=False)


def _moved(at: Located, local: Mapping[Digest, tuple[Digest | None, tuple[Range, ...]]]) -> Located:
    """A tensor's frames, with those in packs that were fetched in part at their places in the local packs."""
    return tuple(_in_local(frame, *local[frame.pack]) if frame.pack in local else frame for frame in at)


def _in_local(frame: StoredFrame, blob: Digest | None, ranges: tuple[Range, ...]) -> StoredFrame:
    at = 0
    for each in ranges:
        if blob is not None and each.offset <= frame.offset < each.offset + each.length:
            return StoredFrame(blob, at + frame.offset - each.offset, frame.stored, frame.raw, frame.codec)
        at += each.length
    return frame  # the table leads past the pack's end: found out when the tensor is hashed


def _table(at: Located) -> tuple[Place, ...]:
    return tuple(Place(frame.pack, frame.offset, frame.stored, frame.raw, frame.codec) for frame in at)
