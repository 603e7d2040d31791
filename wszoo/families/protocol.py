"""What a family is: the plugin that turns one kind of model into ONNX graphs, and that shows it running."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wszoo.names import TargetSpec
    from wszoo.progress import Progress
    from wszoo.schema.model import Value
    from wszoo.schema.plan import Profile
    from wszoo.weights.apart import Graph


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What ``wszoo build`` asks a family for.

    Attributes:
        source: a file or folder on this machine (a Hub repository has been downloaded before).
        precision: ``fp32``, ``fp16``, ``bf16``, ...; empty for the source's own.
        profiles: what the user gave with ``--profile``: a preset's name or ``input=min:opt:max`` specs, in order.
        needs_profiles: a target is built for that cannot do without profiles where inputs are dynamic.
        targets: what will be built from the export, for families that export differently for some.
        options: the user's ``--option key=value`` pairs, checked by the family.
        scratch: an empty folder, removed after the build.
        progress: where to report anything that takes over a second.
    """

    source: Path
    precision: str = ""
    profiles: tuple[str, ...] = ()
    needs_profiles: bool = True
    targets: tuple[TargetSpec, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    scratch: Path
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRequest:
    """What is known of a build before its source has been downloaded.

    Attributes:
        precision: as in :class:`ExportRequest`, and so are the others.
        targets: what will be built.
        options: the user's.
    """

    precision: str = ""
    targets: tuple[TargetSpec, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedComponent:
    """One network, ready to build.

    Attributes:
        name: such as ``model`` or ``unet``.
        graph: taken apart; its tensors are loaded when they are needed and may be memory-mapped.
        profiles: one for each optimization profile; empty when every input's shape is fixed.
    """

    name: str
    graph: Graph
    profiles: tuple[Profile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A whole model.

    Attributes:
        components: an iterable, so that a family may make one network at a time and let go of it.
        assets: small files that travel with the model (labels, tokenizer, card), by name.
        licence: SPDX expression, or empty when unknown.
        options: how it was exported, kept in the model's config.
        provenance: names and versions of the exporter's libraries.
    """

    components: Iterable[ExportedComponent]
    assets: Mapping[str, bytes] = field(default_factory=dict)
    licence: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)


class RunnableComponent(Protocol):
    """A network that takes and gives arrays by name."""

    @property
    def inputs(self) -> Sequence[Value]:
        """What it takes."""
        ...

    @property
    def outputs(self) -> Sequence[Value]:
        """What it gives."""
        ...

    def __call__(self, **arrays: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401 - anything that speaks DLPack
        """Run once."""
        ...


class LoadableComponent(Protocol):
    """A network that has been pulled."""

    def load(self) -> RunnableComponent:
        """Assemble it if that has not been done, and load it."""
        ...


class PulledModel(Protocol):
    """What a demo gets: a model whose plans have been chosen and fetched."""

    @property
    def components(self) -> Sequence[str]:
        """Names of the components."""
        ...

    def __getitem__(self, component: str) -> LoadableComponent:
        """One component by name."""
        ...

    def asset(self, name: str) -> bytes:
        """A file that travels with the model.

        Raises:
            NotFoundError: there is none of that name.
        """
        ...

    @property
    def assets(self) -> Sequence[str]:
        """Names of the files that travel with the model."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What a demo found.

    Attributes:
        values: JSON-serializable facts, printed with ``--json``.
        text: the same for people; may span lines.
        pieces: text to show as it is made, before ``text``; the demo goes on while it is iterated, and ``values`` is
            complete when it has ended. Empty when the demo is done.
    """

    values: Mapping[str, object]
    text: str
    pieces: Iterable[str] = ()


class Family(Protocol):
    """One kind of model."""

    name: str
    summary: str

    def export(self, request: ExportRequest) -> Export:
        """Read the source and make ONNX graphs that have been compared with the original.

        Raises:
            UsageError: an option, precision or profile that this family does not know.
            NotFoundError: the source lacks a file.
            BuildError: the model cannot be exported, or the export's outputs differ from the original's.
            MissingExtraError: the exporter's libraries are not installed.
        """
        ...

    def demo(self, model: PulledModel, arguments: Sequence[str], progress: Progress) -> DemoResult:
        """Run the model once in the way its users would (``wszoo run REF ARGUMENTS``).

        Raises:
            UsageError: the arguments make no sense; the hint lists those that do.
        """
        ...


@runtime_checkable
class ChoosesFiles(Protocol):
    """A family that knows which of a repository's files it needs.

    For a family that does not, everything is downloaded that may be a model or a small file, but no pickles.
    """

    def choose_files(self, names: Sequence[str], request: SourceRequest) -> Sequence[str]:
        """Choose what to download.

        Args:
            names: every file of the repository, by its path; from a stranger.
            request: what will be built from it.

        Returns:
            Some of ``names``. What is missing is said by :meth:`Family.export`.

        Raises:
            UsageError: an option or precision that the family does not know.
        """
        ...
