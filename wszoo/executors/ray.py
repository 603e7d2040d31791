"""A Ray cluster: nodes that were started with labels, Ray's scheduling, its retries when a node dies, its transfer.

Every node runs the same wszoo. A task selects nodes by ``label_selector``, and takes a GPU or none.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import sys
from concurrent.futures import Future
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, TypeVar

from wszoo.errors import MissingExtraError, RemoteError, UsageError
from wszoo.executors.protocol import Lost, Need, Node
from wszoo.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wszoo.executors.protocol import Crew, Executor

A = TypeVar("A")
R = TypeVar("R")

RETRIES = 2  # times that Ray starts a task again when its process or node died
CONNECT = 10.0  # seconds
_START = 'ray start --head --labels "$(wszoo ray-labels)"'


class RayCrew:
    """A connection to a cluster.

    Args:
        ray: the module, connected.
    """

    shares_store = False

    def __init__(self, ray: Any) -> None:  # noqa: ANN401 - imported late
        self._ray = ray
        self._references: dict[Future[Any], Any] = {}

    def nodes(self) -> Sequence[Node]:
        """Those that are alive."""
        return [_node(each) for each in self._ray.nodes() if each["Alive"]]

    def submit(self, function: Callable[[A], R], argument: A, need: Need) -> Future[R]:
        """See :class:`wszoo.executors.protocol.Crew`."""
        remote = self._ray.remote(function).options(
            num_cpus=1,
            num_gpus=1 if need.gpu else 0,
            memory=need.memory or None,
            max_retries=RETRIES,
            label_selector={name: f"in({','.join(values)})" for name, values in need.labels.items()},
            name=function.__name__,
        )
        reference = remote.remote(argument)
        future: Future[R] = Future()
        self._references[future] = reference
        reference.future().add_done_callback(functools.partial(self._settle, future))
        return future

    def cancel(self, future: Future[Any]) -> None:
        """Take a task back, also one that runs."""
        reference = self._references.pop(future, None)
        if future.cancel() and reference is not None:
            self._ray.cancel(reference, force=True)

    def _settle(self, future: Future[R], theirs: Future[R]) -> None:
        self._references.pop(future, None)
        if future.cancelled():
            return
        error = theirs.exception()
        if error is None:
            future.set_result(theirs.result())
        else:
            future.set_exception(_translated(self._ray, error))


def _translated(ray: Any, error: BaseException) -> BaseException:  # noqa: ANN401
    """Ray's errors as ours; what the function itself raised stays what it is."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return error.cause if isinstance(error.cause, BaseException) else error
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return Lost(f"{type(error).__name__}: {text} (Ray had started it {RETRIES + 1} times)")


def _node(facts: dict[str, Any]) -> Node:
    resources = facts["Resources"]
    return Node(
        name=f"{facts['NodeManagerHostname']}/{facts['NodeID'][:8]}",
        labels=dict(facts.get("Labels", {})),
        memory=int(resources.get("memory", 0)),
        gpus=int(resources.get("GPU", 0)),
    )


class RayExecutor:
    """Connects to a cluster that runs; starts none."""

    name = "ray"
    summary = "the nodes of a Ray cluster, chosen by their labels"

    @contextmanager
    def open(self, address: str, jobs: int | None) -> Iterator[Crew]:
        """See :class:`wszoo.executors.protocol.Executor`.

        Raises:
            UsageError: a number of jobs was given.
            MissingExtraError: Ray is not installed.
            RemoteError: no cluster answers.
        """
        if jobs is not None:
            raise UsageError(
                "Ray's nodes take as many builds at once as they have CPUs",
                hint="start them with 'ray start --num-cpus N'",
            )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise MissingExtraError("ray", "ray", "the executor 'ray'") from None
        where = address or os.environ.get("RAY_ADDRESS") or "auto"
        _check_listening(where)
        # Ray tells on stdout of nodes that died, whatever it is asked to log; stdout is for results.
        with redirect_stdout(sys.stderr):
            try:
                ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR, namespace="wszoo")
            except (ConnectionError, ValueError, RuntimeError, OSError) as error:
                raise _unanswered(where, str(error).strip().splitlines()[0]) from error
            try:
                yield RayCrew(ray)
            finally:
                ray.shutdown()


def _check_listening(address: str) -> None:
    """Raise when nobody listens: Ray itself tries again without end.

    Raises:
        RemoteError: nobody does.
    """
    host, separator, port = address.rpartition(":")
    if not separator or "/" in host or not port.isdecimal():
        return  # "auto", or a URL
    try:
        socket.create_connection((host, int(port)), CONNECT).close()
    except (OSError, OverflowError) as error:
        raise _unanswered(address, str(error)) from error


def _unanswered(address: str, reason: str) -> RemoteError:
    return RemoteError(f"no Ray cluster answers at {address!r}: {reason}", hint=f"start one: {_START}")


@hookimpl
def wszoo_executors() -> Sequence[Executor]:
    """The Ray executor; Ray itself is imported when it is opened."""
    return [RayExecutor()]
