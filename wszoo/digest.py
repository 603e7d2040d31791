"""The one digest type: ``sha256:`` and 64 lower-case hexadecimal characters.

A :class:`Digest` can only be made by parsing or by hashing, so code that holds one may build a path from it.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Protocol, Self

from wszoo.errors import IntegrityError, MalformedError

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

CHUNK = 4 << 20  # read unit when hashing files: large enough to hide the call overhead, small enough for any cache

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")


class _Hash(Protocol):
    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...


class Digest(str):
    """A validated ``sha256:<hex>`` string; compares, hashes and serializes as that string."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Validate ``text``.

        Raises:
            MalformedError: it is anything but ``sha256:`` and 64 lower-case hexadecimal characters.
        """
        if not _PATTERN.fullmatch(text):
            raise MalformedError(
                f"not a digest: {text[:100]!r}", hint="a digest is 'sha256:' and 64 lower-case hex digits"
            )
        return super().__new__(cls, text)

    @property
    def hex(self) -> str:
        """The 64 hexadecimal characters."""
        return self[7:]

    @property
    def short(self) -> str:
        """The first 12 hexadecimal characters, for people."""
        return self[7:19]

    @classmethod
    def of(cls, data: Buffer) -> Self:
        """The digest of ``data``."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @classmethod
    def from_hash(cls, running: _Hash) -> Self:
        """The digest of what a running ``hashlib.sha256`` has seen."""
        return cls("sha256:" + running.hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """The digest of a file's content, read in bounded chunks."""
        with path.open("rb") as file:
            return cls.from_hash(hashlib.file_digest(file, "sha256"))

    def check(self, actual: Digest, what: str) -> None:
        """Raise unless ``actual`` equals this digest.

        Raises:
            IntegrityError: naming ``what`` and both digests.
        """
        if actual != self:
            raise IntegrityError(
                f"{what} is damaged: expected {self}, found {actual}",
                hint="run 'wszoo verify --quarantine', then pull or build the model again",
            )
