"""The simplest executor: this process, one task after the other. A crash of a builder is the end of it."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from wszoo.errors import UsageError
from wszoo.executors.memory import available
from wszoo.executors.protocol import Need, Node
from wszoo.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wszoo.executors.protocol import Crew, Executor

A = TypeVar("A")
R = TypeVar("R")


class InlineCrew:
    """This process."""

    shares_store = True

    def nodes(self) -> Sequence[Node]:
        """One, without labels."""
        return [Node(name="this process", labels={}, memory=available())]

    def submit(self, function: Callable[[A], R], argument: A, need: Need) -> Future[R]:  # noqa: ARG002 - nothing to choose
        """Run the task now; the future is done when this returns. An interrupt is not kept for later."""
        future: Future[R] = Future()
        try:
            future.set_result(function(argument))
        except Exception as error:  # noqa: BLE001 - it is raised again where it was asked for
            future.set_exception(error)
        return future

    def cancel(self, future: Future[Any]) -> None:
        """Too late: it is done."""


class InlineExecutor:
    """Opens an :class:`InlineCrew`."""

    name = "inline"
    summary = "this process, one build after the other"

    @contextmanager
    def open(self, address: str, jobs: int | None) -> Iterator[Crew]:
        """See :class:`wszoo.executors.protocol.Executor`.

        Raises:
            UsageError: an address or a number of jobs was given.
        """
        if address or jobs not in {None, 1}:
            raise UsageError("the executor 'inline' builds one plan after the other, here", hint="leave --jobs out")
        yield InlineCrew()


@hookimpl
def wszoo_executors() -> Sequence[Executor]:
    """The inline executor."""
    return [InlineExecutor()]
