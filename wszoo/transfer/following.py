"""Following a transfer: who wants blobs as they arrive, before all of them are there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.digest import Digest

# What has been hashed can be used while the disk is still busy with it. Not on Windows, which renames no file that
# someone has open: there, blobs are told of when they are in the store.
EARLY = os.name != "nt"


class GivenUp(Exception):  # noqa: N818 - no error: the follower has said so
    """A transfer ended because nobody wants the rest; what was fetched is kept for the next."""


class Follower(Protocol):
    """Who follows a transfer. Its methods are called by the transfer's threads, and must not take long."""

    def arrived(self, blob: Digest, path: Path | None) -> None:
        """A blob is here, and hashes to its digest; told once of each.

        Args:
            blob: which.
            path: where its bytes are during this call, to be mapped; None for in the store, for good.
        """
        ...

    def given_up(self) -> bool:
        """Whether the rest is not wanted any more."""
        ...
