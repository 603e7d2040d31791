"""Building: a family's export, its weights into packs, a plan for every target, each stripped, then published."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from wszoo.backends.protocol import BuildJob
from wszoo.codecs import zstd
from wszoo.digest import Digest
from wszoo.earlier import (
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
from wszoo.errors import BuildError, UsageError
from wszoo.families.protocol import ExportRequest
from wszoo.names import Ref, TargetSpec, is_portable_file_name
from wszoo.progress import Progress, Silent
from wszoo.publish import Published, publish, read_published, write_model, write_plan
from wszoo.schema import model as model_schema
from wszoo.schema.model import Component, ModelConfig
from wszoo.schema.plan import Kind, PlanConfig
from wszoo.store.built import recall, remember
from wszoo.store.files import storage_errors
from wszoo.store.models import known_models
from wszoo.strip import keep_native, strip
from wszoo.version import __version__
from wszoo.weights.packs import Packer, known_tensors, weights_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from wszoo.backends.protocol import Backend
    from wszoo.earlier import Earlier, PlanChange
    from wszoo.families.protocol import Export, ExportedComponent, Family
    from wszoo.plugins import Registry
    from wszoo.schema.plan import Profile, Target
    from wszoo.store.documents import PlanDocument
    from wszoo.store.store import Store

_TURING = "7.5"
GRAPH_LEVEL = 19  # graphs are small, and shipped to every client


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What ``wszoo build`` was asked for.

    Attributes:
        family: the plugin's name.
        source: file or folder.
        ref: the tag to publish under.
        targets: what to build for; may be empty, for all that there are, with ``weights_of``.
        profiles: as given with ``--profile``.
        precision: as given; empty for the source's own.
        options: the family's own options.
        weights_of: only weights changed since this version, whose targets and profiles are followed; None for a build
            that decides for itself.
    """

    family: str
    source: Path
    ref: Ref
    targets: tuple[TargetSpec, ...]
    profiles: tuple[str, ...] = ()
    precision: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    weights_of: Ref | None = None


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
    with store.lease(), _scratch(store) as scratch:
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


