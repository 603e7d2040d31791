"""From a ``zoo.toml`` to jobs: paths beside the file, sources fetched when their model's turn comes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wszoo.building.request import BuildRequest
from wszoo.building.sources import HUB, chooser, fetch_source
from wszoo.errors import MalformedError, NotFoundError
from wszoo.families.protocol import SourceRequest
from wszoo.fleet.run import Job
from wszoo.names import TargetSpec
from wszoo.schema.zoo import MAX_ZOO, decode_zoo
from wszoo.store.files import read_regular, storage_errors
from wszoo.text import nearest, printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from wszoo.names import Ref
    from wszoo.plugins import Registry
    from wszoo.progress import Progress
    from wszoo.schema.zoo import ModelEntry, Zoo


def read_zoo(path: Path, registry: Registry) -> Zoo:
    """Read and check a file: also the names that only plugins know.

    Raises:
        NotFoundError: there is none.
        MalformedError: see :func:`wszoo.schema.zoo.decode_zoo`; or a family, executor or target's prefix that no plugin
            provides.
    """
    with storage_errors(f"read {path}"):
        try:
            data = read_regular(path, MAX_ZOO)
        except FileNotFoundError:
            raise NotFoundError(f"there is no {path}", hint="docs/fleet.md has one to begin with") from None
    zoo = decode_zoo(data, str(path))
    if zoo.file.executor:
        _check(f"{path}, executor", zoo.file.executor, registry.executors)
    prefixes = {backend.prefix: backend for backend in registry.backends.values()}
    for ref, entry in zoo.models.items():
        where = f"{path}, models.{printable(ref.tagged)!r}"
        _check(f"{where}, family", entry.family, registry.families)
        for number, target in enumerate(entry.targets):
            _check(f"{where}, targets[{number}]", TargetSpec.parse(target).prefix, prefixes)
    return zoo


def jobs_of(zoo: Zoo, folder: Path, registry: Registry, progress: Progress) -> list[Job]:
    """One for each model.

    Args:
        zoo: from :func:`read_zoo`.
        folder: that paths in it are relative to.
        registry: has the families.
        progress: where downloads are reported.
    """
    return [
        Job(
            ref=ref,
            targets=tuple(TargetSpec.parse(target) for target in entry.targets),
            request=partial(_request, ref, entry, folder, registry, progress),
        )
        for ref, entry in zoo.models.items()
    ]


def _request(ref: Ref, entry: ModelEntry, folder: Path, registry: Registry, progress: Progress) -> BuildRequest:
    targets = tuple(TargetSpec.parse(target) for target in entry.targets)
    family = registry.family(entry.family)
    wanted = SourceRequest(precision=entry.precision, targets=targets, options=entry.options)
    source = entry.source if entry.source.startswith(HUB) else str(folder / entry.source)
    return BuildRequest(
        family=entry.family,
        source=fetch_source(source, progress, chooser(family, wanted)),
        ref=ref,
        targets=targets,
        profiles=entry.profiles,
        precision=entry.precision,
        options=entry.options,
        licence=entry.licence,
    )


def _check(where: str, name: str, known: Mapping[str, object]) -> None:
    if name in known:
        return
    hint = " ".join(filter(None, [nearest(name, known), f"There is: {', '.join(sorted(known))}"]))
    raise MalformedError(f"{where}: no plugin provides {name!r}", hint=hint)


def place_beside(text: str, folder: Path) -> str:
    """A remote as the file names it: ``./out`` and ``../out`` are beside the file; URLs, names and full paths stay."""
    return str(folder / text) if text.startswith(("./", "../")) else text
