"""How cells reach nodes and plans come back: through the driver's own store, or through a remote that all can reach."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wszoo.building.cell import is_plan_for
from wszoo.distribution.push import send
from wszoo.errors import IntegrityError, NotFoundError, UsageError
from wszoo.fleet.work import Order, Outcome, build_away, build_here, build_with
from wszoo.schema.decode import MAX_MANIFEST, decode
from wszoo.schema.oci import Manifest
from wszoo.store.built import remember
from wszoo.store.documents import read_plan
from wszoo.transfer import RemoteDocuments, fetch, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wszoo.fleet.matrix import Planned
    from wszoo.progress import Progress
    from wszoo.remotes.protocol import WritableRemote
    from wszoo.schema.oci import Descriptor
    from wszoo.store.documents import ModelDocument, PlanDocument
    from wszoo.store.store import Store


class Here:
    """Nodes that open the driver's store.

    Args:
        store: that one.
        progress: where builders report, if they run in this process; None when they do not.
    """

    def __init__(self, store: Store, progress: Progress | None = None) -> None:
        self._store = store
        self.work: Callable[[Order], Outcome] = partial(build_with, progress) if progress is not None else build_here

    def stage(self, models: Iterable[ModelDocument], cells: Iterable[Planned]) -> None:
        """Nothing has to be sent."""

    def order(self, planned: Planned) -> Order:
        """What a node is given."""
        return Order(cell=planned.cell, ref=planned.ref.tagged, store=str(self._store.layout.root.absolute()))

    def land(self, planned: Planned, outcome: Outcome) -> PlanDocument:
        """The plan, which is in the store and remembered."""
        return _checked(planned, read_plan(self._store, _plan_of(outcome)))


class There:
    """Nodes that have stores of their own, and a remote in between.

    Args:
        store: the driver's.
        remote: where blobs go through; its URL has to mean the same on every node.
        progress: where to report.
    """

    work: Callable[[Order], Outcome] = staticmethod(build_away)

    def __init__(self, store: Store, remote: WritableRemote, progress: Progress) -> None:
        self._store = store
        self._remote = remote
        self._progress = progress

    def stage(self, models: Iterable[ModelDocument], cells: Iterable[Planned]) -> None:
        """Put weights, graphs and the plans that lend into the remote, without a tag.

        Raises:
            UsageError: the remote shows blobs only when they are tagged.
            RemoteError: it cannot be reached, is full, or refuses.
        """
        cells = list(cells)
        for model in models:
            mine = [planned for planned in cells if planned.cell.model.digest == model.descriptor.digest]
            if all(planned.plan is not None for planned in mine):
                continue
            wanted = list(model.blobs)
            there = [plan for planned in mine for plan in (planned.plan, *planned.relatives) if plan is not None]
            wanted += [each for plan in there for each in plan.blobs]
            send(self._store, self._remote, mine[0].ref, wanted, self._progress)
            self._check_readable(model.descriptor)

    def order(self, planned: Planned) -> Order:
        """What a node is given."""
        url = self._remote.url
        place = url if "://" in url else str(Path(url).absolute())
        return Order(cell=planned.cell, ref=planned.ref.tagged, remote=place)

    def land(self, planned: Planned, outcome: Outcome) -> PlanDocument:
        """Fetch the plan, which is small, check that it is what was ordered, and remember it.

        Raises:
            IntegrityError: it is not.
            RemoteError: the remote failed.
        """
        descriptor = _plan_of(outcome)
        self._get([descriptor])
        data = self._store.read(descriptor, limit=MAX_MANIFEST)
        manifest = decode(data, Manifest, what=f"manifest {descriptor.digest}")
        self._get([manifest.config, *manifest.layers])
        plan = _checked(planned, read_plan(self._store, descriptor))
        remember(self._store, planned.wanted, plan)
        return plan

    def _get(self, wanted: list[Descriptor]) -> None:
        lacking = missing(self._store, wanted)
        fetch(self._remote, self._store, lacking, self._progress, "fetch plans", whole=True)

    def _check_readable(self, descriptor: Descriptor) -> None:
        try:
            RemoteDocuments(self._remote).read(descriptor, limit=MAX_MANIFEST)
        except NotFoundError as error:
            raise UsageError(
                f"{self._remote.url} shows blobs only when they are tagged, so nodes cannot fetch weights from there",
                hint="build through a folder, a registry or a bucket, and push to the Hub afterwards",
            ) from error


def _plan_of(outcome: Outcome) -> Descriptor:
    assert outcome.plan is not None
    return outcome.plan


def _checked(planned: Planned, plan: PlanDocument) -> PlanDocument:
    if not is_plan_for(plan.config, planned.wanted):
        raise IntegrityError(
            f"the node sent another plan than {planned.cell} that was ordered: {plan.descriptor.digest}",
            hint="do all nodes run the same version of wszoo?",
        )
    return plan
