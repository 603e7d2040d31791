"""What verbs have in common: options, and the zoo that they open."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from wszoo.api import Zoo

P = ParamSpec("P")
R = TypeVar("R")

GPU_HELP = "auto, none, a compute capability as in sm89, or a product as in 'RTX 4090'."


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The options that every verb takes, and the zoo that they open.

    Attributes:
        store: the local store's folder; None for the default.
        as_json: print one JSON document on stdout.
        quiet: no progress.
        debug: tracebacks, and what libraries log.
    """

    store: str | None
    as_json: bool
    quiet: bool
    debug: bool

    def zoo(self) -> Zoo:
        """The zoo to work on, with progress on stderr unless a program is listening or nobody wants it."""
        from wszoo.api import Zoo
        from wszoo.cli.progress import Bars

        if self.debug:
            import logging

            logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")
        return Zoo(self.store, progress=None if self.quiet or self.as_json else Bars())


def common_options(function: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """``--store``, ``--json``, ``--quiet`` and ``--debug``, given to the verb as a :class:`Session`."""

    @wraps(function)
    def verb(*args: P.args, **kwargs: P.kwargs) -> R:
        common: dict[str, Any] = {name: kwargs.pop(name) for name in ("store", "as_json", "quiet", "debug")}
        return function(Session(**common), *args, **kwargs)

    for option in (
        click.option("--debug", is_flag=True, help="Show tracebacks and what libraries log."),
        click.option("--quiet", "-q", is_flag=True, help="No progress."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout."),
        click.option("--store", metavar="DIR", help="The local store; else WSZOO_STORE, else the user's data folder."),
    ):
        verb = option(verb)
    return verb


def gpu_option(function: Callable[P, R]) -> Callable[P, R]:
    """``--gpu``."""
    return click.option("--gpu", default="auto", show_default=True, metavar="GPU", help=GPU_HELP)(function)


def complete_refs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's
    """For shells: the store's models that begin like that; none where the store cannot be read."""
    from pathlib import Path

    from wszoo.errors import WszooError
    from wszoo.store.store import Store, default_root

    try:
        found, _ = Store(Path(ctx.params.get("store") or default_root())).refs.survey()
    except WszooError:
        return []
    names = [entry.ref.tagged.removesuffix(":latest") for entry in found if not entry.ref.is_referrers]
    return [name for name in names if name.startswith(incomplete)]


def keep_option(function: Callable[P, R]) -> Callable[P, R]:
    """``--keep``."""
    text = (
        "Of TensorRT plans: both (assembled, beside the weights), weights (read out of the store at each load), or "
        "engine (assembled; gc may delete the weights)."
    )
    choice = click.Choice(["both", "weights", "engine"])
    return click.option("--keep", type=choice, default="both", show_default=True, help=text)(function)


def avoid_option(function: Callable[P, R]) -> Callable[P, R]:
    """``--avoid``."""
    text = "A plan not to take, by digest or target; repeatable."
    return click.option("--avoid", multiple=True, metavar="PLAN", help=text)(function)


def pairs(values: tuple[str, ...], option: str) -> dict[str, str]:
    """``("a=1", "b=2")`` as a dictionary.

    Raises:
        UsageError: one has no ``=``.
    """
    from wszoo.errors import UsageError

    for value in values:
        if "=" not in value:
            raise UsageError(f"{option} takes KEY=VALUE, not {value!r}")
    return dict(value.split("=", 1) for value in values)
