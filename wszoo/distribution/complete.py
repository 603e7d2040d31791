"""Completing a model: the plans for other GPUs, and the packs of which a pull fetched only some tensors.

A pull brings what one machine needs. Who wants to push a model on, or serve it to others, needs all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.errors import NotFoundError, StorageError
from wszoo.progress import Silent
from wszoo.store.documents import reachable
from wszoo.store.engine_only import keep_weights
from wszoo.transfer import fetch

if TYPE_CHECKING:
    from wszoo.names import Ref
    from wszoo.progress import Progress
    from wszoo.schema.oci import Descriptor
    from wszoo.store.store import Store
    from wszoo.transfer import RemoteDocuments

_ATTEMPTS = 50  # as many other changes of the tag in a row make us give up


@dataclass(frozen=True, slots=True)
class _Either:
    """Documents from the store, or else from a remote."""

    store: Store
    documents: RemoteDocuments

    def read(self, descriptor: Descriptor, *, limit: int) -> bytes:
        try:
            return self.store.read(descriptor, limit=limit)
        except NotFoundError:
            return self.documents.read(descriptor, limit=limit)


def complete(
    store: Store, documents: RemoteDocuments, ref: Ref, *, progress: Progress | None = None
) -> tuple[Descriptor, ...]:
    """Fetch what a store lacks of a model that it has; the ref then holds all of it, as after a build.

    The index that is in the store says what belongs to the model, so nothing more has to be trusted.

    Args:
        store: where to.
        documents: of where from; its mirrors are asked too.
        ref: what; it is in the store.
        progress: where to report.

    Returns:
        The blobs that were fetched.

    Raises:
        NotFoundError: the store has no such ref, or the remote does not have all of the model.
        IntegrityError: bytes are not what their digest says.
        RemoteError: the remote and its mirrors failed again and again.
        StorageError: the disk is full or refuses.
    """
    with store.lease():
        entry = store.refs.get(ref)
        keep_weights(store.layout, entry.descriptor.digest)
        documents.remote.resolve(entry.ref.pinned(entry.descriptor.digest))  # a registry must know which model it is
        found = {each.digest: each for each in reachable(_Either(store, documents), entry.descriptor, None)}
        lacking = tuple(each for each in found.values() if store.blobs.size(each.digest) != each.size)
        for data in documents.read_before.values():
            store.blobs.put(data)
        fetch(
            documents.remote,
            store,
            [each for each in lacking if each.digest not in documents.read_before],
            progress or Silent(),
            f"complete {ref.tagged}",
            mirrors=documents.mirrors,
            tuning=documents.tuning,
            whole=True,
        )
        _remember(store, ref)
    return lacking


def _remember(store: Store, ref: Ref) -> None:
    for _ in range(_ATTEMPTS):
        now = store.refs.get(ref)
        if now.held is None or store.refs.swap(ref, now.descriptor, held=None, expected=now, source=now.source):
            return
    raise StorageError(f"other processes keep changing {ref.tagged}", hint="try again when they are done")
