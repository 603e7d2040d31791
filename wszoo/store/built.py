"""What has been built before, by what it was built from.

So a build that was interrupted, or that another tag asked for, is not done again. ``wszoo/built/<key>.json`` holds the
descriptor of a plan manifest. It is no root for gc: a record whose plan is gone is worth nothing, is ignored, and goes
with the next gc.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from wszoo.digest import Digest
from wszoo.errors import IntegrityError, MalformedError, NotFoundError
from wszoo.schema.decode import MAX_MANIFEST, decode, encode
from wszoo.schema.oci import Descriptor
from wszoo.store.documents import PlanDocument, read_plan
from wszoo.store.files import read_regular, storage_errors, write_atomic

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from wszoo.schema.plan import PlanConfig
    from wszoo.store.store import Store


def remember(store: Store, wanted: PlanConfig, plan: PlanDocument) -> None:
    """Note that building ``wanted`` gave ``plan``.

    Raises:
        StorageError: the file system refuses.
    """
    store.layout.create()
    with storage_errors("note a finished build in"):
        write_atomic(_path(store, wanted), encode(plan.descriptor), store.layout.tmp)


def recall(store: Store, wanted: PlanConfig) -> PlanDocument | None:
    """The plan that building ``wanted`` gave before, if all of it is still here; its age then starts anew."""
    try:
        data = read_regular(_path(store, wanted), MAX_MANIFEST)
    except (OSError, MalformedError):
        return None
    with suppress(IntegrityError, NotFoundError):
        plan = read_plan(store, decode(data, Descriptor, what="a note of a build", limit=MAX_MANIFEST))
        if store.holds(plan.blobs):
            return plan
    return None


def is_gone(store: Store, path: Path, without: Container[Digest]) -> bool:
    """True when a record says nothing any more: the plan that it names is not in the store, or it is damaged.

    Args:
        store: which.
        path: of the record.
        without: blobs that are about to go.
    """
    try:
        data = read_regular(path, MAX_MANIFEST)
        digest = decode(data, Descriptor, what="a note of a build", limit=MAX_MANIFEST).digest
    except (OSError, MalformedError):
        return True
    return digest in without or store.blobs.size(digest) is None


def build_key(wanted: PlanConfig) -> Digest:
    """What tells builds apart: component, graph, weights, profiles, target, builder's version, wszoo's version."""
    # What the builder makes is left out: it is not known before.
    return Digest.of(encode(msgspec.structs.replace(wanted, engine_digest=wanted.graph, engine_bytes=0)))


def _path(store: Store, wanted: PlanConfig) -> Path:
    return store.layout.built / f"{build_key(wanted).hex}.json"
