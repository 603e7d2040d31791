"""wszoo keeps every weight once and one small plan per GPU, and puts them together where they run.

>>> import wszoo
>>> zoo = wszoo.Zoo()
>>> model = zoo.pull("digits-cnn", gpu="auto", source="store/")
>>> digits = model["model"].load()
>>> scores = digits(images=images)["scores"]

Importing this package loads none of the heavy libraries; they come with the first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.version import __version__

if TYPE_CHECKING:
    from wszoo.api import Zoo
    from wszoo.errors import WszooError
    from wszoo.lock.app import LockedModels, open_lock
    from wszoo.model import Model

__all__ = ["LockedModels", "Model", "WszooError", "Zoo", "__version__", "open_lock"]


_HOMES = {
    "LockedModels": "wszoo.lock.app",
    "Model": "wszoo.model",
    "WszooError": "wszoo.errors",
    "Zoo": "wszoo.api",
    "open_lock": "wszoo.lock.app",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'wszoo' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