@contextmanager
def _scratch(store: Store) -> Iterator[Path]:
    """A folder in the store, where plans of gigabytes have room; cleaned up as far as Windows lets mapped files go."""
    with storage_errors("make a folder for the build in"):
        folder = tempfile.TemporaryDirectory(dir=store.layout.tmp, prefix="build-", ignore_cleanup_errors=True)
    with folder as name:
        yield Path(name)


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
        self._before = read_published(store, request.ref)
        self._packer = Packer(store.blobs, known_tensors(known_models(store, last=request.ref)))
        self._built: list[PlanDocument] = []
        self._kept: list[PlanDocument] = []
        self._left_out: list[PlanChange] = []

    def model(self, family: Family) -> BuildReport:
        export = self._export(family)
        assets = self._assets(export)
        components = self._components(family, export)
        table = self._packer.table()
        config = ModelConfig(
            family=family.name,
            components=components,
            packs=table.packs,
            frames=table.frames,
            assets=assets,
            licence=export.licence,
            options=dict(export.options),
            provenance={"wszoo": __version__, **export.provenance},
        )
        model = self._before.model if _is_same(self._before, config) else None
        model = model or write_model(self._store, config)
        descriptor = publish(self._store, self._request.ref, model, [*self._kept, *self._built])
        return BuildReport(
            ref=self._request.ref.pinned(descriptor.digest),
            built=tuple(self._built),
            kept=tuple(self._kept),
            new_weight_bytes=self._packer.new_bytes,
            changes=self._changes(),
        )

    def _components(self, family: Family, export: Export) -> dict[str, Component]:
        found: dict[str, Component] = {}
        for exported in export.components:
            if exported.name in found:
                raise BuildError(f"the family {family.name} exported two components named {exported.name!r}")
            found[exported.name] = self._component(exported)
        if self._matrix.earlier is not None:
            check_complete(self._matrix.earlier, found)
            self._require_plans(self._matrix.earlier)
        return found

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

    def _export(self, family: Family) -> Export:
        scratch = self._scratch / "export"
        with storage_errors("make a folder for the export in"):
            scratch.mkdir()
        request = self._request
        return family.export(
            ExportRequest(
                source=request.source,
                precision=request.precision,
                profiles=request.profiles,
                needs_profiles=self._matrix.needs_profiles,
                targets=self._matrix.specs,
                options=request.options,
                scratch=scratch,
                progress=self._progress,
            )
        )

    def _assets(self, export: Export) -> dict[str, Digest]:
        for name in export.assets:
            if not is_portable_file_name(name):
                raise BuildError(f"the asset name {name!r} cannot be a file name on every system", hint="rename it")
        return {name: self._store.blobs.put(data) for name, data in sorted(export.assets.items())}

    def _component(self, exported: ExportedComponent) -> Component:
        graph = exported.graph
        if self._matrix.earlier is not None:
            check_network(self._store, self._matrix.earlier, exported.name, graph)
        tensors = self._packer.add(graph.tensors, self._progress)
        stored = model_schema.Graph(
            digest=Digest.of(graph.proto),
            size=len(graph.proto),
            layer=self._store.blobs.put(zstd.compress(graph.proto, level=GRAPH_LEVEL)),
        )
        component = Component(graph=stored, inputs=graph.inputs, outputs=graph.outputs, tensors=tensors)
        if self._matrix.earlier is not None:
            self._follow(self._matrix.earlier, exported, component)
        else:
            for backend, target in self._matrix.here.values():
                self._plan(exported, component, backend, target, exported.profiles)
        return component

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
        wanted = PlanConfig(
            component=exported.name,
            target=target,
            kind=backend.kind.value,
            profiles=profiles if backend.needs_profiles else (),
            engine_digest=component.graph.digest,
            engine_bytes=component.graph.size + exported.graph.weight_bytes,
            graph=component.graph.digest,
            weights=weights_digest(component.tensors),
            provenance={"wszoo": __version__},
        )
        there = next((plan for plan in self._before.plans if _is_plan_for(plan.config, wanted)), None)
        there = there or recall(self._store, wanted)
        if there is not None:
            self._kept.append(there)
            return
        plan = self._made(exported, component, backend, wanted)
        remember(self._store, wanted, plan)
        self._built.append(plan)

    def _made(
        self, exported: ExportedComponent, component: Component, backend: Backend, wanted: PlanConfig
    ) -> PlanDocument:
        out = self._scratch / "engine.plan"
        job = BuildJob(
            component=exported.name,
            graph=exported.graph,
            target=wanted.target,
            profiles=wanted.profiles,
            progress=self._progress,
            cache=self._store.layout.timing,
        )
        stripped = backend.build(job, out)
        if stripped is not None:
            plan = keep_native(self._store, wanted, out, stripped, exported.graph)
        else:
            whole = Kind.SPLICE.value if wanted.kind == Kind.NATIVE else wanted.kind
            plan = self._strip(exported, component, msgspec.structs.replace(wanted, kind=whole), out)
        out.unlink(missing_ok=True)
        return plan

    def _strip(self, exported: ExportedComponent, component: Component, config: PlanConfig, plan: Path) -> PlanDocument:
        if config.kind == Kind.PORTABLE:
            return write_plan(self._store, config, [(model_schema.GRAPH, component.graph.layer)])
        known = [
            each
            for each in (*self._built, *self._kept, *self._before.plans)
            if each.config.component == config.component and each.config.graph == config.graph
        ]
        # Of the earlier version too, whose graph may differ in the small constants that stand in it.
        known += self._matrix.earlier.of(config.component) if self._matrix.earlier is not None else []
        return strip(self._store, exported.graph, config, plan, known=known, progress=self._progress)


def _is_same(before: Published, config: ModelConfig) -> bool:
    """True when a model differs from what is published at most in where its tensors stand."""
    if before.model is None:
        return False
    there = before.model.config
    return msgspec.structs.replace(config, packs=there.packs, frames=there.frames) == there


def _is_plan_for(there: PlanConfig, wanted: PlanConfig) -> bool:
    """True when a plan that is there is what building again would give."""
    # How a plan could be stripped is known only when it was built.
    engine = {"engine_digest": there.engine_digest, "engine_bytes": there.engine_bytes, "kind": there.kind}
    return msgspec.structs.replace(wanted, **engine) == there
