"""A pulled model, and its components as callables."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from wszoo.assemble import Keep, assemble
from wszoo.errors import IncompatibleError, NotFoundError
from wszoo.plugins import registry
from wszoo.store.documents import read_asset
from wszoo.store.engine_only import keeps_engines_only
from wszoo.trust.record import decision_about

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wszoo.backends.protocol import Assembled, Engine
    from wszoo.distribution.pull import Selection
    from wszoo.export import Exported, Options
    from wszoo.families.protocol import DemoResult
    from wszoo.names import Ref
    from wszoo.progress import Progress
    from wszoo.resolver import Resolution
    from wszoo.schema.facts import PlanFacts
    from wszoo.schema.trust import Decision
    from wszoo.store.documents import PlanDocument
    from wszoo.store.store import Store


class Model:
    """A pulled model: ``model["unet"].load()``.

    Args:
        store: holds it.
        selection: the plans that were chosen.
        progress: gets told about assembling and demos.
        keep: what stays on the disk.
    """

    def __init__(self, store: Store, selection: Selection, progress: Progress, *, keep: Keep = Keep.BOTH) -> None:
        self._store = store
        self._progress = progress
        self.selection = selection
        self._components = {
            name: PulledComponent(store, selection, name, progress, keep=keep) for name in selection.plans
        }

    @property
    def ref(self) -> Ref:
        """Its name, pinned to the index's digest."""
        return self.selection.ref

    @property
    def family(self) -> str:
        """The family that made it."""
        return self.selection.model.config.family

    @property
    def trust(self) -> Decision | None:
        """Why it was taken from a remote; None for what was built here."""
        return decision_about(self._store.layout, self.selection.index.digest)

    @property
    def resolution(self) -> Resolution:
        """Why each plan was chosen."""
        return self.selection.resolution

    @property
    def components(self) -> Sequence[str]:
        """Names of the components that were pulled."""
        return tuple(self.selection.plans)

    @property
    def assets(self) -> Sequence[str]:
        """Names of the files that travel with the model."""
        return tuple(self.selection.model.config.assets)

    def asset(self, name: str) -> bytes:
        """A file that travels with the model.

        Raises:
            NotFoundError: there is none of that name.
        """
        return read_asset(self._store, self.selection.model, name)

    def __getitem__(self, component: str) -> PulledComponent:
        """One component.

        Raises:
            NotFoundError: it was not pulled, or does not exist.
        """
        if component not in self._components:
            raise NotFoundError(
                f"{self.ref.tagged} has no component {component!r} here", hint=f"there is: {', '.join(self.components)}"
            )
        return self._components[component]

    def export(self, out: str | Path, *, to: str, options: Options | None = None, force: bool = False) -> Exported:
        """Write the pulled components and plans as files for another runtime.

        Arguments and errors as for :meth:`wszoo.Zoo.export`.
        """
        from wszoo.export import Options, chosen_from, export

        chosen, options = chosen_from(self.selection), options or Options()
        return export(self._store, chosen, Path(out), to=to, options=options, force=force, progress=self._progress)

    def demo(self, arguments: Sequence[str] = ()) -> DemoResult:
        """Run the family's own demo.

        Raises:
            UsageError: the family is not installed, or the arguments make no sense.
        """
        return registry().family(self.family).demo(self, arguments, self._progress)


class PulledComponent:
    """One network with the plan that was chosen for it.

    Args:
        store: holds it.
        selection: the model's plans.
        name: of the component.
        progress: gets told about assembling.
        keep: what stays on the disk.
    """

    def __init__(
        self, store: Store, selection: Selection, name: str, progress: Progress, *, keep: Keep = Keep.BOTH
    ) -> None:
        self._store = store
        self._keep = keep
        self._progress = progress
        self._selection = selection
        self.name = name

    @property
    def plan(self) -> PlanDocument:
        """The chosen plan's manifest and config."""
        return self._selection.plans[self.name]

    @property
    def facts(self) -> PlanFacts:
        """The chosen plan in short."""
        return self._selection.resolution.choices[self.name].candidate.facts

    @cached_property
    def _assembled(self) -> Assembled:
        device = self._selection.resolution.choices[self.name].device
        with self._explained():
            return assemble(self._store, self._selection.model, self.plan, device, self._progress, keep=self._keep)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what to do where weights are needed that were let go of."""
        try:
            yield
        except NotFoundError as error:
            selection = self._selection
            if not keeps_engines_only(self._store.layout, selection.index.digest):
                raise
            entry = self._store.refs.find(selection.ref)
            remote = entry.source if entry is not None and entry.source else "REMOTE"
            raise NotFoundError(
                f"{selection.ref.tagged} was pulled with --keep engine: the plan kept of {self.name} is gone or of no "
                f"use here, and so are weights to make it from ({error.message})",
                hint=f"fetch them again: wszoo pull {selection.ref.tagged} --from {remote}",
            ) from error

    def assemble(self) -> Path | None:
        """The full plan's file, verified; None where there is none: portable, native, and when only weights are kept.

        Raises:
            NotFoundError: its weights were let go of, and the plan kept instead is lost.
            IntegrityError: bytes are not what their digest says.
            StorageError: the disk is full or refuses.
        """
        return self._assembled.engine

    def load(self, *, cuda_graphs: bool = False) -> Engine:
        """Assemble and load it: a callable that takes and gives arrays by name.

        Args:
            cuda_graphs: on a GPU, record runs as CUDA graphs; good for many runs of the same shapes.

        Raises:
            MissingExtraError: the runtime is not installed.
            IncompatibleError: the runtime or the GPU refuses the plan; the hint names the next best one.
            NotFoundError: its weights were let go of, and the plan kept instead is lost.
            IntegrityError: bytes are not what their digest says.
        """
        runtime = self._selection.resolution.choices[self.name].runtime
        backend = registry().backend(runtime.backend if runtime else self.plan.config.target.backend)
        try:
            with self._explained():
                return backend.load(replace(self._assembled, cuda_graphs=cuda_graphs))
        except IncompatibleError as error:
            raise self._with_next_best(error) from error

    def _with_next_best(self, error: IncompatibleError) -> IncompatibleError:
        """The error, and what the resolver would take if this plan were not there."""
        verdicts = self._selection.resolution.verdicts
        others = [
            verdict.candidate
            for verdict in verdicts
            if verdict.accepted and not verdict.taken and verdict.candidate.facts.component == self.name
        ]
        if not others:
            return error
        command = f"wszoo pull {self._selection.ref.tagged} --avoid {self.plan.descriptor.digest}"
        advice = f"the next best plan is {others[0]}: take it with '{command}' and the --from that it came from"
        return IncompatibleError(error.message, hint="; ".join(filter(None, (error.hint, advice))))
