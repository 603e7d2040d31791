"""Packs: where tensors' bytes stand in a store, each distinct tensor once.

A pack is a blob of frames one after the other, and every frame decodes by itself, so a tensor can be read, or fetched
with a range request, without the rest of its pack. One layer a tensor would be simpler, but registries' clients take
about 0.1 s a layer (1,700 layers: 168 s), hence tens of megabytes a pack.
"""

from __future__ import annotations

import hashlib
import math
import sys
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain
from typing import TYPE_CHECKING

import msgspec

from wszoo.buffers import Pool, empty
from wszoo.codecs import frames as codec
from wszoo.digest import Digest
from wszoo.errors import BuildError, LimitError, MalformedError, WszooError
from wszoo.parallel import ordered_map
from wszoo.schema.model import Frame, ModelConfig, TensorInfo
from wszoo.store.substitutes import read_substitute
from wszoo.weights.gain import stored_bytes
from wszoo.weights.located import ALIGN, StoredFrame
from wszoo.weights.tensor import Loading, LoadInParts, Tensor, dtype_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from wszoo.buffers import Bytes
    from wszoo.progress import Progress
    from wszoo.store.blobs import Blobs
    from wszoo.store.substitutes import Place
    from wszoo.weights.located import Located

FRAME = 16 << 20  # raw bytes a frame at most: bounds the memory of coding, and gives threads something to share
MAX_FRAME = 64 << 20  # raw bytes of a coded frame that is accepted: a few kilobytes may decode to any number of zeros
PACK = 48 << 20  # a pack is closed when it has grown past this, so packs are 48-64 MiB
KEEP = 32 << 20  # bytes of tensors that nobody holds any more, in which the next ones are decoded
MAX_PACKS = 200  # registries and tools slow down or refuse past 256 layers

# Tensors that another model's pack already holds are stored again when they are less than this share of that pack:
# else a client would need a 50 MB pack of a model it does not use for one small bias that happens to be equal.
REUSE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class PackTable:
    """Where tensors stand, as a model's config says it."""

    packs: tuple[Digest, ...]
    frames: dict[Digest, tuple[Frame, ...]]


