"""Handing models to other runtimes: each format a module, written whole or not at all."""

from wszoo.export.choose import Wanted, by_target, choose, chosen_from, everything_here
from wszoo.export.formats import FORMATS, Exported, export
from wszoo.export.job import Options

__all__ = [
    "FORMATS",
    "Exported",
    "Options",
    "Wanted",
    "by_target",
    "choose",
    "chosen_from",
    "everything_here",
    "export",
]
