"""Models of which a store keeps assembled plans and lets go of the weights: ``--keep engine``.

``wszoo/engine-only/<hex of an index>`` says that its user wants that. It deletes nothing by itself: a pack becomes
garbage when no plan of the model that is here needs it, and a plan stops needing its packs only once it is kept whole,
with its weights: its stamp, written after its last byte is on the disk, has its size and time, or its bytes are hashed.
So whenever a program or the power fails, either the packs count as needed or the plan is complete. A plan that is lost
or damaged later makes them needed again: ``verify`` then names them, and ``verify --repair`` or a pull fetches them.

Only what can be fetched again is let go of: never the weights of a model that was built here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from wszoo.errors import UsageError, WszooError
from wszoo.progress import Silent
from wszoo.schema.plan import Kind
from wszoo.store.documents import plan_descriptors, reachable, read_index, read_indexed_model, read_plan
from wszoo.store.engines import is_stamped, is_verified
from wszoo.store.files import storage_errors, write_atomic
from wszoo.store.refitted import has_refitted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from wszoo.digest import Digest
    from wszoo.schema.model import ModelConfig
    from wszoo.schema.oci import Descriptor
    from wszoo.schema.plan import PlanConfig
    from wszoo.store.layout import StoreLayout
    from wszoo.store.refs import Entry
    from wszoo.store.store import Store


def check_pulled(entry: Entry | None) -> None:
    """Check that a model's weights may be let go of.

    Raises:
        UsageError: all of it is here, as after a build: its weights may be nowhere else.
    """
    if entry is not None and (entry.held is None or not entry.source):
        raise UsageError(
            f"{entry.ref.tagged} was built here or fetched as a whole, so its weights stay",
            hint=f"to keep engines alone: wszoo rm {entry.ref.tagged}, then pull it from where it was pushed to",
        )


def keep_engines_only(store: Store, entry: Entry) -> None:
    """Let the weights of a pulled model go once its plans are kept whole.

    Raises:
        UsageError: see :func:`check_pulled`.
        StorageError: the file system refuses.
    """
    check_pulled(entry)
    with storage_errors("note what to keep in"):
        store.layout.engine_only.mkdir(parents=True, exist_ok=True)
        write_atomic(_marker(store.layout, entry.descriptor.digest), b"", store.layout.tmp)


def keep_weights(layout: StoreLayout, index: Digest) -> None:
    """Keep a model's weights from now on; a pull then fetches those that went.

    Raises:
        StorageError: the file system refuses.
    """
    with storage_errors("note what to keep in"):
        _marker(layout, index).unlink(missing_ok=True)


def keeps_engines_only(layout: StoreLayout, index: Digest) -> bool:
    """Whether a model's weights may have been let go of."""
    return _marker(layout, index).is_file()


def needed(store: Store, entry: Entry) -> Iterator[Descriptor]:
    """Every blob that a ref needs, as :func:`wszoo.store.documents.reachable`, without packs that may go.

    Raises:
        NotFoundError: a document on the way is missing.
        IntegrityError: a document on the way is damaged.
    """
    spare = spare_packs(store, entry)
    return (each for each in reachable(store, entry.descriptor, entry.held) if each.digest not in spare)


def spare_packs(store: Store, entry: Entry) -> frozenset[Digest]:
    """The packs of a model that none of its plans here needs; empty when in doubt."""
    if entry.held is None or not keeps_engines_only(store.layout, entry.descriptor.digest):
        return frozenset()
    try:
        return packs_beside(store.layout, read_indexed_model(store, entry.descriptor).config, _plans(store, entry))
    except WszooError:  # a document is missing or damaged, which is for others to tell
        return frozenset()


def packs_beside(layout: StoreLayout, model: ModelConfig, plans: Iterable[PlanConfig]) -> frozenset[Digest]:
    """The packs that hold nothing for those of ``plans`` that are not kept whole; empty for a malformed model."""
    try:
        wanted = {
            model.packs[frame.pack]
            for component in {plan.component for plan in plans if not _is_whole(layout, plan)}
            for tensor in model.components[component].tensors
            for frame in model.frames[tensor.digest]
        }
    except (KeyError, IndexError):
        return frozenset()
    return frozenset(model.packs) - wanted


def sole_engines(store: Store) -> frozenset[Digest]:
    """Digests of the plans whose kept file stands in for weights: deleting it costs a pull, not an assembly."""
    found: set[Digest] = set()
    for entry in store.refs.survey()[0]:
        if entry.held is not None and keeps_engines_only(store.layout, entry.descriptor.digest):
            with suppress(WszooError):
                found.update(plan.kept_as for plan in _plans(store, entry))
    return frozenset(found)


def _plans(store: Store, entry: Entry) -> list[PlanConfig]:
    listed = plan_descriptors(read_index(store, entry.descriptor))
    return [read_plan(store, each).config for each in listed if each.digest in (entry.held or ())]


def _is_whole(layout: StoreLayout, plan: PlanConfig) -> bool:
    with suppress(OSError, WszooError):  # it cannot be read, or went meanwhile: then the packs are needed
        if plan.kind == Kind.SPLICE:
            return is_stamped(layout, plan.kept_as) or is_verified(layout, plan.kept_as, Silent())
        return plan.kind == Kind.NATIVE and has_refitted(layout.runtime / plan.kept_as.hex, plan.weights)
    return False


def _marker(layout: StoreLayout, index: Digest) -> Path:
    return layout.engine_only / index.hex
