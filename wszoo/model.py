"""A pulled model, and its components as callables."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from wszoo.assemble import assemble
from wszoo.errors import NotFoundError
from wszoo.plugins import registry
from wszoo.store.documents import read_asset

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wszoo.backends.protocol import Assembled, Engine
    from wszoo.families.protocol import DemoResult
    from wszoo.names import Ref
    from wszoo.progress import Progress
    from wszoo.pull import Selection
    from wszoo.resolver import Resolution
    from wszoo.schema.facts import PlanFacts
    from wszoo.store.documents import PlanDocument
    from wszoo.store.store import Store


class Model:
    """A pulled model: ``model["unet"].load()``.

    Args:
        store: holds it.
        selection: the plans that were chosen.
        progress: gets told about assembling and demos.
    """

    def __init__(self, store: Store, selection: Selection, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self.selection = selection
        self._components = {name: PulledComponent(store, selection, name, progress) for name in selection.plans}

    @property
    def ref(self) -> Ref:
        """Its name, pinned to the index's digest."""
        return self.selection.ref

    @property
    def family(self) -> str:
        """The family that made it."""
        return self.selection.model.config.family

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
    """

    def __init__(self, store: Store, selection: Selection, name: str, progress: Progress) -> None:
        self._store = store
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
        return assemble(self._store, self._selection.model, self.plan, device, self._progress)

    def assemble(self) -> Path | None:
        """The full plan's file, verified; None for a portable plan, which has none.

        Raises:
            IntegrityError: bytes are not what their digest says.
            StorageError: the disk is full or refuses.
        """
        return self._assembled.engine

    def load(self) -> Engine:
        """Assemble and load it: a callable that takes and gives arrays by name.

        Raises:
            MissingExtraError: the runtime is not installed.
            IncompatibleError: the runtime or the GPU refuses the plan.
            IntegrityError: bytes are not what their digest says.
        """
        return registry().backend(self.plan.config.target.backend).load(self._assembled)
