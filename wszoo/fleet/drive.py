"""Driving a crew through the cells that are left to build: what is done is kept at once, what failed stops nobody else.

Plans of one network for several targets have most of their bytes in common. So the first of them is built alone, and
then lends those bytes to all others at once.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from wszoo.errors import WszooError
from wszoo.executors.labels import seen
from wszoo.executors.protocol import Lost
from wszoo.fleet.work import Order, Outcome, Problem, problem_of
from wszoo.schema.plan import Kind
from wszoo.text import human

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wszoo.executors.protocol import Crew, Need
    from wszoo.fleet.matrix import Planned
    from wszoo.progress import Progress
    from wszoo.store.documents import PlanDocument

TICK = 2.0  # seconds between looks at which nodes are left
PATIENCE = (
    60.0  # seconds without any node that serves a cell, after which it is given up: nodes come back, and new ones
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One cell, done.

    Attributes:
        planned: which.
        plan: None when it failed.
        problem: why; None when it did not.
        log: the end of the builder's.
        seconds: on the node.
        where: the node.
    """

    planned: Planned
    plan: PlanDocument | None = None
    problem: Problem | None = None
    log: str = ""
    seconds: float = 0.0
    where: str = ""


@dataclass(slots=True)
class _Group:
    """Cells whose plans share bytes, and those that can lend them."""

    waiting: deque[Planned] = field(default_factory=deque)
    known: list[PlanDocument] = field(default_factory=list)
    leading: bool = False


class Driver:
    """Runs cells on a crew.

    Args:
        crew: runs them.
        work: the function that builds an :class:`wszoo.fleet.work.Order`.
        order: makes one of a cell.
        land: brings the plan of an outcome into the driver's store and remembers it; may raise a :class:`WszooError`.
        progress: counts cells.
    """

    def __init__(
        self,
        crew: Crew,
        work: Callable[[Order], Outcome],
        order: Callable[[Planned], Order],
        land: Callable[[Planned, Outcome], PlanDocument],
        progress: Progress,
    ) -> None:
        self._crew = crew
        self._work = work
        self._order = order
        self._land = land
        self._progress = progress
        self._running: dict[Future[Outcome], Planned] = {}
        self._groups: dict[tuple[str, str, str], _Group] = {}
        self._alone_since: dict[Future[Outcome], float] = {}

    def run(self, todo: Sequence[Planned], known: Iterable[Planned], done: Callable[[Result], None]) -> None:
        """Build all of them.

        Args:
            todo: cells without a plan.
            known: cells that have one, which may lend.
            done: is told of each as soon as it is done, built or failed.
        """
        self._sort(todo, known)
        with self._progress.stage("build plans", len(todo), "plans") as advance:
            for group in self._groups.values():
                self._release(group)
            while self._running:
                finished, _ = wait(self._running, timeout=TICK, return_when=FIRST_COMPLETED)
                finished |= self._abandoned()
                for future in finished:
                    done(self._settled(future))
                    advance(1)

    def _sort(self, todo: Sequence[Planned], known: Iterable[Planned]) -> None:
        for planned in todo:
            self._groups.setdefault(planned.siblings, _Group()).waiting.append(planned)
        for planned in known:
            if planned.plan is not None and planned.siblings in self._groups:
                self._groups[planned.siblings].known.append(planned.plan)

    def _release(self, group: _Group) -> None:
        """Start what may start: everything, once there is a plan that lends, else the first alone."""
        while group.waiting and not group.leading:
            planned = group.waiting.popleft()
            lenders = [plan for plan in group.known if plan.config.kind == Kind.SPLICE][:1] + list(planned.relatives)
            group.leading = planned.kind == Kind.SPLICE and not lenders
            cell = msgspec.structs.replace(planned.cell, known=tuple(plan.descriptor for plan in lenders))
            self._running[self._submitted(replace(planned, cell=cell))] = planned

    def _submitted(self, planned: Planned) -> Future[Outcome]:
        largest = self._largest(planned.need)
        if largest is None:
            return self._crew.submit(self._work, self._order(planned), planned.need)
        refused: Future[Outcome] = Future()  # a cluster would wait for ever
        wanted = human(planned.need.memory)
        refused.set_exception(
            Lost(f"{planned.cell} takes about {wanted}, and no node has over {human(largest)} for it")
        )
        return refused

    def _largest(self, need: Need) -> int | None:
        """What nodes have at most for a task, if that is too little; None when there is room, or no node at all."""
        bare = replace(need, memory=0)
        rooms = [node.memory for node in self._crew.nodes() if node.serves(bare)]
        if self._crew.shares_store or not rooms or max(rooms) >= need.memory:  # this machine builds it alone
            return None
        return max(rooms)

    def _settled(self, future: Future[Outcome]) -> Result:
        planned = self._running.pop(future)
        self._alone_since.pop(future, None)
        group = self._groups[planned.siblings]
        group.leading = False
        result = self._result(planned, future)
        if result.plan is not None:
            group.known.append(result.plan)
        self._release(group)
        return result

    def _result(self, planned: Planned, future: Future[Outcome]) -> Result:
        try:
            outcome = future.result()
        except CancelledError:
            return Result(planned=planned, problem=Problem(kind="IncompatibleError", message=self._nobody(planned)))
        except Lost as error:
            return Result(planned=planned, problem=Problem(kind="BuildError", message=error.message), log=error.log)
        except Exception as error:  # noqa: BLE001 - of the executor, a plugin perhaps: one cell, and not all of them
            problem = Problem(kind="BuildError", message=f"{type(error).__name__}: {error}")
            return Result(planned=planned, problem=problem)
        result = Result(
            planned=planned,
            problem=outcome.problem,
            log=outcome.log,
            seconds=outcome.seconds,
            where=outcome.where,
        )
        if outcome.problem is not None:
            return result
        try:
            return replace(result, plan=self._land(planned, outcome))
        except WszooError as error:
            return replace(result, problem=problem_of(error))

    def _abandoned(self) -> set[Future[Outcome]]:
        """Cells that no node has been able to serve for a while: cancelled, so that nobody waits forever."""
        if self._crew.shares_store:  # this machine does not go away
            return set()
        nodes, now, gone = self._crew.nodes(), time.monotonic(), set()
        for future, planned in self._running.items():
            if any(node.serves(planned.need) for node in nodes):
                self._alone_since.pop(future, None)
            elif now - self._alone_since.setdefault(future, now) > PATIENCE:
                gone.add(future)
        for future in gone:
            self._crew.cancel(future)
        return gone

    def _nobody(self, planned: Planned) -> str:
        nodes = self._crew.nodes()
        return f"the last node that could build {planned.cell} is gone; there is: {seen(nodes)}"
