"""``ortpackage``: ONNX Runtime's model package, a folder from which it picks the variant that fits the machine.

Followed: schema 1.0 as ``model_package/README.md`` of ONNX Runtime describes it (the ``ort`` slot:
``onnxruntime/core/session/model_package/README.md``), whose reader is part of onnxruntime 1.32. Each component has a
``component.json``; each plan is a variant, the portable one two of them (CUDA and CPU) over one graph. Weights and the
model's own files are shared assets, ``shared_assets/sha256-<hex>``, where the number is a hash over the files' names
and hashes; variants and components with equal weights share them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from wszoo.export.epcontext import compatibility_string, write_context
from wszoo.export.job import ambiguous, is_portable, weight_bytes
from wszoo.export.onnx_file import write_onnx
from wszoo.version import __version__

if TYPE_CHECKING:
    from wszoo.export.folder import ExportFolder
    from wszoo.export.job import Job
    from wszoo.store.documents import PlanDocument

SCHEMA = "1.0"
_ASSETS = "shared_assets"
_STAGED = f"{_ASSETS}/staged"
_DATA = "model.onnx.data"
_WEIGHTS_OPTION = "session.model_external_initializers_file_folder_path"


def write(job: Job, folder: ExportFolder) -> None:
    """Write ``manifest.json``, each component's folder, and ``shared_assets/``.

    Raises:
        UsageError: the provider asked for does not run these plans, or a component has several for one target.
        IntegrityError: bytes are not what their digest says.
        StorageError: the disk is full or refuses.
    """
    for name in job.components:
        _check_targets(job, name)
        variants: dict[str, Any] = {}
        for plan in sorted(job.plans_of(name), key=is_portable):  # ONNX Runtime breaks ties by this order
            variants.update(_portable(job, folder, name) if is_portable(plan) else _engine(job, folder, plan))
        _write_json(folder, f"{name}/component.json", {"component_name": name, "variants": variants})
    _write_json(folder, "manifest.json", _manifest(job, _model_files(job, folder)))


def _check_targets(job: Job, component: str) -> None:
    """A variant is known by its target, and ONNX Runtime would always take the first of those that fit a GPU alike."""
    counts = Counter(plan.config.target.name for plan in job.plans_of(component))
    for target, count in counts.items():
        if count > 1:
            raise ambiguous(job.ref, component, target, count)


def _manifest(job: Job, files: str) -> dict[str, Any]:
    metadata = {"producer": f"wszoo {__version__}", "ref": job.ref.tagged, "index_digest": str(job.ref.digest)}
    return {
        "schema_version": SCHEMA,
        "package_name": job.ref.name,
        "package_version": job.ref.tag,
        "layout": "portable",
        "components": {name: name for name in job.components},
        "additional_metadata": {**metadata, **({"assets": files} if files else {})},
    }


def _portable(job: Job, folder: ExportFolder, component: str) -> dict[str, Any]:
    graph, infos, place = job.graph(component), job.component(component).tensors, f"{component}/portable"
    staged = f"{_STAGED}/{_DATA}"
    with job.progress.stage(f"write {component}", weight_bytes(infos)) as advance:
        write_onnx(folder, f"{place}/model.onnx", graph, infos, advance, data=staged)
    info = {"model_file": "model.onnx", "session_options": {_WEIGHTS_OPTION: _share(folder)}}
    devices = {"cuda": ("CUDAExecutionProvider", "gpu"), "cpu": ("CPUExecutionProvider", "cpu")}
    return {
        f"portable-{name}": {
            "variant_directory": "portable",
            "ep": provider,
            "device": device,
            "executor_info": {"ort": info},
        }
        for name, (provider, device) in devices.items()
    }


def _engine(job: Job, folder: ExportFolder, plan: PlanDocument) -> dict[str, Any]:
    target = plan.config.target.name
    provider, header = write_context(job, folder, plan, f"{plan.config.component}/{target}/model")
    compatibility = compatibility_string(provider, header)
    return {
        target: {
            "variant_directory": target,
            "ep": provider.name,
            "device": "gpu",
            **({"compatibility_string": compatibility} if compatibility else {}),
            "executor_info": {"ort": {"model_file": "model_ctx.onnx"}},
        }
    }


def _model_files(job: Job, folder: ExportFolder) -> str:
    """Write the files that travel with the model as a shared asset; its URI, empty when there are none."""
    return _share(folder) if job.write_assets(folder, _STAGED) else ""


def _share(folder: ExportFolder) -> str:
    """Give the staged files the name that their content asks for; the asset's URI."""
    names = sorted(name for name in folder.files if name.startswith(f"{_STAGED}/"))
    lines = "".join(f"{folder.files[name].digest.hex}  {name.removeprefix(f'{_STAGED}/')}\n" for name in names)
    hexadecimal = hashlib.sha256(lines.encode()).hexdigest()
    for name in names:
        folder.move(name, f"{_ASSETS}/sha256-{hexadecimal}/{name.removeprefix(f'{_STAGED}/')}")
    return f"sha256:{hexadecimal}"


def _write_json(folder: ExportFolder, name: str, value: object) -> None:
    folder.write(name, json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")
