"""A local store: one folder that holds models for good."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from wszoo.errors import NotFoundError
from wszoo.store.blobs import Blobs
from wszoo.store.layout import StoreLayout
from wszoo.store.leases import lease
from wszoo.store.refs import Refs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from wszoo.schema.oci import Descriptor

VARIABLE = "WSZOO_STORE"


def default_root() -> Path:
    """The folder that ``WSZOO_STORE`` names, or else the user's data folder."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(platformdirs.user_data_dir("wszoo", appauthor=False)) / "store"


class Store:
    """The parts of a store together.

    Args:
        root: its folder; made when something is first written.
    """

    def __init__(self, root: Path) -> None:
        self.layout = StoreLayout(root)
        self.blobs = Blobs(self.layout)
        self.refs = Refs(self.layout)

    def read(self, descriptor: Descriptor, *, limit: int) -> bytes:
        """A small blob's bytes, checked; makes a store a :class:`wszoo.store.documents.DocumentSource`."""
        return self.blobs.read(descriptor.digest, limit=limit)

    def require(self) -> None:
        """Raise unless there is a store.

        Raises:
            NotFoundError: the folder holds none; a mistyped path should not look like an empty store.
        """
        if not self.layout.marker.is_file():
            raise NotFoundError(f"there is no store in {self.layout.root}", hint="check --store and WSZOO_STORE")

    def holds(self, descriptors: Iterable[Descriptor]) -> bool:
        """True when all of these blobs are here at their full size; their age starts anew, so that gc keeps them."""
        return all(
            self.blobs.hold(each.digest) and self.blobs.size(each.digest) == each.size for each in list(descriptors)
        )

    def lease(self) -> AbstractContextManager[None]:
        """Keep gc away from what the block writes."""
        return lease(self.layout)
