"""Content-addressed blobs: written beside, hashed while written, renamed into place, never changed after."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.errors import IntegrityError, LimitError, MalformedError, NotFoundError, StorageError
from wszoo.store.files import (
    is_regular,
    open_regular,
    place,
    rename_finished,
    replace,
    storage_errors,
    sync_folder,
    unique_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader, BufferedWriter

    from typing_extensions import Buffer

    from wszoo.buffers import Bytes
    from wszoo.store.layout import StoreLayout


_ASIDE = re.compile(r"([0-9a-f]{64})\.aside\..+")


def map_file(path: Path) -> Bytes:
    """A file's bytes, memory-mapped and read-only, wherever it is moved later.

    Raises:
        StorageError: the file system refuses.
    """
    with storage_errors("map"), path.open("rb") as file:
        return _map(file)


def _map(file: BufferedReader) -> Bytes:
    import numpy as np  # 0.1 s, which who only fetches need not wait for

    if os.fstat(file.fileno()).st_size == 0:
        return np.empty(0, np.uint8)  # an empty file cannot be mapped
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


class BlobWriter:
    """A blob being written; see :meth:`Blobs.writer`.

    Args:
        file: where to.
        what: is being done, for the message when the file system refuses.
    """

    def __init__(self, file: BufferedWriter, what: str = "write a blob to") -> None:
        self._file = file
        self._what = what
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: Buffer) -> None:
        """Append; hashed as it goes.

        Raises:
            StorageError: the file system refuses.
        """
        view = memoryview(data).cast("B")
        self._hash.update(view)
        with storage_errors(self._what, Path(self._file.name)):
            self._file.write(view)
        self.size += len(view)

    def digest(self) -> Digest:
        """The digest of what was written so far."""
        return Digest.from_hash(self._hash)


class Blobs:
    """The blobs of one store. Safe to use from several threads and processes at once."""

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout

    @property
    def layout(self) -> StoreLayout:
        """Of the store that they are in."""
        return self._layout

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self._layout.blob(digest)

    def size(self, digest: Digest) -> int | None:
        """The blob's length in bytes, or None when it is not here, or is no regular file."""
        for _ in self._twice(digest):
            with suppress(FileNotFoundError):
                status = self.path(digest).lstat()
                return status.st_size if stat.S_ISREG(status.st_mode) else None
        return None

    def hold(self, digest: Digest) -> bool:
        """True when the blob is here; its age starts anew, so that a gc that runs now keeps it."""
        try:
            if not is_regular(self.path(digest)):
                return False
            os.utime(self.path(digest))
        except FileNotFoundError:
            return False
        except OSError:  # a read-only store has no gc to fear
            return self.path(digest).exists()
        return True

    def put(self, data: Buffer) -> Digest:
        """Store bytes that are in memory; a damaged blob in their place is mended.

        Raises:
            StorageError: the file system refuses; nothing is left behind.
        """
        digest = Digest.of(data)
        if not (self.hold(digest) and self._is_whole(digest)):
            with self.writer(digest) as writer:
                writer.write(data)
        return digest

    @contextmanager
    def writer(self, expected: Digest | None = None) -> Iterator[BlobWriter]:
        """Write a blob piece by piece; it appears under its digest when the block ends, and not at all if it raises.

        Args:
            expected: what the content must hash to; None accepts any.

        Raises:
            IntegrityError: the content hashes to something else.
            StorageError: the file system refuses; nothing is left behind.
        """
        self._layout.create()
        temporary = self._layout.tmp / unique_name()
        try:
            with storage_errors("write a blob to", temporary):
                file = temporary.open("xb")
            try:
                # What the block itself raises, a network's OSError among it, passes unchanged.
                writer = BlobWriter(file)
                yield writer
                with storage_errors("write a blob to", temporary):
                    file.flush()
                    os.fsync(file.fileno())
                    file.close()
            finally:
                with suppress(OSError):
                    file.close()
            digest = writer.digest()
            if expected is not None:
                expected.check(digest, f"blob {expected.short}")
            with storage_errors("store a blob as"):
                place(temporary, self.path(digest))
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def adopt(self, path: Path, digest: Digest) -> None:
        """Make a file a blob, for good after :meth:`settle`; it is gone from its place then.

        Args:
            path: a file that is synced.
            digest: what its content hashes to.

        Raises:
            StorageError: the file system refuses.
        """
        with storage_errors("store a blob as"):
            os.utime(path)  # what was fetched over hours begins to age now
            rename_finished(path, self.path(digest))

    def settle(self) -> None:
        """Make what was adopted durable, of many blobs at once.

        Raises:
            StorageError: the file system refuses.
        """
        with storage_errors("store blobs in"):
            sync_folder(self._layout.blobs)

    def read(self, digest: Digest, *, limit: int) -> bytes:
        """A small blob's bytes, checked against its digest.

        Raises:
            NotFoundError: it is not here.
            LimitError: larger than ``limit`` bytes.
            IntegrityError: damaged.
        """
        with self._opened(digest) as file:
            # A read makes room for all that it is asked for; limits go up to 1 GiB, and most blobs are small.
            data = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
        if len(data) > limit:
            raise LimitError(f"blob {digest} is larger than the {limit} bytes that wszoo accepts for it")
        digest.check(Digest.of(data), f"blob {self.path(digest)}")
        return data

    def map(self, digest: Digest) -> Bytes:
        """A blob's bytes, memory-mapped and read-only; not checked again, since that would read all of it.

        Raises:
            NotFoundError: it is not here.
        """
        with self._opened(digest) as file:
            return _map(file)

    def check(self, digest: Digest) -> None:
        """Re-hash a blob.

        Raises:
            NotFoundError: it is not here.
            IntegrityError: its bytes do not match its name.
        """
        with self._opened(digest) as file:
            found = Digest.from_hash(hashlib.file_digest(file, "sha256"))
        if found != digest:
            raise IntegrityError(f"blob {self.path(digest)} is damaged: its content hashes to {found}")

    def _is_whole(self, digest: Digest) -> bool:
        try:
            self.check(digest)
        except (IntegrityError, NotFoundError, StorageError):
            return False
        return True

    def all(self) -> Iterator[Digest]:
        """Every blob that is here, in no order; files with other names are passed over."""
        with suppress(FileNotFoundError), os.scandir(self._layout.blobs) as entries:
            for entry in entries:
                with suppress(MalformedError):
                    yield Digest(f"sha256:{entry.name}")

    def put_aside(self, digest: Digest) -> Path:
        """Move a blob out of the way, for gc to decide about; who needs it meanwhile takes it back.

        Raises:
            OSError: it is not here, or someone on Windows has it mapped.
        """
        aside = self._layout.tmp / f"{digest.hex}.aside.{unique_name()}"
        replace(self.path(digest), aside)
        return aside

    def take_back(self, digest: Digest | None = None) -> None:
        """Undo :meth:`put_aside`, of one blob or of all, also where a gc was killed in between."""
        for path in self._layout.tmp.glob(f"{digest.hex if digest else '*'}.aside.*"):
            if match := _ASIDE.fullmatch(path.name):
                # Young first: what is moved over a blob that was just written must not make it old.
                with suppress(OSError):
                    os.utime(path)
                    replace(path, self._layout.blobs / match[1])

    def is_aside(self, path: Path) -> bool:
        """True for what :meth:`put_aside` makes."""
        return _ASIDE.fullmatch(path.name) is not None

    def _twice(self, digest: Digest) -> Iterator[None]:
        """Two attempts; between them a blob comes back that a gc has just put aside."""
        yield
        self.take_back(digest)
        yield

    @contextmanager
    def _opened(self, digest: Digest) -> Iterator[BufferedReader]:
        with storage_errors("read blob"):
            for _ in self._twice(digest):
                with suppress(FileNotFoundError), open_regular(self.path(digest)) as file:
                    yield file
                    return
        raise NotFoundError(
            f"blob {digest} is not in the store {self._layout.root}",
            hint="pull the model again, or run 'wszoo verify' to see what else is missing",
        )
