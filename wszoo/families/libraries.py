"""Libraries that only some commands of a plugin need: imported late, and missed in wszoo's words."""

from __future__ import annotations

import importlib
from typing import Any

from wszoo.errors import MissingExtraError


def require(name: str, *, plugin: str, extra: str, purpose: str) -> Any:  # noqa: ANN401 - a module, often without types
    """Import a library.

    Args:
        name: of the module.
        plugin: the distribution whose extra installs it, such as ``wszoo-llm``.
        extra: of that plugin.
        purpose: what needs it, as in ``exporting this model``.

    Raises:
        MissingExtraError: it, or what it needs, is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        found = MissingExtraError(error.name or name, extra, purpose)
        found.hint = f'install it with: pip install "{plugin}[{extra}]"'
        raise found from error
