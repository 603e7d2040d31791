"""``onnx``: each component as an ONNX file, its weights in one file beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.export.job import weight_bytes
from wszoo.export.onnx_file import check_file, write_inline, write_onnx

if TYPE_CHECKING:
    from wszoo.export.folder import ExportFolder
    from wszoo.export.job import Job

ASSETS = "assets"


def write(job: Job, folder: ExportFolder) -> None:
    """Write ``COMPONENT.onnx``, ``COMPONENT.onnx.data`` and ``assets/``; onnx's checker reads the result.

    Raises:
        BuildError: the checker refuses it, or it is too large to go inline.
        IntegrityError: the graph or a tensor is damaged.
        StorageError: the disk is full or refuses.
    """
    for name in job.components:
        component_file(job, folder, name, f"{name}.onnx", inline=job.options.inline)
    job.write_assets(folder, ASSETS)


def component_file(job: Job, folder: ExportFolder, component: str, name: str, *, inline: bool = False) -> None:
    """Write one component as a checked ONNX file. Errors as for :func:`write`."""
    graph, infos = job.graph(component), job.component(component).tensors
    with job.progress.stage(f"write {component}", weight_bytes(infos)) as advance:
        if inline:
            write_inline(folder, name, graph, advance)
        else:
            write_onnx(folder, name, graph, infos, advance, data=f"{name}.data")
    check_file(folder.path(name), component)
