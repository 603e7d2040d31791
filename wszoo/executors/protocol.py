"""What an executor is: somewhere that functions run, on nodes that say with labels what they can do.

Executors know nothing of plans. They get a function, one argument and what a node needs for it, and give a future back.
Functions are found by their module and name on the other side, and arguments and results are small: weights, graphs and
plans travel through stores and remotes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a node must have for a task.

    Attributes:
        labels: for each label the values that will do.
        gpu: it takes a whole GPU of the node.
        memory: bytes that the task is expected to take at its peak; 0 when it is little.
    """

    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gpu: bool = False
    memory: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One place where tasks run.

    Attributes:
        name: for people.
        labels: what it says of itself; see :mod:`wszoo.executors.labels`.
        memory: bytes that tasks may take there altogether.
        gpus: how many GPUs it gives to tasks.
    """

    name: str
    labels: Mapping[str, str]
    memory: int
    gpus: int = 0

    def serves(self, need: Need) -> bool:
        """True when a task could run here once nothing else does: labels, GPUs and memory."""
        fits = all(self.labels.get(name) in values for name, values in need.labels.items())
        return fits and self.gpus >= need.gpu and self.memory >= need.memory


class Lost(Exception):  # noqa: N818 - an event, which becomes the error of one task
    """The process or node that ran a task is gone.

    Args:
        message: what is known.
        log: the end of what it printed.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.log = log


class Crew(Protocol):
    """An executor that has been opened.

    Attributes:
        shares_store: its nodes open the driver's own store: nothing has to be sent.
    """

    shares_store: bool

    def nodes(self) -> Sequence[Node]:
        """Those that are there now."""
        ...

    def submit(self, function: Callable[[A], R], argument: A, need: Need) -> Future[R]:
        """Run a function on a node that serves; it waits until one is free.

        The future raises :class:`Lost` when process or node died, after what the executor does about that.
        """
        ...

    def cancel(self, future: Future[Any]) -> None:
        """Give a task up; its future ends as cancelled, or with whatever it was doing."""
        ...


class Executor(Protocol):
    """One way of running tasks.

    Attributes:
        name: what ``wszoo build --executor`` is given.
        summary: one line for people.
    """

    name: str
    summary: str

    def open(self, address: str, jobs: int | None) -> AbstractContextManager[Crew]:
        """Start, or connect; the end of the block stops what runs.

        Args:
            address: of a cluster; empty for what the executor finds by itself.
            jobs: tasks at once; None for as many as there is room for.

        Raises:
            UsageError: the address makes no sense, or nothing is there.
            MissingExtraError: a package is not installed.
            RemoteError: the cluster cannot be reached.
        """
        ...
