"""Adding plans to a model that others add to as well: here, and at a remote, by compare-and-swap.

Who loses the race takes over what the winner has published, and tries again: of two drivers that publish the same tag
at the same time one wins, the other rebases, and in the end the tag has the plans of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.distribution.push import push
from wszoo.errors import NotFoundError, RemoteError, UsageError
from wszoo.publish import publish, read_published
from wszoo.schema.oci import INDEX, Descriptor
from wszoo.store.documents import (
    model_descriptor,
    plan_descriptors,
    reachable,
    read_index,
    read_indexed_model,
    read_plan,
)
from wszoo.store.shipped_caches import cache_descriptors
from wszoo.transfer import RemoteDocuments, fetch, missing
from wszoo.trust.vouching import vouch

if TYPE_CHECKING:
    from collections.abc import Callable

    from wszoo.digest import Digest
    from wszoo.distribution.push import PushReport
    from wszoo.names import Ref
    from wszoo.progress import Progress
    from wszoo.remotes.protocol import WritableRemote
    from wszoo.store.documents import ModelDocument
    from wszoo.store.store import Store

ATTEMPTS = 20  # others would have to win that often in a row


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """A remote tag that several machines add plans to.

    Attributes:
        store: this machine's.
        remote: where the tag is.
        allow_unsigned: take over what others published also if nothing vouches for it.
        progress: where to report.
    """

    store: Store
    remote: WritableRemote
    allow_unsigned: bool
    progress: Progress

    def adopt(self, ref: Ref) -> Digest | None:
        """Take over what the remote has under a tag, unless this store has another model there.

        Returns:
            The digest of the remote's index; None when it has no such tag.

        Raises:
            TrustError: nothing vouches for it.
            RemoteError: the remote cannot be reached.
        """
        try:
            found = self.remote.resolve(ref.unpinned)
        except NotFoundError:
            return None
        entry = self.store.refs.find(ref.unpinned)
        if entry is not None and entry.held is None and entry.descriptor.digest == found.digest:
            return found.digest
        with self.store.lease():
            self._take_over(ref, Descriptor(media_type=INDEX, digest=found.digest, size=found.size))
        return found.digest

    def _take_over(self, ref: Ref, index: Descriptor) -> None:
        store, documents = self.store, RemoteDocuments(self.remote)
        vouched = vouch(store, self.remote, documents, ref.unpinned, index, allow_unsigned=self.allow_unsigned)
        model = read_indexed_model(documents, index)
        mine = read_published(store, ref)
        if mine.model is not None and mine.model.descriptor.digest != model.descriptor.digest:
            return  # other weights under the same name: for the push to refuse
        wanted = list(reachable(documents, index, None))
        for data in documents.read_before.values():
            store.blobs.put(data)
        fetch(self.remote, store, missing(store, wanted), self.progress, f"fetch {ref.tagged}", whole=True)
        vouched.note(store)
        if mine.entry is not None and mine.model is not None:
            theirs = read_index(store, index)
            plans = [read_plan(store, each) for each in plan_descriptors(theirs)]
            publish(store, ref, model, plans, caches=cache_descriptors(theirs))
        else:
            store.refs.swap(ref, index, held=None, expected=mine.entry, source=self.remote.url)
        vouched.keep_signatures(store)

    def check_same(self, ref: Ref, model: ModelDocument) -> None:
        """Refuse a model that could not be pushed in the end, before anything is built for it.

        Raises:
            UsageError: the remote's tag has another one.
            RemoteError: the remote cannot be reached.
        """
        try:
            found = self.remote.resolve(ref.unpinned)
        except NotFoundError:
            return
        index = Descriptor(media_type=INDEX, digest=found.digest, size=found.size)
        theirs = model_descriptor(read_index(RemoteDocuments(self.remote), index))
        if theirs.digest != model.descriptor.digest:
            raise UsageError(
                f"{self.remote.url} has {ref.tagged} already, with another graph or other weights, or as another "
                "version of wszoo or of an exporter made it",
                hint="give it a new tag, or build without --to and use 'wszoo push --replace'",
            )

    def push(self, ref: Ref, sign: Callable[[Ref], None] | None = None) -> PushReport:
        """Push what the store has under a tag, together with what others have pushed there meanwhile.

        Args:
            ref: which.
            sign: signs what the ref points to, before each attempt; None for no signature.

        Raises:
            UsageError: the tag has another model there.
            TrustError: nothing vouches for what is there.
            RemoteError: the remote cannot be reached or refuses.
        """
        for _ in range(ATTEMPTS):
            before = self.adopt(ref)
            if sign is not None:
                sign(ref)
            try:
                return push(self.store, self.remote, ref, progress=self.progress)
            except (RemoteError, UsageError):
                if self._now(ref) == before:  # nobody was faster: it is refused for another reason
                    raise
        raise RemoteError(f"others keep moving {ref.tagged} at {self.remote.url}", hint="try again when they are done")

    def _now(self, ref: Ref) -> Digest | None:
        try:
            return self.remote.resolve(ref.unpinned).digest
        except NotFoundError:
            return None
