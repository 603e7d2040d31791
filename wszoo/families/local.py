"""An export that acts like a pulled model, without a store: for plugin authors' tests, and for trying a family out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.backends.onnxruntime import reference
from wszoo.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wszoo.families.protocol import Export, RunnableComponent
    from wszoo.weights.graph import Graph


@dataclass(frozen=True, slots=True)
class LocalComponent:
    """A graph that is loaded into ONNX Runtime on the CPU when asked for."""

    name: str
    graph: Graph

    def load(self) -> RunnableComponent:
        """Load it.

        Raises:
            BuildError: ONNX Runtime refuses the graph.
            MissingExtraError: onnxruntime is not installed.
        """
        return reference(self.graph, self.name)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """Has the shape of :class:`wszoo.families.protocol.PulledModel`.

    Attributes:
        graphs: by component.
        files: the assets.
    """

    graphs: Mapping[str, Graph]
    files: Mapping[str, bytes]

    @property
    def components(self) -> Sequence[str]:
        """Names of the components."""
        return list(self.graphs)

    @property
    def assets(self) -> Sequence[str]:
        """Names of the files that travel with the model."""
        return list(self.files)

    def __getitem__(self, component: str) -> LocalComponent:
        """One component by name.

        Raises:
            NotFoundError: there is none of that name.
        """
        if component not in self.graphs:
            raise NotFoundError(f"no component {component!r}", hint=f"there is: {', '.join(self.graphs)}")
        return LocalComponent(component, self.graphs[component])

    def asset(self, name: str) -> bytes:
        """A file that travels with the model.

        Raises:
            NotFoundError: there is none of that name.
        """
        if name not in self.files:
            raise NotFoundError(f"no asset {name!r}", hint=f"there is: {', '.join(self.files) or 'none'}")
        return self.files[name]


def local_model(export: Export) -> LocalModel:
    """Make an export runnable on this machine; all its components are made."""
    return LocalModel({component.name: component.graph for component in export.components}, dict(export.assets))
