"""What a model lacks before others can have all of it from a store: a pull brings only what one machine needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.errors import NotFoundError
from wszoo.store.documents import reachable, read_index
from wszoo.store.engine_only import spare_packs
from wszoo.store.substitutes import read_substitute
from wszoo.text import counted

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from wszoo.digest import Digest
    from wszoo.schema.oci import Descriptor
    from wszoo.store.refs import Entry
    from wszoo.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """What is not here of a model.

    Attributes:
        plans: manifests that the index lists; they were not pulled, being for other GPUs.
        packs: those of which only tensors are here, because the others came with other models.
        let_go: packs that were deleted because only engines are kept of the model.
        gone: blobs that should be here and are not, or have another size: damage.
    """

    plans: tuple[Digest, ...]
    packs: tuple[Digest, ...]
    let_go: tuple[Digest, ...]
    gone: tuple[Descriptor, ...]

    def __bool__(self) -> bool:
        return bool(self.plans or self.packs or self.let_go or self.gone)

    def __str__(self) -> str:
        """What lacks, in words; empty when nothing does."""
        packs = ", ".join(digest.short for digest in self.packs)
        return " and ".join(
            text
            for count, text in (
                (self.plans, f"{counted(len(self.plans), 'plan')} for other GPUs not pulled"),
                (self.packs, f"{counted(len(self.packs), 'pack')} here only in part ({packs})"),
                (self.let_go, f"{counted(len(self.let_go), 'pack')} let go of, because only engines are kept"),
                (self.gone, f"{counted(len(self.gone), 'blob')} missing or damaged"),
            )
            if count
        )


def lack_of(store: Store, entry: Entry) -> Lack:
    """What a store lacks of a ref.

    Raises:
        NotFoundError: a document that should be here is not.
        IntegrityError: a document, or a table that stands in for a pack, is damaged.
    """
    packs: list[Digest] = []
    let_go: list[Digest] = []
    gone: list[Descriptor] = []
    spare = spare_packs(store, entry)
    ours = {each.digest: each for each in reachable(store, entry.descriptor, entry.held)}
    for each in ours.values():
        if (size := store.blobs.size(each.digest)) == each.size:
            continue
        if size is None and read_substitute(store.layout, each.digest) is not None:
            packs.append(each.digest)
        elif size is None and each.digest in spare:
            let_go.append(each.digest)
        else:
            gone.append(each)
    listed = read_index(store, entry.descriptor).manifests if entry.held is not None else ()
    others = [each.digest for each in listed if each.digest not in ours]
    plans = tuple(each for each in others if not _has(store, entry, each, ours.keys()))
    return Lack(plans=plans, packs=tuple(packs), let_go=tuple(let_go), gone=tuple(gone))


def _has(store: Store, entry: Entry, plan: Digest, ours: AbstractSet[Digest]) -> bool:
    """Whether all that a plan needs beyond the model is here, brought by another model or an earlier pull."""
    try:
        needed = [each for each in reachable(store, entry.descriptor, (plan,)) if each.digest not in ours]
    except NotFoundError:
        return False
    return all(store.blobs.size(each.digest) == each.size for each in needed)


def advice(entry: Entry) -> str:
    """The command that brings the rest."""
    return f"wszoo pull {entry.ref.tagged} --complete --from {entry.source or 'REMOTE'}"
