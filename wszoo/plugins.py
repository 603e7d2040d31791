"""Finding plugins, one at a time, so that a broken one is reported and never fatal.

pluggy's own entry-point loader imports all of them unguarded and accepts misspelt hooks, so loading is done here.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import distributions, entry_points
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pluggy

from wszoo import hookspecs
from wszoo.errors import UsageError
from wszoo.text import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from importlib.metadata import EntryPoint

    from wszoo.backends.protocol import Backend
    from wszoo.executors.protocol import Executor
    from wszoo.families.protocol import Family
    from wszoo.remotes.protocol import RemoteType

BUILTIN = (
    "wszoo.backends.onnxruntime",
    "wszoo.backends.tensorrt_rtx",
    "wszoo.backends.tensorrt",
    "wszoo.families.onnx",
    "wszoo.remotes.directory",
    "wszoo.remotes.http",
    "wszoo.remotes.registry",
    "wszoo.remotes.buckets",
    "wszoo.remotes.hub",
    "wszoo.executors.inline",
    "wszoo.executors.local",
    "wszoo.executors.ray",
)


# What the protocols ask for, looked at when a plugin is loaded: better then than in the middle of a pull.
_FAMILY = ("name", "summary", "export", "demo")
_BACKEND = ("name", "prefix", "kind", "needs_profiles", "runtime", "target", "build", "load")
_REMOTE = ("name", "schemes", "open")
_EXECUTOR = ("name", "summary", "open")


class _Named(Protocol):
    name: str


_N = TypeVar("_N", bound=_Named)


@dataclass(frozen=True, slots=True)
class Plugin:
    """One plugin as it was found.

    Attributes:
        name: the entry point's name, or the module of a built-in.
        package: the distribution and its version; ``wszoo`` itself for built-ins.
        provides: such as ``family echo``.
        error: why it is not usable; empty when it is.
    """

    name: str
    package: str
    provides: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Registry:
    """What all plugins together provide, by name."""

    families: dict[str, Family]
    backends: dict[str, Backend]
    remotes: dict[str, RemoteType]
    plugins: tuple[Plugin, ...]
    executors: dict[str, Executor] = field(default_factory=dict)

    def family(self, name: str) -> Family:
        """Look up a family.

        Raises:
            UsageError: no plugin provides it; the hint lists those that exist and plugins that failed.
        """
        return _find("family", self.families, name, self.plugins)

    def backend(self, name: str) -> Backend:
        """Look up a backend by the name that plans' targets carry.

        Raises:
            UsageError: no plugin provides it.
        """
        return _find("backend", self.backends, name, self.plugins)

    def backend_for(self, prefix: str) -> Backend:
        """Look up a backend by the prefix that users type in targets.

        Raises:
            UsageError: no plugin provides it.
        """
        by_prefix = {backend.prefix: backend for backend in self.backends.values()}
        return _find("target prefix", by_prefix, prefix, self.plugins)

    def executor(self, name: str) -> Executor:
        """Look up an executor.

        Raises:
            UsageError: no plugin provides it.
        """
        return _find("executor", self.executors, name, self.plugins)


@cache
def registry() -> Registry:
    """Load every plugin, once a process."""
    found = Registry({}, {}, {}, ())
    plugins = [_load(found, name, "wszoo", lambda name=name: importlib.import_module(name)) for name in BUILTIN]
    entries, unreadable = _entries()
    for entry in sorted(entries, key=lambda entry: entry.name):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
        plugins.append(_load(found, entry.name, package, entry.load))
    return replace(found, plugins=(*plugins, *unreadable))


def _entries() -> tuple[list[EntryPoint], list[Plugin]]:
    """All entry points, and the packages whose ``entry_points.txt`` nobody can read."""
    try:
        return list(entry_points(group=hookspecs.NAMESPACE)), []
    except Exception:  # noqa: BLE001 - one malformed line in any installed package raises, a TypeError in Python 3.11
        found: dict[str, list[EntryPoint]] = {}
        unreadable = []
        for dist in distributions():
            name, version = (str(dist.metadata.get(key)) for key in ("Name", "Version"))
            try:
                found.setdefault(name, list(dist.entry_points.select(group=hookspecs.NAMESPACE)))
            except Exception as error:  # noqa: BLE001
                reason = f"its entry_points.txt is malformed: {error}"
                unreadable.append(Plugin(name, f"{name} {version}", error=reason))
        return [entry for entries in found.values() for entry in entries], unreadable


def _load(found: Registry, name: str, package: str, load: Any) -> Plugin:  # noqa: ANN401 - any callable
    manager = pluggy.PluginManager(hookspecs.NAMESPACE)  # one each, so that a broken plugin cannot break another
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(load())
        manager.check_pending()
        hooks = manager.hook
        families, backends, remotes, executors = (
            [thing for things in hook() for thing in things]
            for hook in (hooks.wszoo_families, hooks.wszoo_backends, hooks.wszoo_remotes, hooks.wszoo_executors)
        )
        provides = (
            *_names(found.families, families, "family", _FAMILY),
            *_names(found.backends, backends, "backend", _BACKEND),
            *_names(found.remotes, remotes, "remote", _REMOTE),
            *_names(found.executors, executors, "executor", _EXECUTOR),
        )
        _check_free("target prefix", [each.prefix for each in backends], [b.prefix for b in found.backends.values()])
        taken = [scheme for kind in found.remotes.values() for scheme in kind.schemes]
        _check_free("scheme", [scheme for kind in remotes for scheme in kind.schemes], taken)
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises must not take the tool down
        return Plugin(name, package, error=f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - sys.exit, and panics of extension modules
        return Plugin(name, package, error=f"it ended the program: {type(error).__name__}({str(error)!r})")
    found.families.update({thing.name: thing for thing in families})
    found.backends.update({thing.name: thing for thing in backends})
    found.remotes.update({thing.name: thing for thing in remotes})
    found.executors.update({thing.name: thing for thing in executors})
    return Plugin(name, package, provides)


def _names(table: dict[str, _N], things: Iterable[_N], what: str, needed: Sequence[str]) -> list[str]:
    names = []
    for thing in things:
        lacking = [name for name in needed if not hasattr(thing, name)]
        if lacking:
            raise UsageError(f"its {what} {type(thing).__name__} has no {', '.join(lacking)}")
        names.append(thing.name)
    _check_free(what, names, table)
    return [f"{what} {name}" for name in names]


def _check_free(what: str, wanted: Sequence[str], taken: Collection[str]) -> None:
    for name in wanted:
        if name in taken or wanted.count(name) > 1:
            raise UsageError(f"another plugin already provides the {what} {name!r}")


def broken_plugins(plugins: Sequence[Plugin]) -> str:
    """Which plugins failed to load, in words; empty when none did."""
    broken = [plugin.name for plugin in plugins if plugin.error]
    return f"these plugins failed to load, see 'wszoo plugins': {', '.join(broken)}" if broken else ""


def _find(what: str, table: dict[str, _N], name: str, plugins: tuple[Plugin, ...]) -> _N:
    if name in table:
        return table[name]
    hint = f"{nearest(name, table)} there is: {', '.join(sorted(table)) or 'none'}".lstrip()
    if broken := broken_plugins(plugins):
        hint += f"; {broken}"
    elif what == "family":
        hint += "; other families are plugins, such as wszoo-cnn: see docs/plugins.md"
    raise UsageError(f"no {what} named {name!r}", hint=hint)
