"""Libraries that only publishers, or only the demo, of a plugin need: imported late, and missed in wszoo's words."""

from __future__ import annotations

import importlib
from typing import Any

from wszoo.errors import MissingExtraError

PURPOSES = {"export": "exporting this model", "run": "running this model"}


def require(name: str, extra: str = "export", *, plugin: str) -> Any:  # noqa: ANN401 - a module, often without types
    """Import a library.

    Args:
        name: of the module.
        extra: of the plugin, which installs it: one of :data:`PURPOSES`.
        plugin: the distribution that has this extra, such as ``wszoo-llm``.

    Raises:
        MissingExtraError: it, or what it needs, is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        found = MissingExtraError(error.name or name, extra, PURPOSES[extra])
        found.hint = f'install it with: pip install "{plugin}[{extra}]"'
        raise found from error
