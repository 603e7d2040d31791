"""What only publishers (``export``) or only the demo (``run``) need."""

from __future__ import annotations

from typing import Any

from wszoo.families import libraries

_PURPOSE = {"export": "exporting this model", "run": "running this model"}


def require(name: str, extra: str = "export") -> Any:  # noqa: ANN401 - a module, of libraries with few types
    """Import a library of one of this plugin's extras.

    Raises:
        MissingExtraError: it is not installed.
    """
    return libraries.require(name, plugin="wszoo-llm", extra=extra, purpose=_PURPOSE[extra])
