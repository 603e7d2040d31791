"""Writing files so that a crash at any point leaves the old content or the new, on POSIX and Windows alike.

Correctness comes from ``os.replace`` and ``os.rename`` alone: no locks, no links, nothing that NTFS or a network file
system lacks.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import time
import uuid
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from wszoo.errors import MalformedError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader, FileIO
    from pathlib import Path

# A virus scanner or indexer on Windows may hold a fresh file open for some hundred milliseconds.
_REPLACE_WAITS = (0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)

_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h: start, and do not wait

SPARE = 64 << 20  # bytes that stay free on the disk

_HINTS = {
    errno.ENOSPC: "free some space, or use another store with --store or WSZOO_STORE",
    errno.EDQUOT: "free some of your quota, or use another store with --store or WSZOO_STORE",
    errno.EFBIG: "the file system does not take files of this size: use another store with --store or WSZOO_STORE",
    errno.EROFS: "the file system is read-only: use another store with --store or WSZOO_STORE",
    errno.EACCES: "check the permissions, or use another store with --store or WSZOO_STORE",
    errno.EPERM: "check the permissions, or use another store with --store or WSZOO_STORE",
}


@contextmanager
def storage_errors(what: str, place: Path | None = None) -> Iterator[None]:
    """Turn an ``OSError`` inside into a :class:`StorageError` that says what was being done.

    Args:
        what: was being done, in words that a file's name can follow.
        place: named where the error names no file, as when a disk is full.

    Raises:
        StorageError: with the file, the reason and what to do.
    """
    try:
        yield
    except OSError as error:
        named = error.filename or place
        name = f" {str(named)!r}" if named else ""
        raise StorageError(
            f"cannot {what}{name}: {error.strerror or error}", hint=_HINTS.get(error.errno or 0, "")
        ) from error


def check_room(folder: Path, wanted: int, purpose: str) -> None:
    """Raise unless ``wanted`` bytes fit on the disk of ``folder``, which need not exist yet.

    Raises:
        StorageError: they do not; better known before the first byte than at the last.
    """
    while not folder.exists() and folder != folder.parent:  # on Windows a drive may be missing
        folder = folder.parent
    with storage_errors("look at the disk of"):
        free = shutil.disk_usage(folder).free
    if wanted + SPARE > free:
        raise StorageError(
            f"{wanted} bytes are needed to {purpose}, and only {free} are free at {folder}",
            hint="free some space ('wszoo gc' deletes what no ref needs), or use another store with --store",
        )


def is_regular(path: Path) -> bool:
    """True for a file that is itself there: no link, folder, pipe or device.

    Raises:
        FileNotFoundError: nothing is there.
    """
    return stat.S_ISREG(path.lstat().st_mode)


def open_regular(path: Path) -> BufferedReader:
    """Open a file of a store for reading.

    A store may come from anywhere: a pipe in it would block whoever opens it, a device never ends, and what a link
    leads to is not the store's.

    Raises:
        MalformedError: it is no regular file.
        OSError: it is not there, or cannot be read.
    """
    if is_regular(path):
        file = path.open("rb") if os.name == "nt" else open(path, "rb", opener=_open_at_once)  # noqa: SIM115
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    raise MalformedError(
        f"{path} is a link, a folder or a device, where a store has a file",
        hint="run 'wszoo verify --quarantine', then pull or build the model again",
    )


def read_regular(path: Path, limit: int) -> bytes:
    """A small file's bytes, up to one more than ``limit``: who decodes them refuses that. Errors as there."""
    with open_regular(path) as file:
        return file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)  # read(limit) alone takes as much memory


def _open_at_once(path: str, flags: int) -> int:
    # It may have become a pipe or a link since it was looked at.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def delete(path: Path) -> None:
    """Delete what is there: a file, a link and not what it leads to, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def unique_name() -> str:
    """A file name that no other process, on this host or another, uses."""
    return f"{os.getpid()}-{uuid.uuid4().hex}"


def replace(source: Path, target: Path) -> None:
    """``os.replace``, tried again while another program holds the file on Windows."""
    for wait in _REPLACE_WAITS:
        try:
            os.replace(source, target)
        except PermissionError:
            if os.name != "nt":
                raise
            time.sleep(wait)
        else:
            return
    os.replace(source, target)


def create_new(path: Path, data: bytes) -> bool:
    """Make a file; False when there is one. Tried again while Windows is deleting the last one of that name."""
    for wait in (*_REPLACE_WAITS, None):
        try:
            file = path.open("xb", buffering=0)
            break
        except FileExistsError:
            return False
        except PermissionError:
            if os.name != "nt" or wait is None:
                raise
            time.sleep(wait)
    try:
        with file:
            file.write(data)
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise
    return True


def rename_new(source: Path, target: Path) -> bool:
    """Rename a folder to a name that must be free; False when it is taken. Tried again while Windows holds a file."""
    for wait in (*_REPLACE_WAITS, None):
        try:
            os.rename(source, target)
        except OSError as error:
            if target.exists():
                return False
            if os.name != "nt" or wait is None or not isinstance(error, PermissionError):
                raise
            time.sleep(wait)
        else:
            return True
    return False


def place(temporary: Path, path: Path) -> None:
    """Rename a finished file to a name that says what is in it, durably."""
    rename_finished(temporary, path)
    sync_folder(path.parent)


def rename_finished(temporary: Path, path: Path) -> None:
    """What :func:`place` does, durable when the folder has been synced."""
    try:
        replace(temporary, path)
    except FileNotFoundError:
        # A network file system may repeat a rename whose answer was lost, and then not find what it has renamed.
        if not path.exists() or temporary.exists():
            raise
    except PermissionError:
        # Windows does not replace a file that someone has mapped: then another process was first with it.
        if not path.exists() or path.stat().st_size != temporary.stat().st_size:
            raise


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def begin_sync(file: FileIO, at: int, length: int) -> None:
    """Have the disk begin with a part of a file that was just written, so that syncing the file takes less time.

    Only Linux can be asked to; the others begin when they are told to sync.
    """
    if (ask := _sync_file_range()) is not None:
        ask(file.fileno(), at, length, _SYNC_FILE_RANGE_WRITE)  # in vain where the file system cannot: it is a hint


@cache
def _sync_file_range() -> Any:  # noqa: ANN401 - a function of the C library
    """Linux's system call, which Python has no name for; None elsewhere."""
    if sys.platform != "linux":
        return None
    import ctypes

    found = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if found is not None:
        found.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return found


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable; Windows offers no way to, and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that lack, durably: else a power failure takes all that was stored in it."""
    made = [each for each in (folder, *folder.absolute().parents) if not each.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in made:
        sync_folder(each.absolute().parent)


def write_atomic(path: Path, data: bytes, scratch: Path) -> None:
    """Replace ``path`` by ``data``, durably.

    Args:
        path: the file; its folder exists.
        data: the new content.
        scratch: an existing folder on the same file system for the temporary file.
    """
    temporary = scratch / unique_name()
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            replace(temporary, path)
        except FileNotFoundError:  # see place(); here the target may have been there before
            if temporary.exists() or path.read_bytes() != data:
                raise
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
