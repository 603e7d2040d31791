"""Building a matrix: place the targets, export the models, build what is missing, publish what is complete."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wszoo.building.cell import scratch_folder
from wszoo.building.prepare import ModelWriter, export_model
from wszoo.errors import IncompatibleError, UsageError, WszooError
from wszoo.executors.inline import InlineCrew
from wszoo.fleet.append import Shared
from wszoo.fleet.drive import Driver
from wszoo.fleet.land import Here, There
from wszoo.fleet.matrix import plan_cells
from wszoo.fleet.placing import Place, Unserved, place
from wszoo.fleet.publishing import Model, Publisher, Settings
from wszoo.fleet.report import MatrixReport
from wszoo.store.built import build_key
from wszoo.store.failures import Failure, forget_failure, keep_failure
from wszoo.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wszoo.building.request import BuildRequest
    from wszoo.digest import Digest
    from wszoo.executors.protocol import Crew
    from wszoo.fleet.drive import Result
    from wszoo.fleet.matrix import Planned
    from wszoo.names import Ref, TargetSpec
    from wszoo.plugins import Registry
    from wszoo.progress import Progress
    from wszoo.schema.plan import Profile
    from wszoo.store.store import Store

_TURING = "7.5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A model to build.

    Attributes:
        ref: what to publish it as.
        targets: what to build for.
        request: fetches the source and gives the request; may take a download.
    """

    ref: Ref
    targets: tuple[TargetSpec, ...]
    request: Callable[[], BuildRequest]


class Matrix:
    """One run over any number of models.

    Args:
        store: the driver's.
        registry: all plugins.
        settings: how.
        crew: the opened executor.
        progress: where to report.
    """

    def __init__(self, store: Store, registry: Registry, settings: Settings, crew: Crew, progress: Progress) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings
        self._crew = crew
        self._progress = progress
        self._shared = shared_of(store, settings, progress)

    def build(self, jobs: Sequence[Job]) -> MatrixReport:
        """Export, build and publish; see :func:`build_matrix`."""
        self._check_reachable()
        places = self._places(jobs)
        models = [self._prepared(job, found) for job, found in zip(jobs, places, strict=True)]
        return self.finish(models)

    def finish(self, models: Sequence[Model]) -> MatrixReport:
        """Build the cells that have no plan, and publish the models that are complete."""
        if not self._settings.dry_run:
            self._drive(models)
        publisher = Publisher(self._store, self._settings, self._shared)
        return MatrixReport(models=tuple(publisher.finish(model) for model in models))

    def _places(self, jobs: Sequence[Job]) -> list[tuple[list[Place], list[Unserved]]]:
        """Targets first: what is missing should be known before an export that takes minutes."""
        asked = {spec: place(self._crew, self._registry, spec) for spec in _ordered(jobs)}
        unserved = [answer for answer in asked.values() if isinstance(answer, Unserved)]
        if unserved and not (self._settings.keep_going or self._settings.dry_run):
            raise IncompatibleError(
                "; ".join(each.why for each in unserved),
                hint='start such nodes with --labels "$(wszoo ray-labels)", leave the targets out, or --keep-going',
            )
        return [_sorted_out([asked[spec] for spec in _ordered([job])]) for job in jobs]

    def _prepared(self, job: Job, found: tuple[list[Place], list[Unserved]]) -> Model:
        places, unserved = found
        model = Model(job.ref, unserved=unserved)
        try:
            if self._shared is not None:
                self._shared.adopt(job.ref)
            self._export(model, job, places)
        except WszooError as error:  # of one model of many
            if self._settings.single:
                raise
            model.error = error
        return model

    def _export(self, model: Model, job: Job, places: Sequence[Place]) -> None:
        request = job.request()
        family = self._registry.family(request.family)
        writer = ModelWriter(self._store, job.ref, family.name, self._progress)
        needs_profiles = any(each.backend.needs_profiles for each in places)
        profiles: dict[str, list[tuple[Profile, ...]]] = {}
        with scratch_folder(self._store) as scratch:
            export = export_model(
                family,
                request,
                job.targets,
                needs_profiles=needs_profiles,
                scratch=scratch,
                progress=self._progress,
            )
            assets = writer.assets(export)
            for exported in export.components:
                writer.component(exported.name, exported.graph)
                profiles[exported.name] = [exported.profiles]
            model.document = writer.model(export, assets, licence=request.licence)
        if self._shared is not None:
            self._shared.check_same(job.ref, model.document)
        model.new_bytes = writer.new_bytes
        model.planned = plan_cells(self._store, job.ref, model.document, places, profiles)

    def _drive(self, models: Sequence[Model]) -> None:
        cells = [planned for model in models if model.error is None for planned in model.planned]
        todo = [planned for planned in cells if planned.plan is None]
        if not todo:
            return
        # A single plan needs no process of its own, which would take a second to start.
        crew = InlineCrew() if self._crew.shares_store and len(todo) == 1 else self._crew
        site = self._site(crew)
        site.stage([model.document for model in models if model.document is not None], cells)
        by_ref, same = {model.ref: model for model in models}, _by_key(todo)

        def done(result: Result) -> None:
            _note(self._store, result)
            for planned in same[build_key(result.planned.wanted)]:
                by_ref[planned.ref].results.append(replace(result, planned=planned))

        driver = Driver(crew, site.work, site.order, site.land, self._progress)
        driver.run([first for first, *_ in same.values()], cells, done)

    def _check_reachable(self) -> None:
        if not self._crew.shares_store and self._settings.remote is None:
            raise UsageError(
                f"the executor {self._settings.executor!r} needs a remote that all nodes can reach",
                hint="name it with --to: a folder that they share, oci://HOST/PATH or s3://BUCKET/PATH",
            )

    def _site(self, crew: Crew) -> Here | There:
        if isinstance(crew, InlineCrew):
            return Here(self._store, self._progress)
        if crew.shares_store:
            return Here(self._store)
        assert self._settings.remote is not None
        return There(self._store, self._settings.remote, self._progress)


