"""Building: a family's export, its weights into packs, a plan for every target, each stripped, then published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wszoo.building.cell import is_plan_for, make_plan, scratch_folder, wanted_plan
from wszoo.building.earlier import (
    changes,
    check_complete,
    check_network,
    is_current,
    left_out,
    read_earlier,
    reason_against,
    refitted,
    resolve_targets,
)
from wszoo.building.prepare import ModelWriter, export_model
from wszoo.building.request import BuildRequest
from wszoo.errors import BuildError, UsageError
from wszoo.progress import Progress, Silent
from wszoo.publish import publish
from wszoo.store.built import recall

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from wszoo.backends.protocol import Backend
    from wszoo.building.earlier import Earlier, PlanChange
    from wszoo.families.protocol import ExportedComponent, Family
    from wszoo.names import Ref, TargetSpec
    from wszoo.plugins import Registry
    from wszoo.schema.model import Component
    from wszoo.schema.plan import PlanConfig, Profile, Target
    from wszoo.store.documents import PlanDocument
    from wszoo.store.store import Store

__all__ = ["BuildReport", "BuildRequest", "build"]

_TURING = "7.5"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build did.

    Attributes:
        ref: pinned to the index it published.
        built: plans that were built.
        kept: plans that were built before and still fit, also under other tags or by a build that was interrupted.
        new_weight_bytes: stored bytes that the model added to the store's packs.
        changes: with ``weights_of``: what became of each plan of the earlier version.
    """

    ref: Ref
    built: tuple[PlanDocument, ...]
    kept: tuple[PlanDocument, ...]
    new_weight_bytes: int
    changes: tuple[PlanChange, ...] = ()


def build(store: Store, registry: Registry, request: BuildRequest, progress: Progress | None = None) -> BuildReport:
    """Export a model, build its plans, and publish it under its tag.

    Nothing is visible under the tag before all of it is stored.

    Raises:
        UsageError: an unknown family, target, option or profile.
        MissingExtraError: a builder or exporter is not installed.
        NotFoundError: ``weights_of`` is not in the store.
        BuildError: the export, the parser or the builder refused; or more than weights changed since ``weights_of``.
        StorageError: the file system refuses.
    """
    if request.ref.digest is not None:
        raise UsageError(f"a build cannot publish under a pinned name: {request.ref}", hint="leave the digest out")
    family = registry.family(request.family)
    # Targets first: a missing builder should be known before an export that takes minutes.
    matrix = _matrix(store, registry, request)
    with store.lease(), scratch_folder(store) as scratch:
        run = _Run(store, request, matrix, scratch, progress or Silent())
        return run.model(family)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Matrix:
    """What to build for.

    Attributes:
        specs: all targets of the model, also those that are not built now.
        here: those that are, by name and in this order.
        missing: for targets that this machine cannot build: why not.
        earlier: the version that is followed; None when there is none.
    """

    specs: tuple[TargetSpec, ...]
    here: Mapping[str, tuple[Backend, Target]]
    missing: Mapping[str, str] = field(default_factory=dict)
    earlier: Earlier | None = None

    @property
    def needs_profiles(self) -> bool:
        """True when profiles have to come from the family."""
        return self.earlier is None and any(backend.needs_profiles for backend, _ in self.here.values())


def _matrix(store: Store, registry: Registry, request: BuildRequest) -> _Matrix:
    if request.weights_of is None:
        if not request.targets:
            raise UsageError("no target to build for", hint="name at least one: --target portable,rtx-sm89")
        # The first plan is the base of the others, and Turing's differs from them most: first, it costs each 12 kB.
        specs = sorted(dict.fromkeys(request.targets), key=lambda spec: _TURING in spec.compute_capabilities)
        return _Matrix(specs=tuple(specs), here={str(spec): _resolve_target(registry, spec) for spec in specs})
    if request.profiles:
        raise UsageError(
            f"new weights keep the profiles of {request.weights_of}", hint="leave --profile or --weights-only out"
        )
    earlier = read_earlier(store, request.weights_of)
    here, missing = resolve_targets(registry, earlier.targets(request.targets))
    return _Matrix(specs=earlier.targets(()), here=here, missing=missing, earlier=earlier)


