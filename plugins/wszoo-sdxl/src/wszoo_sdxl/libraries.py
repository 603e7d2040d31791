"""Libraries that only publishers, or only the demo, need: imported late, and missed in wszoo's words."""

from __future__ import annotations

import importlib
from typing import Any

from wszoo.errors import MissingExtraError


def require(name: str, extra: str) -> Any:  # noqa: ANN401 - a module, of libraries with few types
    """Import a library.

    Args:
        name: of the module.
        extra: of this plugin, which installs it: ``export`` or ``run``.

    Raises:
        MissingExtraError: it, or what it needs, is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        purpose = "exporting this model" if extra == "export" else "running this model"
        found = MissingExtraError(error.name or name, extra, purpose)
        found.hint = f'install it with: pip install "wszoo-sdxl[{extra}]"'
        raise found from error