class Packer:
    """Stores the tensors of one model.

    Args:
        blobs: where packs go.
        known: tensors that are in the store already.
        pack_bytes: size past which a pack is closed.
    """

    def __init__(self, blobs: Blobs, known: Mapping[Digest, Located], *, pack_bytes: int = PACK) -> None:
        self._blobs = blobs
        self._known = known
        self._pack_bytes = pack_bytes
        self._located: dict[Digest, Located] = {}
        self.new_bytes = 0
        """Bytes of packs written, as stored."""

    def add(self, tensors: Sequence[Tensor], progress: Progress) -> tuple[TensorInfo, ...]:
        """Store the tensors that are not stored yet.

        Args:
            tensors: of one component; loaded twice (to hash, to code), never all at once.
            progress: gets each tensor's bytes once.

        Raises:
            BuildError: a tensor loads another number of bytes than its type and shape take.
            StorageError: the file system refuses.
        """
        with progress.stage("hash weights", sum(tensor.nbytes for tensor in tensors)) as advance:
            infos = tuple(self._describe(tensors, advance))
        missing = {
            info.digest: tensor for info, tensor in zip(infos, tensors, strict=True) if info.digest not in self._located
        }
        self._reuse(missing)
        fresh = {digest: tensor for digest, tensor in missing.items() if digest not in self._located}
        with progress.stage("store weights", sum(tensor.nbytes for tensor in fresh.values())) as advance:
            self._write(fresh, advance)
        return infos

    def table(self) -> PackTable:
        """Where everything that was added stands."""
        packs = tuple(dict.fromkeys(frame.pack for located in self._located.values() for frame in located))
        number = {pack: position for position, pack in enumerate(packs)}
        return PackTable(
            packs,
            {
                digest: tuple(
                    Frame(pack=number[f.pack], offset=f.offset, stored=f.stored, raw=f.raw, codec=f.codec) for f in at
                )
                for digest, at in self._located.items()
            },
        )

    @staticmethod
    def _describe(tensors: Sequence[Tensor], advance: Callable[[int], None]) -> Iterator[TensorInfo]:
        digests = ordered_map(lambda tensor: Digest.of(tensor.load()), tensors)
        for tensor, digest in zip(tensors, digests, strict=True):
            advance(tensor.nbytes)
            yield TensorInfo(name=tensor.name, dtype=tensor.dtype.name, shape=tensor.shape, digest=digest)

    def _reuse(self, wanted: Iterable[Digest]) -> None:
        """Take over tensors from packs that are there already, if it is worth naming those packs."""
        found = {digest: self._known[digest] for digest in wanted if digest in self._known}
        use: Counter[Digest] = Counter()
        for located in found.values():
            for frame in located:
                use[frame.pack] += frame.stored
        worth = {pack for pack, stored in use.items() if stored >= REUSE_SHARE * (self._blobs.size(pack) or math.inf)}
        held = {pack for pack in worth if self._blobs.hold(pack)}
        here = [digest for digest, located in found.items() if all(frame.pack in held for frame in located)]
        # Another model's table may be wrong, or lie to put its own bytes into what is built here.
        checked = zip(here, ordered_map(lambda each: holds(self._blobs, each, found[each]), here), strict=True)
        self._located.update({digest: found[digest] for digest, holds in checked if holds})

    def _write(self, tensors: Mapping[Digest, Tensor], advance: Callable[[int], None]) -> None:
        # Few large packs rather than more than MAX_PACKS.
        limit = max(self._pack_bytes, sum(tensor.nbytes for tensor in tensors.values()) // MAX_PACKS)
        coded = ordered_map(_code, _cut(tensors))
        placed: dict[Digest, list[StoredFrame]] = {digest: [] for digest in tensors}
        while (first := next(coded, None)) is not None:
            for digest, frame in self._write_pack(chain((first,), coded), limit, advance):
                placed[digest].append(frame)
        self._located.update({digest: tuple(located) for digest, located in placed.items()})

    def _write_pack(
        self, coded: Iterable[_CodedFrame], limit: int, advance: Callable[[int], None]
    ) -> list[tuple[Digest, StoredFrame]]:
        """Fill one pack; the name of a pack is known when it is closed, so its frames are named after."""
        places: list[tuple[Digest, int, int, int, str]] = []
        with self._blobs.writer() as writer:
            for digest, raw, frame in coded:
                if frame.codec == codec.RAW:
                    writer.write(bytes(-writer.size % ALIGN))
                places.append((digest, writer.size, len(frame.data), raw, frame.codec))
                writer.write(frame.data)
                advance(raw)
                if writer.size >= limit:
                    break
        self.new_bytes += writer.size
        pack = writer.digest()
        return [(digest, StoredFrame(pack, *place)) for digest, *place in places]  # type: ignore[arg-type]


_Piece = tuple[Digest, int, "Bytes"]
_CodedFrame = tuple[Digest, int, codec.Coded]


def _cut(tensors: Mapping[Digest, Tensor]) -> Iterator[_Piece]:
    for digest, tensor in tensors.items():
        data = tensor.load()
        if len(data) != tensor.nbytes:
            raise BuildError(f"tensor {tensor.name!r} loads {len(data)} bytes, its shape takes {tensor.nbytes}")
        itemsize = tensor.dtype.bits // 8 if tensor.dtype.is_float else 1
        for start in range(0, tensor.nbytes, FRAME):
            yield digest, itemsize, data[start : start + FRAME]


def _code(piece: _Piece) -> _CodedFrame:
    digest, itemsize, raw = piece
    return digest, len(raw), codec.encode(raw, itemsize)


def holds(blobs: Blobs, digest: Digest, located: Located) -> bool:
    """True when the frames that are known for a tensor decode to its bytes; loads a frame at a time."""
    running = hashlib.sha256()
    try:
        for frame in located:
            stored = _cut_out(blobs.map(frame.pack), frame, str(digest))
            if frame.codec != codec.RAW:
                raw = empty(frame.raw)
                codec.decode(frame.codec, stored, raw)
                stored = raw
            running.update(stored)
    except WszooError:
        return False
    return Digest.from_hash(running) == digest


def _cut_out(pack: Bytes, frame: StoredFrame | Frame, what: str) -> Bytes:
    """A frame's bytes as they are stored, after checking what the table says about it."""
    if frame.offset + frame.stored > len(pack):
        raise MalformedError(f"{what} is said to stand at {frame.offset} of a pack, past its {len(pack)} bytes")
    if frame.codec == codec.RAW and frame.stored != frame.raw:
        raise MalformedError(f"a raw frame of {what} has {frame.stored} bytes and is declared as {frame.raw}")
    if frame.codec != codec.RAW and frame.raw > MAX_FRAME:
        raise LimitError(f"a frame of {what} declares {frame.raw} bytes, more than the {MAX_FRAME} that wszoo accepts")
    return pack[frame.offset : frame.offset + frame.stored]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a model, and how to get at its bytes.

    Attributes:
        tensor: loads what :attr:`load` does, checked if the reader checks.
        packs: of the model, in which its frames are.
        begin: starts decoding, a frame a part; a single raw frame is mapped and has none.
        load: decodes, here and now; unchecked.
        check: raises IntegrityError for bytes that are not the tensor's.
    """

    tensor: Tensor
    packs: frozenset[Digest]
    begin: Callable[[], Loading]
    load: Callable[[], Bytes]
    check: Callable[[Bytes], None]


class PackReader:
    """Reads the tensors of one model out of a store.

    Args:
        blobs: where the packs are.
        config: of the model; checked here as far as it can be without touching the packs.
        verify: hash each tensor when it is loaded; for who uses tensors without hashing what they make of them.

    Raises:
        LimitError: the model's tensors would decode to far more than its packs hold.
    """

    def __init__(self, blobs: Blobs, config: ModelConfig, *, verify: bool = False) -> None:
        self._blobs = blobs
        self._config = config
        self._verify = verify
        self._stored = stored_bytes(config)
        self._pool = Pool(KEEP)
        self._maps: dict[Digest, Bytes] = {}
        self._substitutes: dict[Digest, Mapping[Digest, tuple[Place, ...]]] = {}

    def component(self, name: str) -> tuple[Tensor, ...]:
        """The tensors of a component, in the order that splice programs refer to; raw frames come memory-mapped.

        Raises:
            MalformedError: the tensor table contradicts itself.
        """
        return tuple(self._tensor(info) for info in self._config.components[name].tensors)

    def stored(self, name: str) -> Iterator[StoredTensor]:
        """The same tensors, to be decoded part by part.

        Raises:
            MalformedError: the tensor table contradicts itself.
        """
        for info in self._config.components[name].tensors:
            tensor, at = self._tensor(info), self._config.frames[info.digest]
            begin = partial(self._begin, info, at)
            yield StoredTensor(
                tensor=tensor,
                packs=frozenset(self._config.packs[frame.pack] for frame in at),
                begin=begin,
                load=LoadInParts(begin),
                check=partial(_check, info),
            )

    def offer(self, pack: Digest, data: Bytes) -> None:
        """Read a pack from here, checked bytes that are on their way into the store."""
        self._maps[pack] = data

    def packs(self, name: str) -> frozenset[Digest]:
        """The packs that hold a component's tensors in this store, those that stand in for others included.

        Raises:
            MalformedError: the tensor table contradicts itself.
        """
        tensors = self._config.components[name].tensors
        located = (self._locate(info, self._config.frames[info.digest]) for info in tensors)
        return frozenset(frame.pack for frames in located for frame in frames)

    def _tensor(self, info: TensorInfo) -> Tensor:
        at = self._config.frames.get(info.digest)
        if at is None:
            raise MalformedError(f"tensor {info.name!r} ({info.digest}) stands in no pack of the model")
        load = partial(self._checked, info, at) if self._verify else LoadInParts(partial(self._begin, info, at))
        tensor = Tensor(info.name, dtype_of(info.dtype), info.shape, load)
        if sum(frame.raw for frame in at) != tensor.nbytes:
            raise MalformedError(f"the frames of tensor {info.name!r} do not add up to its {tensor.nbytes} bytes")
        if any(frame.pack >= len(self._config.packs) for frame in at):
            raise MalformedError(f"tensor {info.name!r} is said to be in a pack that the model does not have")
        return tensor

    def _checked(self, info: TensorInfo, at: tuple[Frame, ...]) -> Bytes:
        data = LoadInParts(partial(self._begin, info, at))()
        _check(info, data)
        return data

    def _begin(self, info: TensorInfo, at: tuple[Frame, ...], start: int = 0, stop: int = sys.maxsize) -> Loading:
        """Begin with bytes ``[start, stop)`` of a tensor; whole frames are decoded."""
        located, before = _covering(self._locate(info, at), start, stop)
        stored = [_cut_out(self._map(frame.pack), frame, f"tensor {info.name!r}") for frame in located]
        if len(located) == 1 and located[0].codec == codec.RAW:
            return Loading(stored[0][start - before : stop - before])
        for pack in {frame.pack for frame in located}:
            self._check_overlap(pack)
        out = self._pool.empty(sum(frame.raw for frame in located))
        parts, done = [], 0
        for frame, data in zip(located, stored, strict=True):
            parts.append(partial(codec.decode, frame.codec, data, out[done : done + frame.raw]))
            done += frame.raw
        is_whole = start == before and stop - before >= len(out)
        return Loading(out if is_whole else out[start - before : stop - before], tuple(parts))

    def _check_overlap(self, pack: Digest) -> None:
        taken, size = self._stored[pack], len(self._map(pack))
        if taken > size:
            raise MalformedError(f"tensors take {taken} bytes of pack {pack}, which has {size}: they overlap")

    def _locate(self, info: TensorInfo, at: tuple[Frame, ...]) -> Located:
        """Where a tensor's frames are: in the model's packs, or where what stands in for one of them says."""
        packs = self._config.packs
        for pack in dict.fromkeys(packs[frame.pack] for frame in at):
            places = self._instead(pack).get(info.digest)
            if places is not None:
                if sum(place.raw for place in places) != sum(frame.raw for frame in at):
                    raise MalformedError(f"what stands in for pack {pack} has another size for tensor {info.name!r}")
                return tuple(StoredFrame(*msgspec.structs.astuple(place)) for place in places)
        return tuple(StoredFrame(packs[f.pack], f.offset, f.stored, f.raw, f.codec) for f in at)

    def _instead(self, pack: Digest) -> Mapping[Digest, tuple[Place, ...]]:
        if pack not in self._substitutes:
            missing = pack not in self._maps and self._blobs.size(pack) is None
            found = read_substitute(self._blobs.layout, pack) if missing else None
            self._substitutes[pack] = found.tensors if found else {}
        return self._substitutes[pack]

    def _map(self, digest: Digest) -> Bytes:
        if digest not in self._maps:
            self._maps[digest] = self._blobs.map(digest)
        return self._maps[digest]


def _covering(located: Located, start: int, stop: int) -> tuple[Located, int]:
    """The frames that hold bytes ``[start, stop)`` of a tensor, and the bytes in front of the first of them."""
    ends = list(accumulate(frame.raw for frame in located))
    first, last = bisect_right(ends, start), bisect_left(ends, stop) + 1
    return located[first:last], ends[first - 1] if first else 0


def _check(info: TensorInfo, data: Bytes) -> None:
    info.digest.check(Digest.of(data), f"tensor {info.name!r}")


def weights_digest(tensors: Sequence[TensorInfo]) -> Digest:
    """What pins a splice plan to the weights it was cut from: a digest over the tensor table, in order, without names.

    A line a tensor: digest, element type, dimensions joined by ``x``, separated by one space and ended by a newline.
    """
    lines = (f"{info.digest} {info.dtype} {'x'.join(map(str, info.shape))}\n" for info in tensors)
    return Digest.of("".join(lines).encode())