def build_matrix(
    store: Store, registry: Registry, jobs: Sequence[Job], settings: Settings, progress: Progress
) -> MatrixReport:
    """Build and publish models.

    Args:
        store: the driver's; remembers every plan as soon as it is built, so that a run that was killed goes on there.
        registry: all plugins.
        jobs: the models.
        settings: how.
        progress: where to report.

    Returns:
        What became of every cell. A model is published when all of its cells have a plan; with
        :attr:`Settings.keep_going` when some have.

    Raises:
        UsageError: an unknown family, executor or target; two models of one name.
        IncompatibleError: no node can build a target.
        RemoteError: the cluster cannot be reached, or the remote is full before anything is built.
    """
    if len({job.ref for job in jobs}) < len(jobs):
        raise UsageError("two models have the same name and tag", hint="give each its own")
    executor = registry.executor(settings.executor)
    with store.lease(), executor.open(settings.address, settings.jobs) as crew:
        return Matrix(store, registry, settings, crew, progress).build(jobs)


def _ordered(jobs: Sequence[Job]) -> list[TargetSpec]:
    """The targets of jobs, each once."""
    specs = dict.fromkeys(spec for job in jobs for spec in job.targets)
    # The first plan is the base of the others, and Turing's differs from them most: first, it costs each 12 kB.
    return sorted(specs, key=lambda spec: _TURING in spec.compute_capabilities)


def _sorted_out(answers: Sequence[list[Place] | Unserved]) -> tuple[list[Place], list[Unserved]]:
    places = [each for answer in answers if not isinstance(answer, Unserved) for each in answer]
    return places, [answer for answer in answers if isinstance(answer, Unserved)]


def _by_key(todo: Sequence[Planned]) -> dict[Digest, list[Planned]]:
    """Cells by what they are built from: models may share a network, which is built once."""
    found: dict[Digest, list[Planned]] = {}
    for planned in todo:
        found.setdefault(build_key(planned.wanted), []).append(planned)
    return found


def shared_of(store: Store, settings: Settings, progress: Progress) -> Shared | None:
    """The remote that models are published at as well, if any."""
    if settings.remote is None:
        return None
    return Shared(store=store, remote=settings.remote, allow_unsigned=settings.allow_unsigned, progress=progress)


def _note(store: Store, result: Result) -> None:
    """Keep why a cell failed, or forget why it did the last time."""
    planned, problem = result.planned, result.problem
    if problem is None:
        forget_failure(store, planned.wanted)
        return
    failure = Failure(
        model=planned.ref.tagged,
        component=planned.cell.component,
        target=planned.cell.target.name,
        where=result.where,
        kind=problem.kind,
        message=problem.message,
        hint=problem.hint,
        log=result.log,
        wszoo=__version__,
    )
    keep_failure(store, planned.wanted, failure)
