"""Bundles: an OCI image layout with just what a lock file names, to put into an installer."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.errors import NotFoundError, StorageError, UsageError
from wszoo.lock.document import write_lock
from wszoo.lock.making import check_model
from wszoo.lock.pulling import index_of, open_documents, read_locked
from wszoo.progress import Progress, Silent
from wszoo.remotes.directory import DirectoryRemote
from wszoo.schema.model import PACK
from wszoo.store.documents import read_plan
from wszoo.store.files import rename_new, storage_errors, unique_name
from wszoo.store.store import Store
from wszoo.transfer import fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from wszoo.remotes.protocol import Remote
    from wszoo.schema.lock import Lock, LockedModel
    from wszoo.schema.oci import Descriptor

LOCK_NAME = "wszoo.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleReport:
    """What a bundle holds.

    Attributes:
        blobs: how many.
        size: their bytes.
        left_out: bytes of the weights that have to be fetched later.
    """

    blobs: int
    size: int
    left_out: int


def bundle(
    store: Store,
    lock: Lock,
    folder: Path,
    remotes: Callable[[LockedModel], Sequence[Remote]],
    *,
    weights: bool = True,
    progress: Progress | None = None,
) -> BundleReport:
    """Write what a lock names into a new folder, and the lock beside it.

    Args:
        store: asked first.
        lock: what.
        folder: where to; it does not exist yet, or is empty.
        remotes: where else to look for a model.
        weights: False leaves the packs out, for who fetches them at the first start.
        progress: where to report.

    Raises:
        UsageError: there is something in the folder.
        NotFoundError: nobody has what the lock names.
        IntegrityError: bytes are not what their digest says, or the lock contradicts itself.
        StorageError: the disk is full or refuses.
    """
    folder = folder.absolute()  # so that also '.' has a name
    with storage_errors("look into"):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} is not empty", hint="name a folder that does not exist yet")
    made = Store(folder.with_name(f".{folder.name}-{unique_name()}"))
    try:
        report = _fill(store, lock, made, remotes, weights=weights, progress=progress or Silent())
    except NotFoundError as error:
        hint = "the store has what was pulled for this machine: name a place that has all of it with --from"
        raise NotFoundError(error.message, hint=hint) from error
    else:
        with storage_errors("finish the bundle"):
            shutil.rmtree(made.layout.private)
            write_lock(made.layout.root / LOCK_NAME, lock)
            if folder.exists():
                folder.rmdir()
            if not rename_new(made.layout.root, folder):
                raise StorageError(f"{folder} appeared while the bundle was made", hint="name another folder")
    finally:
        shutil.rmtree(made.layout.root, ignore_errors=True)
    return report


def _fill(
    store: Store,
    lock: Lock,
    made: Store,
    remotes: Callable[[LockedModel], Sequence[Remote]],
    *,
    weights: bool,
    progress: Progress,
) -> BundleReport:
    written: dict[str, int] = {}
    left_out: dict[str, int] = {}
    for model in lock.models:
        places = [DirectoryRemote(store.layout.root), *remotes(model)]
        descriptors = _content(model, places)
        wanted = [each for each in descriptors if weights or each.media_type != PACK]
        first, *others = places
        fetch(first, made, wanted, progress, f"bundle {model.ref.tagged}", mirrors=others)
        held = tuple(sorted(plan.manifest.digest for plan in model.plans))
        made.refs.swap(model.ref, index_of(model), held=held, expected=None)
        written |= {each.digest: each.size for each in wanted}
        left_out |= {each.digest: each.size for each in descriptors if each not in wanted}
    return BundleReport(blobs=len(written), size=sum(written.values()), left_out=sum(left_out.values()))


def _content(model: LockedModel, places: Sequence[Remote]) -> list[Descriptor]:
    """Every blob that the lock names, as its documents describe it; both say the same."""
    documents = open_documents(model, places)
    document, descriptors = read_locked(documents, model)
    plans = [read_plan(documents, each) for each in descriptors]
    check_model(model, document, plans)
    blobs = (index_of(model), *document.blobs, *(blob for plan in plans for blob in plan.blobs))
    return list({each.digest: each for each in blobs}.values())
