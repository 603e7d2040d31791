"""Splice: a plan as literals and copies out of views of the weights, restored to the very bytes.

What is here reads programs; who makes them imports :mod:`wszoo.plans.splice.encode`, which a client never loads.
"""

from __future__ import annotations

from wszoo.plans.splice.apply import apply, restore
from wszoo.plans.splice.container import pack, pack_base, unpack, unpack_base
from wszoo.plans.splice.program import Program
from wszoo.plans.splice.views import Recipe, View

__all__ = ["Program", "Recipe", "View", "apply", "pack", "pack_base", "restore", "unpack", "unpack_base"]
