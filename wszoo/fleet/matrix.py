"""The build plan: every component of every model times every target, and which of these have been built."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wszoo.building.cell import Cell, is_plan_for, memory_needed, wanted_plan
from wszoo.publish import read_published
from wszoo.schema.plan import Kind
from wszoo.store.built import recall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wszoo.executors.protocol import Need
    from wszoo.fleet.placing import Place
    from wszoo.names import Ref
    from wszoo.schema.plan import PlanConfig, Profile
    from wszoo.store.documents import ModelDocument, PlanDocument
    from wszoo.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One cell of the plan.

    Attributes:
        ref: what the model will be published as.
        cell: what to build.
        wanted: what it is remembered by.
        need: what a node must have.
        kind: how the backend's plans are stripped.
        plan: the plan, where it has been built before.
        relatives: plans that the ref has now of the same network, perhaps with other weights: they may lend bytes.
    """

    ref: Ref
    cell: Cell
    wanted: PlanConfig
    need: Need
    kind: Kind
    plan: PlanDocument | None = None
    relatives: tuple[PlanDocument, ...] = ()

    @property
    def siblings(self) -> tuple[str, str, str]:
        """What cells have in common whose plans share most of their bytes."""
        return str(self.cell.model.digest), self.cell.component, self.cell.target.backend


def plan_cells(
    store: Store,
    ref: Ref,
    model: ModelDocument,
    places: Sequence[Place],
    profiles: Mapping[str, Sequence[tuple[Profile, ...]]],
) -> list[Planned]:
    """Cross a model's components with the places, and look up what is there.

    Args:
        store: remembers builds.
        ref: what the model will be published as.
        model: its manifest, in the store.
        places: targets, in the order in which they are built.
        profiles: sets of optimization profiles by component; each makes a plan of its own.
    """
    published, found = read_published(store, ref).plans, []
    for name, component in model.config.components.items():
        for place in places:
            sets = profiles.get(name) or [()] if place.backend.needs_profiles else [()]
            for chosen in sets:
                wanted = wanted_plan(name, component, place.backend, place.target, chosen)
                cell = Cell(model=model.descriptor, component=name, target=place.target, profiles=wanted.profiles)
                there = next((plan for plan in published if is_plan_for(plan.config, wanted)), None)
                planned = Planned(
                    ref=ref,
                    cell=cell,
                    wanted=wanted,
                    need=replace(place.need, memory=memory_needed(component)),
                    kind=place.backend.kind,
                    plan=there or recall(store, wanted),
                    relatives=_relatives(published, wanted),
                )
                found.append(planned)
    return found


def _relatives(published: Sequence[PlanDocument], wanted: PlanConfig) -> tuple[PlanDocument, ...]:
    """At most two: the one for the same target, whose operations may restore the new plan too, and the first."""
    known = [
        plan
        for plan in published
        if (plan.config.component, plan.config.graph, plan.config.kind) == (wanted.component, wanted.graph, Kind.SPLICE)
    ]
    same = [plan for plan in known if plan.config.target.name == wanted.target.name]
    first = [plan for plan in known if plan not in same[:1]]
    return (*same[:1], *first[:1])
