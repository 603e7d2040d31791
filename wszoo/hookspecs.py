"""Everything that a plugin can provide, on one page.

A plugin is an installed package with an entry point in the group ``wszoo`` that names a module or object with some of
these functions, each marked with :data:`hookimpl`::

    # pyproject.toml
    [project.entry-points.wszoo]
    echo = "wszoo_echo"

    # wszoo_echo/__init__.py
    from wszoo.hookspecs import hookimpl

    @hookimpl
    def wszoo_families():
        return [EchoFamily()]

All hooks are called once, when the first of their kind is needed; all plugins' results are used. A plugin that fails to
import, or that misspells a hook, is reported by ``wszoo plugins`` and otherwise ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.backends.protocol import Backend
    from wszoo.executors.protocol import Executor
    from wszoo.families.protocol import Family
    from wszoo.remotes.protocol import RemoteType

NAMESPACE = "wszoo"

hookspec = pluggy.HookspecMarker(NAMESPACE)
hookimpl = pluggy.HookimplMarker(NAMESPACE)


@hookspec
def wszoo_families() -> Sequence[Family]:  # type: ignore[empty-body]
    """Kinds of models: what ``wszoo build FAMILY`` accepts."""


@hookspec
def wszoo_backends() -> Sequence[Backend]:  # type: ignore[empty-body]
    """Builders and runtimes: what stands before the first ``-`` of a target."""


@hookspec
def wszoo_remotes() -> Sequence[RemoteType]:  # type: ignore[empty-body]
    """Places that blobs come from: what stands before ``://`` in ``--from``."""


@hookspec
def wszoo_executors() -> Sequence[Executor]:  # type: ignore[empty-body]
    """Where builds run: what ``wszoo build --executor`` is given."""
