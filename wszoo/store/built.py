"""What has been built before, by what it was built from.

So a build that was interrupted, or that another tag asked for, is not done again. ``wszoo/built/<key>.json`` holds the
descriptor of a plan manifest. It is no root for gc: a record whose blobs are gone is worth nothing and is ignored.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from wszoo.digest import Digest
from wszoo.errors import IntegrityError, NotFoundError
from wszoo.schema.decode import MAX_MANIFEST, decode, encode
from wszoo.schema.oci import Descriptor
from wszoo.store.documents import PlanDocument, read_plan
from wszoo.store.files import storage_errors, write_atomic

if TYPE_CHECKING:
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
        data = _path(store, wanted).read_bytes()
    except OSError:
        return None
    with suppress(IntegrityError, NotFoundError):
        plan = read_plan(store, decode(data, Descriptor, what="a note of a build", limit=MAX_MANIFEST))
        if store.holds(plan.blobs):
            return plan
    return None


def _path(store: Store, wanted: PlanConfig) -> Path:
    # What the builder makes is left out of the key: it is not known before.
    key = encode(msgspec.structs.replace(wanted, engine_digest=wanted.graph, engine_bytes=0))
    return store.layout.built / f"{Digest.of(key).hex}.json"
