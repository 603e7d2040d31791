"""The table of formats, and what exporting is whatever the format."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from wszoo.errors import NotFoundError, UsageError
from wszoo.export import engine_format, epcontext, onnx_format, ortpackage, triton
from wszoo.export.folder import MARKER, Card, export_folder
from wszoo.export.job import Job, Options, is_portable, weight_bytes
from wszoo.schema.decode import encode
from wszoo.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from wszoo.export.folder import ExportFolder
    from wszoo.export.job import Chosen
    from wszoo.progress import Progress
    from wszoo.store.store import Store


class Needs(StrEnum):
    """Which plans a format takes when the user names none."""

    NONE = "none"
    FITTING = "fitting"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format.

    Attributes:
        summary: for ``--help``.
        needs: which plans it takes when the user names none.
        weights: it writes the graphs' weights whatever the plans.
        write: writes it.
    """

    summary: str
    needs: Needs
    weights: bool
    write: Callable[[Job, ExportFolder], None]


FORMATS = {
    "onnx": Format(summary="ONNX files with external data", needs=Needs.NONE, weights=True, write=onnx_format.write),
    "engine": Format(
        summary="assembled plans with a card each", needs=Needs.FITTING, weights=False, write=engine_format.write
    ),
    "ort-epcontext": Format(
        summary="for ONNX Runtime's TensorRT providers", needs=Needs.FITTING, weights=False, write=epcontext.write
    ),
    "ortpackage": Format(
        summary="ONNX Runtime's model package", needs=Needs.ALL, weights=False, write=ortpackage.write
    ),
    "triton": Format(summary="a model repository for Triton", needs=Needs.FITTING, weights=False, write=triton.write),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        path: the folder.
        card: its card.
    """

    path: Path
    card: Card

    @property
    def size(self) -> int:
        """Bytes of all files but the card."""
        return sum(file.size for file in self.card.files.values())


def find_format(name: str) -> Format:
    """Look up a format.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in FORMATS:
        raise UsageError(f"no export format named {name!r}", hint=f"there is: {', '.join(FORMATS)}")
    return FORMATS[name]


def export(
    store: Store,
    chosen: Chosen,
    out: Path,
    *,
    to: str,
    options: Options,
    force: bool,
    progress: Progress,
) -> Exported:
    """Write a model for another runtime.

    Args:
        store: holds it.
        chosen: the components and plans.
        out: the folder to write; new, empty, or with ``force`` a former export.
        to: one of :data:`FORMATS`.
        options: for the format.
        force: replace a former export.
        progress: where to report.

    Raises:
        UsageError: the folder holds something else, or the format cannot do what was asked.
        IncompatibleError: the model or its plans cannot be expressed in this format.
        NotFoundError: something is not in the store.
        IntegrityError: bytes are not what their digest says.
        StorageError: too little space, or the file system refuses.
    """
    kind = find_format(to)
    job = Job(
        store=store,
        ref=chosen.ref,
        model=chosen.model,
        components=chosen.components,
        plans=chosen.plans if kind.needs is not Needs.NONE else (),
        options=options,
        progress=progress,
    )
    with export_folder(out, force=force, needed=_size(job, kind)) as folder:
        try:
            kind.write(job, folder)
        except NotFoundError as error:
            hint = f"fetch what is missing: wszoo pull {chosen.ref.tagged} --from REMOTE"
            raise NotFoundError(error.message, hint=hint) from error
        card = _card(job, to, folder)
        folder.write(MARKER, msgspec.json.format(encode(card)) + b"\n")
    return Exported(path=out, card=card)


def _card(job: Job, to: str, folder: ExportFolder) -> Card:
    assert job.ref.digest is not None
    return Card(
        wszoo=__version__,
        format=to,
        ref=job.ref.tagged,
        index_digest=job.ref.digest,
        components=job.components,
        targets=tuple(dict.fromkeys(plan.config.target.name for plan in job.plans)),
        notes=tuple(job.notes),
        files=dict(sorted(folder.files.items())),
    )


def _size(job: Job, kind: Format) -> int:
    """Bytes of what will be written, but for graphs, cards and configurations."""
    engines = sum(plan.config.engine_bytes for plan in job.plans if not is_portable(plan))
    return engines + sum(weight_bytes(job.component(name).tensors) for name in _with_weights(job, kind))


def _with_weights(job: Job, kind: Format) -> Sequence[str]:
    portable = {plan.config.component for plan in job.plans if is_portable(plan)}
    return job.components if kind.weights else [name for name in job.components if name in portable]
