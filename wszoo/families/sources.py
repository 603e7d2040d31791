"""Reading what a user points at: options, and the small files that travel with a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.errors import LimitError, NotFoundError, StorageError, UsageError
from wszoo.names import is_portable_file_name

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

MAX_ASSET = 16 << 20
MAX_ASSETS = 64 << 20


def check_options(given: Mapping[str, str], known: Mapping[str, str]) -> None:
    """Refuse options that a family does not know.

    Args:
        given: the user's ``--option`` pairs.
        known: what each option is for, by name.

    Raises:
        UsageError: the first unknown one; the hint lists those that exist.
    """
    for name in sorted(given.keys() - known.keys()):
        listing = "; ".join(f"{key}: {purpose}" for key, purpose in known.items())
        raise UsageError(f"no option named {name!r}", hint=f"--option KEY=VALUE takes {listing or 'none here'}")


def read_assets(folder: Path) -> dict[str, bytes]:
    """Read the small files that travel with a model; nothing when the folder does not exist.

    Raises:
        UsageError: a folder or link inside, or a name that some file system cannot hold.
        LimitError: a file over 16 MiB, or over 64 MiB together.
        StorageError: a file cannot be read.
    """
    if not folder.is_dir():
        return {}
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    check_names([path.name for path in paths], "asset")
    assets: dict[str, bytes] = {}
    for path in paths:
        assets[path.name] = read_asset(path)
        if sum(map(len, assets.values())) > MAX_ASSETS:
            raise LimitError(f"the files in {folder} have more than {MAX_ASSETS} bytes together")
    return assets


def read_asset(path: Path) -> bytes:
    """Read one small file.

    Raises:
        NotFoundError: no such file.
        UsageError: not a regular file; a link counts only inside of the Hub's cache.
        LimitError: over 16 MiB.
        StorageError: it cannot be read.
    """
    if not path.exists():
        raise NotFoundError(f"no such file: {path}")
    if not path.is_file() or not _stays_inside(path):
        raise UsageError(f"{path} is not a regular file", hint="assets are plain files in one folder, without links")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ASSET + 1)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_ASSET:
        raise LimitError(f"{path} has more than {MAX_ASSET} bytes", hint="assets are small files; leave it out")
    return data


def _stays_inside(path: Path) -> bool:
    # A link in a folder from elsewhere could publish a private file under a harmless name. Only the Hub's cache, where
    # snapshots/REVISION/FILE links to blobs/HASH, is built of links.
    if not path.is_symlink():
        return True
    target = path.resolve()
    caches = [folder.parent / "blobs" for folder in path.absolute().parents if folder.name == "snapshots"]
    return any(target.parent == cache.resolve() for cache in caches)


def check_names(names: Collection[str], what: str) -> None:
    """Refuse names that some file system cannot hold, or that differ only in case.

    Args:
        names: file names or stems.
        what: what they name, in the singular.

    Raises:
        UsageError: the first such name.
    """
    seen: dict[str, str] = {}
    for name in names:
        if not is_portable_file_name(name):
            raise UsageError(
                f"the {what} {name!r} has a name that Windows cannot store", hint="rename it and build again"
            )
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise UsageError(f"{what}s {other!r} and {name!r} differ only in upper and lower case", hint="rename one")
