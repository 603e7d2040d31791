"""Publishing what a matrix has built: complete models under their tags, here and at the remote."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec.structs import replace

from wszoo.errors import WszooError
from wszoo.fleet.report import CellReport, Ending, ModelReport, State
from wszoo.publish import publish
from wszoo.store.built import build_key
from wszoo.store.failures import failure_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from wszoo.fleet.append import Shared
    from wszoo.fleet.drive import Result
    from wszoo.fleet.matrix import Planned
    from wszoo.fleet.placing import Unserved
    from wszoo.names import Ref
    from wszoo.remotes.protocol import WritableRemote
    from wszoo.store.documents import ModelDocument, PlanDocument
    from wszoo.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a matrix is built.

    Attributes:
        executor: where.
        address: of its cluster; empty for what it finds by itself.
        jobs: builds at once; None for what there is room for.
        remote: where models are published as well, and where nodes find weights; None for the store alone.
        allow_unsigned: take over what others published there also if nothing vouches for it.
        keep_going: publish what was built although something failed.
        dry_run: say what would be built, and build nothing.
        sign: signs what a ref points to; None for no signature.
        single: there is one model, whose error is raised; of many, it is reported.
    """

    executor: str = "local"
    address: str = ""
    jobs: int | None = None
    remote: WritableRemote | None = None
    allow_unsigned: bool = False
    keep_going: bool = False
    dry_run: bool = False
    sign: Callable[[Ref], None] | None = None
    single: bool = True


@dataclass(slots=True)
class Model:
    """A model on its way.

    Attributes:
        ref: what it will be published as.
        document: its manifest, once it is in the store.
        planned: its cells.
        unserved: targets without a node.
        results: of the cells that were driven.
        new_bytes: that it added to the store's packs.
        error: why it failed as a whole.
    """

    ref: Ref
    document: ModelDocument | None = None
    planned: list[Planned] = field(default_factory=list)
    unserved: list[Unserved] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    new_bytes: int = 0
    error: WszooError | None = None

    @property
    def plans(self) -> list[PlanDocument]:
        """Those that there are, built before or now."""
        before = [planned.plan for planned in self.planned if planned.plan is not None]
        return [*before, *(result.plan for result in self.results if result.plan is not None)]


class Publisher:
    """Ends models.

    Args:
        store: where their tags are.
        settings: how.
        shared: the remote that they are published at as well; None for none.
    """

    def __init__(self, store: Store, settings: Settings, shared: Shared | None) -> None:
        self._store = store
        self._settings = settings
        self._shared = shared

    def finish(self, model: Model) -> ModelReport:
        """Publish a model if it is complete, and say what became of it."""
        cells = self._cells(model)
        if model.error is not None or model.document is None:
            return self._failed(model, cells, model.error)
        if self._settings.dry_run:
            return self._ended(model, Ending.PLANNED, cells)
        plans = model.plans
        lacking = len(model.planned) > len(plans) or model.unserved
        if (lacking and not self._settings.keep_going) or not plans:
            return self._ended(model, Ending.INCOMPLETE, cells)
        try:
            return self._published(model, model.document, plans, cells)
        except WszooError as error:  # others can still be published
            if self._settings.single:
                raise
            return self._failed(model, cells, error)

    def _published(
        self, model: Model, document: ModelDocument, plans: list[PlanDocument], cells: tuple[CellReport, ...]
    ) -> ModelReport:
        ref, before = model.ref, self._store.refs.find(model.ref)
        publish(self._store, ref, document, plans)
        sent = 0
        if self._shared is not None:
            sent = self._shared.push(ref, self._settings.sign).sent_bytes
        elif self._settings.sign is not None:
            self._settings.sign(ref)
        now = self._store.refs.get(ref)
        same = before is not None and before.descriptor.digest == now.descriptor.digest
        return ModelReport(
            ref=str(ref.pinned(now.descriptor.digest)),
            state=Ending.UNCHANGED if same else Ending.PUBLISHED,
            cells=cells,
            new_weight_bytes=model.new_bytes,
            sent_bytes=sent,
        )

    def _cells(self, model: Model) -> tuple[CellReport, ...]:
        results = {build_key(result.planned.wanted): result for result in model.results}
        found = [self._cell(planned, results.get(build_key(planned.wanted))) for planned in model.planned]
        lost = [
            CellReport(component="*", target=each.target, state=State.NO_NODE, error=each.why)
            for each in model.unserved
        ]
        return (*found, *lost)

    def _cell(self, planned: Planned, result: Result | None) -> CellReport:
        cell, plan = planned.cell, planned.plan
        report = CellReport(
            component=cell.component,
            target=cell.target.name,
            sku=cell.target.sku,
            profiles=tuple(profile.name for profile in cell.profiles),
            state=State.TO_BUILD if plan is None else State.KEPT,
            key=str(build_key(planned.wanted)),
            plan=str(plan.descriptor.digest) if plan is not None else "",
        )
        return report if result is None else self._done(report, result)

    def _done(self, report: CellReport, result: Result) -> CellReport:
        done = replace(report, where=result.where, seconds=round(result.seconds, 3))
        if result.plan is not None:
            return replace(done, state=State.BUILT, plan=str(result.plan.descriptor.digest))
        assert result.problem is not None
        return replace(
            done,
            state=State.FAILED,
            error=result.problem.message,
            kind=result.problem.kind,
            hint=result.problem.hint,
            log=str(failure_path(self._store, result.planned.wanted)),
        )

    @staticmethod
    def _ended(model: Model, state: Ending, cells: tuple[CellReport, ...]) -> ModelReport:
        return ModelReport(ref=model.ref.tagged, state=state, cells=cells, new_weight_bytes=model.new_bytes)

    @staticmethod
    def _failed(model: Model, cells: tuple[CellReport, ...], error: WszooError | None) -> ModelReport:
        return ModelReport(
            ref=model.ref.tagged,
            state=Ending.FAILED,
            cells=cells,
            new_weight_bytes=model.new_bytes,
            error=error.message if error else "",
            hint=error.hint if error else "",
        )
