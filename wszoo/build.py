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
from wszoo.errors import BuildError, UsageError
from wszoo.families.protocol import ExportRequest
from wszoo.names import Ref, TargetSpec, is_portable_file_name
from wszoo.plans.spliced import read_base, splice
from wszoo.progress import Progress, Silent
from wszoo.publish import Published, publish, read_published, write_model, write_plan
from wszoo.schema import model as model_schema
from wszoo.schema.model import Component, ModelConfig
from wszoo.schema.plan import SPLICE, SPLICE_BASE, Kind, PlanConfig
from wszoo.store.built import recall, remember
from wszoo.store.files import storage_errors
from wszoo.store.models import known_models
from wszoo.version import __version__
from wszoo.weights.graph import scalars
from wszoo.weights.packs import Packer, known_tensors, weights_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from wszoo.backends.protocol import Backend
    from wszoo.families.protocol import Export, ExportedComponent, Family
    from wszoo.plugins import Registry
    from wszoo.schema.plan import Target
    from wszoo.store.documents import PlanDocument
    from wszoo.store.store import Store

GRAPH_LEVEL = 19  # graphs are small, and shipped to every client


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What ``wszoo build`` was asked for.

    Attributes:
        family: the plugin's name.
        source: file or folder.
        ref: the tag to publish under.
        targets: what to build for.
        profiles: as given with ``--profile``.
        precision: as given; empty for the source's own.
        options: the family's own options.
    """

    family: str
    source: Path
    ref: Ref
    targets: tuple[TargetSpec, ...]
    profiles: tuple[str, ...] = ()
    precision: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a build did.

    Attributes:
        ref: pinned to the index it published.
        built: plans that were built.
        kept: plans that were built before and still fit, also under other tags or by a build that was interrupted.
        new_weight_bytes: stored bytes that the model added to the store's packs.
    """

    ref: Ref
    built: tuple[PlanDocument, ...]
    kept: tuple[PlanDocument, ...]
    new_weight_bytes: int


def build(store: Store, registry: Registry, request: BuildRequest, progress: Progress | None = None) -> BuildReport:
    """Export a model, build its plans, and publish it under its tag.

    Nothing is visible under the tag before all of it is stored.

    Raises:
        UsageError: an unknown family, target, option or profile.
        MissingExtraError: a builder or exporter is not installed.
        BuildError: the export, the parser or the builder refused.
        StorageError: the file system refuses.
    """
    if request.ref.digest is not None:
        raise UsageError(f"a build cannot publish under a pinned name: {request.ref}", hint="leave the digest out")
    if not request.targets:
        raise UsageError("no target to build for", hint="name at least one: --target portable,rtx-sm89")
    family = registry.family(request.family)
    # Targets first: a missing builder should be known before an export that takes minutes.
    targets = [_resolve_target(registry, spec) for spec in dict.fromkeys(request.targets)]
    with store.lease(), _scratch(store) as scratch:
        run = _Run(store, request, targets, scratch, progress or Silent())
        return run.model(family)


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
        targets: Sequence[tuple[Backend, Target]],
        scratch: Path,
        progress: Progress,
    ) -> None:
        self._store = store
        self._request = request
        self._targets = targets
        self._scratch = scratch
        self._progress = progress
        self._before = read_published(store, request.ref)
        self._packer = Packer(store.blobs, known_tensors(known_models(store, last=request.ref)))
        self._built: list[PlanDocument] = []
        self._kept: list[PlanDocument] = []

    def model(self, family: Family) -> BuildReport:
        export = self._export(family)
        assets = self._assets(export)
        components = {}
        for exported in export.components:
            if exported.name in components:
                raise BuildError(f"the family {family.name} exported two components named {exported.name!r}")
            components[exported.name] = self._component(exported)
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
        )

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
                needs_profiles=any(backend.needs_profiles for backend, _ in self._targets),
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
        tensors = self._packer.add(graph.tensors, self._progress)
        stored = model_schema.Graph(
            digest=Digest.of(graph.proto),
            size=len(graph.proto),
            layer=self._store.blobs.put(zstd.compress(graph.proto, level=GRAPH_LEVEL)),
        )
        component = Component(graph=stored, inputs=graph.inputs, outputs=graph.outputs, tensors=tensors)
        for backend, target in self._targets:
            self._plan(exported, component, backend, target)
        return component

    def _plan(self, exported: ExportedComponent, component: Component, backend: Backend, target: Target) -> None:
        base = PlanConfig(
            component=exported.name,
            target=target,
            kind=backend.kind.value,
            profiles=exported.profiles if backend.needs_profiles else (),
            engine_digest=component.graph.digest,
            engine_bytes=component.graph.size + exported.graph.weight_bytes,
            graph=component.graph.digest,
            weights=weights_digest(component.tensors),
            provenance={"wszoo": __version__},
        )
        there = next((plan for plan in self._before.plans if _is_plan_for(plan.config, base)), None)
        there = there or recall(self._store, base)
        if there is not None:
            self._kept.append(there)
            return
        out = self._scratch / "engine.plan"
        backend.build(
            BuildJob(
                component=exported.name,
                graph=exported.graph,
                target=target,
                profiles=base.profiles,
                progress=self._progress,
            ),
            out,
        )
        plan = self._strip(exported, component, base, out)
        remember(self._store, base, plan)
        self._built.append(plan)
        out.unlink(missing_ok=True)

    def _strip(self, exported: ExportedComponent, component: Component, config: PlanConfig, plan: Path) -> PlanDocument:
        if config.kind == Kind.PORTABLE:
            return write_plan(self._store, config, [(model_schema.GRAPH, component.graph.layer)])
        sibling = self._sibling(config)
        parts = splice(
            plan,
            exported.graph.tensors,
            scales=scalars(exported.graph.proto),
            base=read_base(self._store, sibling.manifest) if sibling else None,
            progress=self._progress,
            label=f"{config.component} for {config.target.name}",
        )
        base = self._store.blobs.put(parts.base) if parts.base is not None else _base_layer(sibling)
        layers = [(SPLICE_BASE, base)] if base is not None else []
        layers.append((SPLICE, self._store.blobs.put(parts.layer)))
        found = msgspec.structs.replace(config, engine_digest=parts.engine_digest, engine_bytes=parts.engine_bytes)
        return write_plan(self._store, found, layers)

    def _sibling(self, config: PlanConfig) -> PlanDocument | None:
        """A splice plan of the same network whose base can serve; one with the same profiles before others."""
        fits = [
            plan
            for plan in (*self._built, *self._kept, *self._before.plans)
            if plan.config.component == config.component
            and plan.config.graph == config.graph
            and plan.config.target.backend == config.target.backend
            and _base_layer(plan) is not None
        ]
        return min(fits, key=lambda plan: plan.config.profiles != config.profiles, default=None)


def _base_layer(plan: PlanDocument | None) -> Digest | None:
    layers = plan.manifest.layers if plan else ()
    return next((layer.digest for layer in layers if layer.media_type == SPLICE_BASE), None)


def _is_same(before: Published, config: ModelConfig) -> bool:
    """True when a model differs from what is published at most in where its tensors stand."""
    if before.model is None:
        return False
    there = before.model.config
    return msgspec.structs.replace(config, packs=there.packs, frames=there.frames) == there


def _is_plan_for(there: PlanConfig, wanted: PlanConfig) -> bool:
    """True when a plan that is there is what building again would give."""
    engine = {"engine_digest": there.engine_digest, "engine_bytes": there.engine_bytes}
    return msgspec.structs.replace(wanted, **engine) == there