def _resolve_target(registry: Registry, spec: TargetSpec) -> tuple[Backend, Target]:
    backend = registry.backend_for(spec.prefix)
    return backend, backend.target(spec)


class _Run:
    """One build: the state that its steps share."""

    def __init__(
        self,
        store: Store,
        request: BuildRequest,
        matrix: _Matrix,
        scratch: Path,
        progress: Progress,
    ) -> None:
        self._store = store
        self._request = request
        self._matrix = matrix
        self._scratch = scratch
        self._progress = progress
        self._writer = ModelWriter(store, request.ref, request.family, progress)
        self._built: list[PlanDocument] = []
        self._kept: list[PlanDocument] = []
        self._left_out: list[PlanChange] = []

    def model(self, family: Family) -> BuildReport:
        export = export_model(
            family,
            self._request,
            self._matrix.specs,
            needs_profiles=self._matrix.needs_profiles,
            scratch=self._scratch,
            progress=self._progress,
        )
        assets = self._writer.assets(export)
        for exported in export.components:
            self._component(exported)
        if self._matrix.earlier is not None:
            check_complete(self._matrix.earlier, self._writer.components)
            self._require_plans(self._matrix.earlier)
        model = self._writer.model(export, assets, licence=self._request.licence)
        descriptor = publish(self._store, self._request.ref, model, [*self._kept, *self._built])
        return BuildReport(
            ref=self._request.ref.pinned(descriptor.digest),
            built=tuple(self._built),
            kept=tuple(self._kept),
            new_weight_bytes=self._writer.new_bytes,
            changes=self._changes(),
        )

    def _require_plans(self, earlier: Earlier) -> None:
        if not self._kept and not self._built:
            raise BuildError(
                f"no plan of {earlier.ref.tagged} can be built here: "
                + "; ".join(dict.fromkeys(f"{each.target}: {each.why}" for each in self._left_out)),
                hint="install what builds them, or build without --weights-only",
            )

    def _changes(self) -> tuple[PlanChange, ...]:
        earlier = self._matrix.earlier
        if earlier is None:
            return ()
        return (*changes(earlier, self._built, self._kept), *self._left_out, *earlier.absent)

    def _component(self, exported: ExportedComponent) -> None:
        if self._matrix.earlier is not None:
            check_network(self._store, self._matrix.earlier, exported.name, exported.graph)
        component = self._writer.component(exported.name, exported.graph)
        if self._matrix.earlier is not None:
            self._follow(self._matrix.earlier, exported, component)
        else:
            for backend, target in self._matrix.here.values():
                self._plan(exported, component, backend, target, exported.profiles)

    def _follow(self, earlier: Earlier, exported: ExportedComponent, component: Component) -> None:
        for plan in earlier.of(exported.name):
            name = plan.config.target.name
            if is_current(plan.config, component):
                self._kept.append(plan)
            elif not reason_against(self._store, plan, component):
                self._kept.append(refitted(self._store, plan, component))
            elif name in self._matrix.here:
                self._plan(exported, component, *self._matrix.here[name], plan.config.profiles)
            else:
                self._left_out.append(left_out(plan, self._matrix.missing.get(name, "it was not asked for")))

    def _plan(
        self,
        exported: ExportedComponent,
        component: Component,
        backend: Backend,
        target: Target,
        profiles: tuple[Profile, ...],
    ) -> None:
        wanted = wanted_plan(exported.name, component, backend, target, profiles)
        there = next((plan for plan in self._writer.before.plans if is_plan_for(plan.config, wanted)), None)
        there = there or recall(self._store, wanted)
        if there is not None:
            self._kept.append(there)
            return
        plan = make_plan(
            self._store,
            backend,
            exported.graph,
            wanted,
            component.graph,
            known=self._known(wanted),
            scratch=self._scratch,
            progress=self._progress,
        )
        self._built.append(plan)

    def _known(self, wanted: PlanConfig) -> list[PlanDocument]:
        """Plans of the same network that are here already."""
        known = [
            each
            for each in (*self._built, *self._kept, *self._writer.before.plans)
            if each.config.component == wanted.component and each.config.graph == wanted.graph
        ]
        # Of the earlier version too, whose graph may differ in the small constants that stand in it.
        return known + (self._matrix.earlier.of(wanted.component) if self._matrix.earlier is not None else [])
