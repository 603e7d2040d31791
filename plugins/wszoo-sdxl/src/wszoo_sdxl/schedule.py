"""diffusers' schedulers, made again from the configuration that travels with a model. They compute with torch."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import msgspec

from wszoo.errors import MalformedError, UsageError
from wszoo_sdxl.layout import SCHEDULER
from wszoo_sdxl.libraries import require

if TYPE_CHECKING:
    from wszoo.families.protocol import PulledModel


def make_scheduler(model: PulledModel) -> Any:  # noqa: ANN401 - one of diffusers' classes
    """The model's scheduler.

    Raises:
        NotFoundError: the model has no configuration of one.
        MalformedError: it is not one of diffusers' schedulers.
        MissingExtraError: diffusers is not installed.
    """
    diffusers = require("diffusers", "run")
    try:
        config = msgspec.json.decode(model.asset(SCHEDULER), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedError(f"{SCHEDULER} is not a JSON object: {error}") from error
    name = str(config.get("_class_name"))
    kind: Any = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if not _is_scheduler(kind, diffusers.SchedulerMixin):
        raise MalformedError(f"{SCHEDULER} names {name!r}, which is not one of diffusers' schedulers")
    try:
        return kind.from_config(config)
    except Exception as error:  # whatever a wrong configuration makes the class raise
        raise MalformedError(f"{SCHEDULER} makes no {name}: {type(error).__name__}: {error}") from error


def set_steps(scheduler: Any, steps: int) -> None:  # noqa: ANN401
    """Prepare for a number of steps.

    Raises:
        UsageError: the scheduler refuses it.
    """
    try:
        scheduler.set_timesteps(steps)
    except (ValueError, RuntimeError, IndexError) as error:
        raise UsageError(f"the model's scheduler cannot do {steps} steps: {error}") from error


def takes_generator(scheduler: Any) -> bool:  # noqa: ANN401
    """True for schedulers that add noise at every step (Turbo's)."""
    return "generator" in inspect.signature(scheduler.step).parameters


def _is_scheduler(kind: object, base: type) -> bool:
    return inspect.isclass(kind) and issubclass(kind, base)
