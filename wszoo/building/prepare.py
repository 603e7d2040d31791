"""From a model's source to its weights and graphs in the store: all of a build that does not depend on a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from wszoo.codecs import zstd
from wszoo.digest import Digest
from wszoo.errors import BuildError
from wszoo.families.protocol import ExportRequest
from wszoo.names import is_portable_file_name
from wszoo.publish import read_published, write_model
from wszoo.schema import model as model_schema
from wszoo.schema.model import Component, ModelConfig
from wszoo.store.files import storage_errors
from wszoo.store.models import known_models
from wszoo.version import __version__
from wszoo.weights.located import known_tensors
from wszoo.weights.packs import Packer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from wszoo.building.request import BuildRequest
    from wszoo.families.protocol import Export, Family
    from wszoo.names import Ref, TargetSpec
    from wszoo.progress import Progress
    from wszoo.publish import Published
    from wszoo.store.documents import ModelDocument
    from wszoo.store.store import Store
    from wszoo.weights.apart import Graph

GRAPH_LEVEL = 19  # graphs are small, and shipped to every client


def export_model(
    family: Family,
    request: BuildRequest,
    targets: tuple[TargetSpec, ...],
    *,
    needs_profiles: bool,
    scratch: Path,
    progress: Progress,
) -> Export:
    """Have a family export; its components are made one at a time, when they are asked for.

    Args:
        family: which.
        request: what was asked for.
        targets: all that will be built.
        needs_profiles: one of them cannot do without, where shapes are dynamic.
        scratch: an existing folder; the export gets a new one in it.
        progress: where to report.

    Raises:
        UsageError: an option, precision or profile that the family does not know.
        BuildError: the model cannot be exported.
        StorageError: the file system refuses.
    """
    folder = scratch / "export"
    with storage_errors("make a folder for the export in"):
        folder.mkdir()
    return family.export(
        ExportRequest(
            source=request.source,
            precision=request.precision,
            profiles=request.profiles,
            needs_profiles=needs_profiles,
            targets=targets,
            options=request.options,
            scratch=folder,
            progress=progress,
        )
    )


class ModelWriter:
    """Writes one model into the store: its weights as they come, its manifest in the end.

    Args:
        store: where to.
        ref: what it will be published as; the model that is there now is kept if it is the same.
        family: the name of who exports it.
        progress: where to report.
    """

    def __init__(self, store: Store, ref: Ref, family: str, progress: Progress) -> None:
        self._store = store
        self._family = family
        self._progress = progress
        self.before: Published = read_published(store, ref)
        self._packer = Packer(store.blobs, known_tensors(known_models(store, last=ref)))
        self.components: dict[str, Component] = {}

    @property
    def new_bytes(self) -> int:
        """Stored bytes that the model added to the store's packs."""
        return self._packer.new_bytes

    def component(self, name: str, graph: Graph) -> Component:
        """Store a network's weights and graph.

        Raises:
            BuildError: there was one of that name before.
            StorageError: the file system refuses.
        """
        if name in self.components:
            raise BuildError(f"the family {self._family} exported two components named {name!r}")
        tensors = self._packer.add(graph.tensors, self._progress)
        stored = model_schema.Graph(
            digest=Digest.of(graph.proto),
            size=len(graph.proto),
            layer=self._store.blobs.put(zstd.compress(graph.proto, level=GRAPH_LEVEL)),
        )
        made = Component(graph=stored, inputs=graph.inputs, outputs=graph.outputs, tensors=tensors)
        self.components[name] = made
        return made

    def assets(self, export: Export) -> dict[str, Digest]:
        """Store the files that travel with the model.

        Raises:
            BuildError: one has a name that not every system can store.
        """
        for name in export.assets:
            if not is_portable_file_name(name):
                raise BuildError(f"the asset name {name!r} cannot be a file name on every system", hint="rename it")
        return {name: self._store.blobs.put(data) for name, data in sorted(export.assets.items())}

    def model(self, export: Export, assets: Mapping[str, Digest], *, licence: str = "") -> ModelDocument:
        """Write config and manifest, after the last component.

        Args:
            export: what is said about it.
            assets: from :meth:`assets`.
            licence: instead of the export's; empty for that.
        """
        table = self._packer.table()
        config = ModelConfig(
            family=self._family,
            components=self.components,
            packs=table.packs,
            frames=table.frames,
            assets=dict(assets),
            licence=licence or export.licence,
            options=dict(export.options),
            provenance={"wszoo": __version__, **export.provenance},
        )
        there = self.before.model
        return there if there is not None and _is_same(there.config, config) else write_model(self._store, config)


def _is_same(there: ModelConfig, config: ModelConfig) -> bool:
    """True when a model differs from what is published at most in where its tensors stand."""
    return msgspec.structs.replace(config, packs=there.packs, frames=there.frames) == there
