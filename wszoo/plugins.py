"""Finding plugins, one at a time, so that a broken one is reported and never fatal.

pluggy's own entry-point loader imports all of them unguarded and accepts misspelt hooks, so loading is done here.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from importlib.metadata import distributions, entry_points
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pluggy

from wszoo import hookspecs
from wszoo.errors import UsageError
from wszoo.text import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
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


class Registry:
    """What all plugins together provide, by name.

    Families may import a lot, such as NumPy and ONNX, and whoever pulls needs none of them: they are asked for when
    ``families`` or ``plugins`` is first read, all else when a plugin is added.

    Attributes:
        backends: by the name that plans' targets carry.
        remotes: by name.
        executors: by name.
    """

    def __init__(self) -> None:
        self.backends: dict[str, Backend] = {}
        self.remotes: dict[str, RemoteType] = {}
        self.executors: dict[str, Executor] = {}
        self._found: list[tuple[Plugin, Any]] = []

    @cached_property
    def families(self) -> dict[str, Family]:
        """The families of all plugins, by name."""
        return self._all[0]

    @cached_property
    def plugins(self) -> tuple[Plugin, ...]:
        """Every plugin that is installed, also those that are not usable."""
        return self._all[1]

    def add(self, name: str, package: str, load: Callable[[], object]) -> None:
        """Load a plugin; what it raises becomes its ``error``."""
        hooks: list[Any] = []
        plugin = _guarded(Plugin(name, package), lambda: self._connect(load(), hooks))
        self._found.append((plugin, hooks[0] if hooks and not plugin.error else None))

    def add_broken(self, plugin: Plugin) -> None:
        """Show a plugin that cannot be loaded."""
        self._found.append((plugin, None))

    def family(self, name: str) -> Family:
        """Look up a family.

        Raises:
            UsageError: no plugin provides it; the hint lists those that exist and plugins that failed.
        """
        return self._find("family", self.families, name)

    def backend(self, name: str) -> Backend:
        """Look up a backend by the name that plans' targets carry.

        Raises:
            UsageError: no plugin provides it.
        """
        return self._find("backend", self.backends, name)

    def backend_for(self, prefix: str) -> Backend:
        """Look up a backend by the prefix that users type in targets.

        Raises:
            UsageError: no plugin provides it.
        """
        return self._find("target prefix", {backend.prefix: backend for backend in self.backends.values()}, prefix)

    def executor(self, name: str) -> Executor:
        """Look up an executor.

        Raises:
            UsageError: no plugin provides it.
        """
        return self._find("executor", self.executors, name)

    @cached_property
    def _all(self) -> tuple[dict[str, Family], tuple[Plugin, ...]]:
        families: dict[str, Family] = {}
        plugins = [
            _guarded(plugin, partial(_families, families, hooks)) if hooks else plugin for plugin, hooks in self._found
        ]
        return families, tuple(plugins)

    def _connect(self, module: object, hooks: list[Any]) -> tuple[str, ...]:
        manager = pluggy.PluginManager(hookspecs.NAMESPACE)  # one each, so that a broken plugin cannot break another
        manager.add_hookspecs(hookspecs)
        manager.register(module)
        manager.check_pending()
        hooks.append(manager.hook)
        backends, remotes, executors = (
            _flat(hook())
            for hook in (manager.hook.wszoo_backends, manager.hook.wszoo_remotes, manager.hook.wszoo_executors)
        )
        provides = (
            *_names(self.backends, backends, "backend", _BACKEND),
            *_names(self.remotes, remotes, "remote", _REMOTE),
            *_names(self.executors, executors, "executor", _EXECUTOR),
        )
        _check_free("target prefix", [each.prefix for each in backends], [b.prefix for b in self.backends.values()])
        taken = [scheme for kind in self.remotes.values() for scheme in kind.schemes]
        _check_free("scheme", [scheme for kind in remotes for scheme in kind.schemes], taken)
        self.backends.update({thing.name: thing for thing in backends})
        self.remotes.update({thing.name: thing for thing in remotes})
        self.executors.update({thing.name: thing for thing in executors})
        return provides

    def _find(self, what: str, table: dict[str, _N], name: str) -> _N:
        if name in table:
            return table[name]
        hint = f"{nearest(name, table)} there is: {', '.join(sorted(table)) or 'none'}".lstrip()
        if broken := broken_plugins(self.plugins):
            hint += f"; {broken}"
        elif what == "family":
            hint += "; other families are plugins, such as wszoo-cnn: see docs/plugins.md"
        raise UsageError(f"no {what} named {name!r}", hint=hint)


@cache
def registry() -> Registry:
    """Load every plugin, once a process."""
    found = Registry()
    for name in BUILTIN:
        found.add(name, "wszoo", partial(importlib.import_module, name))
    entries, unreadable = _entries()
    for entry in sorted(entries, key=lambda entry: entry.name):
        found.add(entry.name, f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown", entry.load)
    for plugin in unreadable:
        found.add_broken(plugin)
    return found


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


def _guarded(plugin: Plugin, step: Callable[[], tuple[str, ...]]) -> Plugin:
    """The plugin with what a step of loading it found that it provides, or with its error."""
    try:
        return replace(plugin, provides=(*step(), *plugin.provides))
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises must not take the tool down
        return replace(plugin, provides=(), error=f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - sys.exit, and panics of extension modules
        return replace(plugin, provides=(), error=f"it ended the program: {type(error).__name__}({str(error)!r})")


def _families(table: dict[str, Family], hooks: Any) -> tuple[str, ...]:  # noqa: ANN401 - pluggy's, made at run time
    families = _flat(hooks.wszoo_families())
    provides = _names(table, families, "family", _FAMILY)
    table.update({thing.name: thing for thing in families})
    return tuple(provides)


def _flat(answers: Iterable[Iterable[Any]]) -> list[Any]:
    return [thing for things in answers for thing in things]


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
