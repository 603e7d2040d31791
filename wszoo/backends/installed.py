"""Optional libraries: which version is installed, and importing them with errors that say what to do."""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from wszoo.errors import IncompatibleError, MissingExtraError


def installed_version(*distributions: str) -> str:
    """The version of the first of these packages that is installed, without importing it; empty when none is."""
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


def load_module(module: str, *, extra: str, purpose: str) -> Any:  # noqa: ANN401 - modules without type information
    """Import an optional library.

    Args:
        module: dotted name.
        extra: the extra of wszoo that brings it.
        purpose: what needs it, as a clause.

    Raises:
        MissingExtraError: it is not installed.
        IncompatibleError: it is installed and fails to load (a system library is missing, say).
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise IncompatibleError(f"the Python package {module!r} is installed and misses {error.name!r}") from error
        raise MissingExtraError(module, extra, purpose) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise IncompatibleError(
            f"the Python package {module!r} is installed and cannot be loaded: {error}",
            hint=f'reinstall it with: pip install --force-reinstall "wszoo[{extra}]"',
        ) from error
