"""Taking exactly what a lock file names, from wherever it can be had: its digests decide, and no tag is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.distribution.pull import Order, PullReport, needed_here, remember, select, take
from wszoo.errors import MalformedError, NotFoundError
from wszoo.lock.making import check_model
from wszoo.remotes.protocol import expect
from wszoo.schema.oci import INDEX, Descriptor
from wszoo.schema.trust import Decision, How
from wszoo.store.documents import model_descriptor, plan_descriptors, read_index, read_model
from wszoo.store.engine_only import keeps_engines_only
from wszoo.transfer import RemoteDocuments, missing
from wszoo.trust.vouching import Vouched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.digest import Digest
    from wszoo.distribution.pull import Selection, Surroundings
    from wszoo.names import Ref
    from wszoo.progress import Progress
    from wszoo.remotes.protocol import Remote
    from wszoo.schema.lock import LockedModel
    from wszoo.store.documents import DocumentSource, ModelDocument
    from wszoo.store.store import Store


def pull_locked(
    store: Store,
    model: LockedModel,
    remotes: Sequence[Remote],
    around: Surroundings,
    *,
    progress: Progress | None = None,
    dry_run: bool = False,
) -> PullReport:
    """Fetch what one GPU needs of a locked model.

    The store keeps it under a name of its own (``name:lock-...``), so that it stays when the tag moves, and under its
    tag if the store has nothing else there.

    Args:
        store: where to.
        model: what.
        remotes: where from, in order.
        around: what to choose among the locked plans for.
        progress: where to report.
        dry_run: only report.

    Raises:
        NotFoundError: no remote has what the lock names.
        MalformedError: the lock contradicts itself, or what it names.
        IncompatibleError: none of the locked plans fits.
        IntegrityError: bytes are not what their digest says.
        RemoteError: the remotes failed again and again.
        StorageError: the disk is full or refuses.
    """
    documents = open_documents(model, remotes)
    read_locked(documents, model)
    selection = select(documents, model.ref, index_of(model), around, _plans(model))
    check_model(model, selection.model, selection.plans.values())
    decision = Decision(how=How.LOCKED, ref=model.ref.tagged, index=model.index.digest, remote=documents.remote.url)
    order = Order(
        vouched=Vouched(model.ref, decision, ()),
        selection=selection,
        names=_names(store, model),
    )
    return take(store, documents, order, dry_run=dry_run, progress=progress)


def select_locked(store: Store, model: LockedModel, around: Surroundings) -> Selection | None:
    """What a store has of a locked model, complete; None when something is missing. Connects to nobody.

    Raises:
        MalformedError: the lock contradicts what it names.
        IncompatibleError: none of the locked plans fits.
        IntegrityError: a document in the store is damaged.
    """
    try:
        selection = select(store, model.ref, index_of(model), around, _plans(model))
    except NotFoundError:
        return None
    check_model(model, selection.model, selection.plans.values())
    here = any(store.refs.find(name) for name in (model.ref.locked(model.index.digest), model.ref))
    engines_only = keeps_engines_only(store.layout, model.index.digest)
    wanted = needed_here(store, selection, engines_only=engines_only)
    return selection if here and not missing(store, wanted) else None


def keep_locked(store: Store, model: LockedModel, selection: Selection) -> None:
    """Let what :func:`select_locked` found stay when its tag moves.

    Raises:
        StorageError: the file system refuses.
    """
    own = model.ref.locked(model.index.digest)
    if store.refs.find(own) is None:
        entry = store.refs.find(model.ref)
        remember(store, own, selection, entry.source if entry else "")


def open_documents(model: LockedModel, remotes: Sequence[Remote]) -> RemoteDocuments:
    """The documents of a locked model at some remotes.

    Raises:
        NotFoundError: there are no remotes.
    """
    if not remotes:
        raise NotFoundError(
            f"the lock does not say where {model.ref.tagged} can be had, and it is not in the store",
            hint="name a place with --from, or lock it with --remote URL",
        )
    for remote in remotes:
        expect(remote, model.ref)  # no tag is asked for: the digests are known
    return RemoteDocuments(remotes[0], tuple(remotes[1:]))


def read_locked(source: DocumentSource, model: LockedModel) -> tuple[ModelDocument, list[Descriptor]]:
    """The model that a lock names, and the descriptors of its plans.

    Raises:
        NotFoundError: no source has one.
        MalformedError: the index does not list a plan that the lock names.
        IntegrityError: a document is damaged.
    """
    index = read_index(source, index_of(model))
    listed = {each.digest: each for each in plan_descriptors(index)}
    for plan in model.plans:
        found = listed.get(plan.manifest.digest)
        if found is None or found.size != plan.manifest.size:
            raise MalformedError(
                f"the lock of {model.ref.tagged} names the plan {plan.manifest.digest} of {plan.manifest.size} bytes, "
                f"and its index {model.index.digest} does not",
                hint="it was edited: take it from version control again, or run 'wszoo lock --upgrade'",
            )
    return read_model(source, model_descriptor(index)), [listed[plan.manifest.digest] for plan in model.plans]


def index_of(model: LockedModel) -> Descriptor:
    """The descriptor of a locked model's index."""
    return Descriptor(media_type=INDEX, digest=model.index.digest, size=model.index.size)


def _plans(model: LockedModel) -> tuple[Digest, ...]:
    return tuple(plan.manifest.digest for plan in model.plans)


def _names(store: Store, model: LockedModel) -> tuple[Ref, ...]:
    own, entry = model.ref.locked(model.index.digest), store.refs.find(model.ref.unpinned)
    free = entry is None or entry.descriptor.digest == model.index.digest
    return (own, model.ref.unpinned) if free else (own,)
