"""Tensors as their packs arrive, decoded ahead of whoever takes them, within bounds.

Packs arrive on the threads of a transfer, tensors are decoded on threads of this module, and one takes them. What
is decoded and not taken yet is bounded by ``AHEAD``: who takes slowly holds up decoding, and not the transfer, which
goes to the disk. A tensor of which all packs arrived is as good as their digests; of others, which were in the store
before, every tensor is hashed.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wszoo.parallel import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wszoo.buffers import Bytes
    from wszoo.digest import Digest
    from wszoo.weights.packs import PackReader, StoredTensor
    from wszoo.weights.tensor import Tensor

AHEAD = 128 << 20  # raw bytes that are decoded, or being decoded, and not taken; at least one tensor, however large
WORKERS = 8  # at most; each has 4 MiB in memory besides, and a frame of 16 MiB that counts as decoded ahead
BATCH = 4 << 20  # raw bytes of small tensors that are decoded in one go

_TICK = 0.2  # seconds; on Windows, Ctrl-C waits for the end of one


@dataclass(slots=True, eq=False)
class _Wanted:
    """A tensor, and the packs that it still waits for."""

    component: str
    stored: StoredTensor
    lacking: set[Digest]
    hashed: bool = False  # it has to be, since a pack of it was not hashed on its arrival

    @property
    def nbytes(self) -> int:
        return self.stored.tensor.nbytes


@dataclass(slots=True, eq=False)
class _Batch:
    """Tensors that are decoded together: one large one, or small ones."""

    wanted: list[_Wanted]
    nbytes: int
    data: list[Bytes] = field(default_factory=list)
    parts: int = 0  # that are not decoded yet
    error: BaseException | None = None


class ArrivingTensors:
    """What arrives, for one thread to take.

    Args:
        ahead: see ``AHEAD``.
    """

    def __init__(self, *, ahead: int = AHEAD) -> None:
        self._ahead = ahead
        self._reader: PackReader | None = None
        self._changed = threading.Condition(threading.RLock())
        self._waiting: dict[Digest, list[_Wanted]] = {}
        self._ready: deque[_Wanted] = deque()
        self._begun: deque[_Batch] = deque()
        self._taken: deque[tuple[str, Tensor, Bytes]] = deque()
        self._held = 0  # bytes in _begun
        self._over = self._closed = False
        self._error: BaseException | None = None
        self._pool = ThreadPoolExecutor(min(cores(), WORKERS), thread_name_prefix="wszoo-decode")

    # ---- for those who bring packs ----

    def expect(self, reader: PackReader, components: Iterable[str], here: Iterable[Digest]) -> None:
        """Say which tensors are wanted, once.

        Args:
            reader: of the model.
            components: whose tensors.
            here: packs that are in the store, or that something stands in for.

        Raises:
            MalformedError: the tensor table contradicts itself.
        """
        wanted = [_Wanted(name, stored, set(stored.packs)) for name in components for stored in reader.stored(name)]
        with self._changed:
            self._reader = reader
            for each in wanted:
                for pack in each.lacking:
                    self._waiting.setdefault(pack, []).append(each)
            self._ready.extend(each for each in wanted if not each.lacking)
            for pack in here:
                self._release(pack, hashed=True)
            self._begin()

    def wants(self, pack: Digest) -> bool:
        """Whether tensors wait for a pack."""
        with self._changed:
            return pack in self._waiting

    def arrived(self, pack: Digest, data: Bytes | None) -> None:
        """A pack is here and hashes to its digest.

        Args:
            pack: which.
            data: its bytes, mapped; None to read it from the store.
        """
        with self._changed:
            if pack not in self._waiting or self._reader is None:
                return
            if data is not None:
                self._reader.offer(pack, data)
            self._release(pack, hashed=data is None)
            self._begin()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more arrives: what is left is in the store, or there was an error."""
        with self._changed:
            self._over, self._error = True, self._error or error
            for pack in list(self._waiting):
                self._release(pack, hashed=True)
            self._begin()
            self._changed.notify_all()

    # ---- for the one who takes ----

    def take(self) -> tuple[str, Tensor, Bytes] | None:
        """The next tensor with its component and its bytes; None after the last.

        Raises:
            WszooError: it cannot be decoded, or what :meth:`end` was told.
        """
        with self._changed:
            while not self._taken:
                if self._error is not None:
                    raise self._error
                # Whichever is done first: a batch of small tensors asks for Python's lock more often than a large one.
                done = next((batch for batch in self._begun if not batch.parts), None)
                if done is not None:
                    self._begun.remove(done)
                    self._unpack(done)
                elif self._over and not self._begun:
                    return None
                else:
                    self._changed.wait(_TICK)
            return self._taken.popleft()

    def close(self) -> None:
        """Decode no more; :meth:`take` has nothing then."""
        with self._changed:
            self._over = self._closed = True
            for each in (self._waiting, self._ready, self._begun, self._taken):
                each.clear()
            self._changed.notify_all()
        self._pool.shutdown(cancel_futures=True)

    # ---- in between; the lock is held ----

    def _release(self, pack: Digest, *, hashed: bool) -> None:
        for each in self._waiting.pop(pack, ()):
            each.lacking.discard(pack)
            each.hashed = each.hashed or hashed
            if not each.lacking:
                self._ready.append(each)

    def _begin(self) -> None:
        while self._ready and self._error is None and not self._closed:
            batch = self._next_batch()
            if self._begun and self._held + batch.nbytes > self._ahead:
                self._ready.extendleft(reversed(batch.wanted))
                return
            self._held += batch.nbytes
            self._begun.append(batch)
            self._submit(batch)

    def _next_batch(self) -> _Batch:
        first = self._ready.popleft()
        wanted, nbytes = [first], first.nbytes
        while self._ready and nbytes + self._ready[0].nbytes <= BATCH:
            wanted.append(self._ready.popleft())
            nbytes += wanted[-1].nbytes
        return _Batch(wanted, nbytes)

    def _submit(self, batch: _Batch) -> None:
        if len(batch.wanted) == 1 and batch.nbytes > BATCH:
            (wanted,) = batch.wanted
            try:
                loading = wanted.stored.begin()
            except BaseException as error:  # noqa: BLE001 - raised where the tensor is taken
                batch.error = error
                self._changed.notify_all()
                return
            batch.data.append(loading.data)
            parts = list(loading.parts)
        else:
            parts = [lambda: batch.data.extend(each.stored.load() for each in batch.wanted)]
        batch.parts = max(1, len(parts))
        for part in parts or [lambda: None]:
            self._pool.submit(self._decode, batch, part)

    def _decode(self, batch: _Batch, part: Callable[[], None]) -> None:
        """A part of a batch, on a thread of the pool, without the lock; whoever does the last one hashes."""
        error: BaseException | None = None
        try:
            part()
        except BaseException as caught:  # noqa: BLE001 - raised where the tensor is taken
            error = caught
        with self._changed:
            batch.error = batch.error or error
            last = batch.parts == 1
            if not last:
                batch.parts -= 1
        if last:
            self._finish(batch)

    def _finish(self, batch: _Batch) -> None:
        try:
            if batch.error is None:
                for wanted, data in zip(batch.wanted, batch.data, strict=True):
                    if wanted.hashed:
                        wanted.stored.check(data)
        except BaseException as error:  # noqa: BLE001 - raised where the tensor is taken
            batch.error = error
        with self._changed:
            batch.parts = 0
            self._changed.notify_all()

    def _unpack(self, batch: _Batch) -> None:
        self._held -= batch.nbytes
        self._begin()
        if batch.error is not None:
            raise batch.error
        for wanted, data in zip(batch.wanted, batch.data, strict=True):
            self._taken.append((wanted.component, wanted.stored.tensor, data))
