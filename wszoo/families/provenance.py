"""What made an export: the versions of the libraries that had a part in it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def library_versions(packages: Iterable[str]) -> dict[str, str]:
    """For :attr:`wszoo.families.protocol.Export.provenance`: each package's version.

    Args:
        packages: as pip names them; one that has no metadata, because it is vendored or on the path, is ``unknown``.
    """
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
