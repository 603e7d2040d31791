"""``ortpackage``: ONNX Runtime's model package, a folder from which it picks the variant that fits the machine.

Followed: schema 1.0 as ``model_package/README.md`` of ONNX Runtime describes it (the ``ort`` slot:
``onnxruntime/core/session/model_package/README.md``), whose reader is part of onnxruntime 1.32. Each component has a
``component.json``; each plan is a variant, the portable one two of them (CUDA and CPU) over one graph. Weights and the
model's own files are shared assets, ``shared_assets/sha256-<hex>``, where the number is a hash over the files' names
and hashes; variants and components with equal weights share them.

Providers look for the ONNX file that a stripped engine is refitted from beside the model that names the engine. So
where a component has native plans, all of it that needs weights is in one asset, with one copy of them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wszoo.export.epcontext import compatibility_string, write_context
from wszoo.export.job import ambiguous, is_portable, weight_bytes
from wszoo.export.onnx_file import write_onnx
from wszoo.export.onnx_format import component_file
from wszoo.schema.plan import Kind
from wszoo.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.export.epcontext import Provider
    from wszoo.export.folder import ExportFolder
    from wszoo.export.job import Job
    from wszoo.store.documents import PlanDocument

SCHEMA = "1.0"
_ASSETS = "shared_assets"
_STAGED = f"{_ASSETS}/staged"
_MODEL = "model.onnx"
_PORTABLE = "portable"
_INFO = "ort_info.json"
_WEIGHTS_OPTION = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True, slots=True)
class _Shared:
    """A model in a shared asset.

    Attributes:
        model: the URI of its file.
        provider: that runs it; None for the graph itself.
        header: of its engine.
    """

    model: str
    provider: Provider | None
    header: bytes


def write(job: Job, folder: ExportFolder) -> None:
    """Write ``manifest.json``, each component's folder, and ``shared_assets/``.

    Raises:
        UsageError: the provider asked for does not run these plans, or a component has several for one target.
        IntegrityError: bytes are not what their digest says.
        StorageError: the disk is full or refuses.
    """
    for name in job.components:
        _check_targets(job, name)
        plans = sorted(job.plans_of(name), key=is_portable)  # ONNX Runtime breaks ties by this order
        native = [plan for plan in plans if plan.config.kind == Kind.NATIVE]
        shared = _together(job, folder, name, native) if native else {}
        variants: dict[str, Any] = {}
        for plan in plans:
            if is_portable(plan):
                variants.update(_portable(job, folder, name, shared.get("")))
            else:
                variants.update(_engine(job, folder, plan, shared.get(plan.config.target.name)))
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


def _together(job: Job, folder: ExportFolder, component: str, plans: Sequence[PlanDocument]) -> dict[str, _Shared]:
    """Write a component's stripped engines and its weights as one asset; by target, and the graph itself as ``""``."""
    weights = f"{_STAGED}/{_MODEL}"
    component_file(job, folder, component, weights)
    written = {
        plan.config.target.name: write_context(
            job, folder, plan, f"{_STAGED}/{plan.config.target.name}", weights=weights
        )
        for plan in plans
    }
    uri = _share(folder)
    found = {name: _Shared(f"{uri}/{name}_ctx.onnx", *each) for name, each in written.items()}
    return {**found, "": _Shared(f"{uri}/{_MODEL}", None, b"")}


def _portable(job: Job, folder: ExportFolder, component: str, shared: _Shared | None) -> dict[str, Any]:
    info = _own_weights(job, folder, component) if shared is None else _write_info(folder, component, _PORTABLE, shared)
    devices = {"cuda": ("CUDAExecutionProvider", "gpu"), "cpu": ("CPUExecutionProvider", "cpu")}
    return {
        f"{_PORTABLE}-{name}": {
            "variant_directory": _PORTABLE,
            "ep": provider,
            "device": device,
            "executor_info": {"ort": info},
        }
        for name, (provider, device) in devices.items()
    }


def _own_weights(job: Job, folder: ExportFolder, component: str) -> dict[str, Any]:
    graph, infos = job.graph(component), job.component(component).tensors
    with job.progress.stage(f"write {component}", weight_bytes(infos)) as advance:
        place = f"{component}/{_PORTABLE}/{_MODEL}"
        write_onnx(folder, place, graph, infos, advance, data=f"{_STAGED}/{_MODEL}.data")
    return {"model_file": _MODEL, "session_options": {_WEIGHTS_OPTION: _share(folder)}}


def _engine(job: Job, folder: ExportFolder, plan: PlanDocument, shared: _Shared | None) -> dict[str, Any]:
    target, component = plan.config.target.name, plan.config.component
    if shared is None:
        provider, header = write_context(job, folder, plan, f"{component}/{target}/model")
        info: object = {"model_file": "model_ctx.onnx"}
    else:
        assert shared.provider is not None
        provider, header, info = shared.provider, shared.header, _write_info(folder, component, target, shared)
    compatibility = compatibility_string(provider, header)
    return {
        target: {
            "variant_directory": target,
            "ep": provider.name,
            "device": "gpu",
            **({"compatibility_string": compatibility} if compatibility else {}),
            "executor_info": {"ort": info},
        }
    }


def _write_info(folder: ExportFolder, component: str, variant: str, shared: _Shared) -> str:
    """A variant's folder has to exist, so what it says of its model stands in a file there."""
    _write_json(folder, f"{component}/{variant}/{_INFO}", {"model_file": shared.model})
    return _INFO


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
