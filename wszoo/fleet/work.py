"""What runs on the nodes: functions of one small argument, found there by name.

Nothing is raised to the driver: errors come back as facts, with the end of the log, since an exception that cannot be
pickled would hide what it says.
"""

from __future__ import annotations

import functools
import logging
import os
import platform
import time
import traceback
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wszoo import errors
from wszoo.building.cell import Cell, build_cell
from wszoo.distribution.push import send
from wszoo.errors import BuildError, NotFoundError, WszooError
from wszoo.names import Ref, TargetSpec
from wszoo.places import open_for_push
from wszoo.plugins import registry
from wszoo.progress import Silent
from wszoo.remotes.protocol import WritableRemote, expect
from wszoo.store.documents import read_model, read_plan
from wszoo.store.store import Store, default_root
from wszoo.transfer import fetch, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wszoo.progress import Progress
    from wszoo.schema.oci import Descriptor
    from wszoo.schema.plan import Target
    from wszoo.store.documents import ModelDocument, PlanDocument

_LINES = 1000  # of a log that are kept
_LINE = 2000  # characters of a line that are kept
_KINDS: dict[str, type[WszooError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, WszooError) and kind not in {WszooError, errors.MissingExtraError}
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A cell to build.

    Attributes:
        cell: what.
        ref: ``name:tag`` that it is for, for remotes that keep blobs by model.
        store: the driver's store, for nodes that share it.
        remote: where blobs come from and go to, for nodes that do not.
    """

    cell: Cell
    ref: str
    store: str = ""
    remote: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An error of :mod:`wszoo.errors`, taken apart.

    Attributes:
        kind: the class.
        message: what happened.
        hint: what to do.
    """

    kind: str
    message: str
    hint: str = ""

    def error(self) -> WszooError:
        """The error again; what cannot be made from a message is a :class:`BuildError`."""
        return _KINDS.get(self.kind, BuildError)(self.message, hint=self.hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an order.

    Attributes:
        plan: descriptor of the plan's manifest; None when it failed.
        problem: why; None when it did not.
        log: the end of what builders and libraries said.
        seconds: how long it took on the node.
        where: the node's name.
    """

    plan: Descriptor | None = None
    problem: Problem | None = None
    log: str = ""
    seconds: float = 0.0
    where: str = ""


def build_here(order: Order) -> Outcome:
    """Build in the driver's own store."""
    return build_with(Silent(), order)


def build_with(progress: Progress, order: Order) -> Outcome:
    """The same, with somebody who watches: for the driver's own process."""
    return _reported(lambda: build_cell(Store(Path(order.store)), registry(), order.cell, progress))


def build_away(order: Order) -> Outcome:
    """Fetch what is needed from the remote into this node's store, build, and put the plan into the remote."""
    return _reported(lambda: _build_away(order))


def complete_target(spec: str) -> Target | Problem:
    """A target as this node's builder completes it: version, product, system."""
    parsed = TargetSpec.parse(spec)
    try:
        return registry().backend_for(parsed.prefix).target(parsed)
    except WszooError as error:
        return problem_of(error)


def _build_away(order: Order) -> PlanDocument:
    store, remote, ref, cell = Store(default_root()), _remote(order.remote), Ref.parse(order.ref), order.cell
    expect(remote, ref)
    label = f"fetch {cell}"

    def get(wanted: Sequence[Descriptor]) -> None:
        fetch(remote, store, missing(store, wanted), Silent(), label, whole=True)

    with store.lease():
        get([cell.model, *cell.known])
        get(_documents(store, cell))
        model = read_model(store, cell.model)
        plans = [read_plan(store, each) for each in cell.known]
        get([*_weights(model, cell.component), *(layer for plan in plans for layer in plan.manifest.layers)])
        plan = build_cell(store, registry(), cell, Silent())
        *blobs, manifest = (*plan.manifest.layers, plan.manifest.config, plan.descriptor)
        send(store, remote, ref, [*blobs, manifest], Silent())
    return plan


def _documents(store: Store, cell: Cell) -> list[Descriptor]:
    """The configs that the manifests name, which are in the store."""
    from wszoo.schema.decode import MAX_MANIFEST, decode
    from wszoo.schema.oci import Manifest

    manifests = [cell.model, *cell.known]
    read = (
        decode(store.read(each, limit=MAX_MANIFEST), Manifest, what=f"manifest {each.digest}") for each in manifests
    )
    return [manifest.config for manifest in read]


def _weights(model: ModelDocument, name: str) -> list[Descriptor]:
    """The layers with a component's graph and weights."""
    component = model.config.components.get(name)
    if component is None:
        raise NotFoundError(f"the model {model.descriptor.digest} has no component {name!r}")
    frames = (frame for info in component.tensors for frame in model.config.frames[info.digest])
    wanted = {component.graph.layer, *(model.config.packs[frame.pack] for frame in frames)}
    return [layer for layer in model.manifest.layers if layer.digest in wanted]


@functools.cache
def _remote(url: str) -> WritableRemote:
    # One for the process's life: a folder's keeps gc away from what was put there and is not tagged yet.
    return open_for_push(url)


def problem_of(error: WszooError) -> Problem:
    """An error taken apart."""
    return Problem(kind=type(error).__name__, message=error.message, hint=error.hint)


def _reported(build: Callable[[], PlanDocument]) -> Outcome:
    started, where = time.monotonic(), f"{platform.node()}, process {os.getpid()}"
    with _log() as lines:
        try:
            plan, problem = build().descriptor, None
        except WszooError as error:
            plan, problem = None, problem_of(error)
        except Exception as error:  # noqa: BLE001 - a defect on the node must not take the driver down
            lines.extend(traceback.format_exception(error))
            hint = "this is a defect in wszoo or in a plugin: its traceback is in the log"
            plan, problem = None, Problem(kind="WszooError", message=f"{type(error).__name__}: {error}", hint=hint)
    took = time.monotonic() - started
    return Outcome(plan=plan, problem=problem, log="\n".join(lines), seconds=took, where=where)


@contextmanager
def _log() -> Iterator[deque[str]]:
    """The last lines of what is logged meanwhile."""
    lines: deque[str] = deque(maxlen=_LINES)
    handler, logger = _Keeper(lines), logging.getLogger("wszoo")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Keeper(logging.Handler):
    def __init__(self, lines: deque[str]) -> None:
        super().__init__(logging.INFO)
        self._lines = lines
        self.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record)[:_LINE])
