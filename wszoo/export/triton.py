"""``triton``: a model repository for Triton Inference Server, a model each component.

Engines are files of one version, told apart by ``cc_model_filenames``; the portable plan is an ONNX file for the
``onnxruntime`` backend. Batching is off unless asked for: then dimensions are given in full, -1 where they are dynamic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.errors import IncompatibleError, UsageError
from wszoo.export.job import is_portable, plan_name, required_component
from wszoo.export.onnx_format import component_file
from wszoo.export.pbtxt import Symbol, Value, dumps
from wszoo.gpu.fit import RTX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.export.folder import ExportFolder
    from wszoo.export.job import Job
    from wszoo.schema import model as model_schema
    from wszoo.store.documents import PlanDocument

# model_config.proto's DataType. Triton has no 8-bit floats, 4-bit integers or complex numbers.
DATA_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16",
}
_RTX_NOTE = (
    "Triton's tensorrt backend is built with TensorRT and does not load TensorRT-RTX plans: "
    "these need a backend built with TensorRT-RTX"
)


def write(job: Job, folder: ExportFolder) -> None:
    """Write ``MODEL/config.pbtxt`` and ``MODEL/1/`` for each component.

    Raises:
        UsageError: two plans are for one compute capability, or the batch size is outside a profile.
        IncompatibleError: an input or output cannot be described to Triton.
        IntegrityError: bytes are not what their digest says.
        StorageError: the disk is full or refuses.
    """
    for component in job.components:
        plans, name = job.plans_of(component), model_name(job, component)
        config: dict[str, Value] = {"name": name, **_shapes(job, component, plans)}
        if any(map(is_portable, plans)):
            config |= _portable(job, folder, component, plans)
        else:
            config |= _engines(job, folder, name, plans)
        folder.write(f"{name}/config.pbtxt", dumps(config).encode())


def model_name(job: Job, component: str) -> str:
    """What a component is called in the repository: Triton wants a model's folder to have its name."""
    base = job.ref.name.replace("/", "-")
    return base if len(job.model.config.components) == 1 else f"{base}-{component}"


def _portable(job: Job, folder: ExportFolder, component: str, plans: Sequence[PlanDocument]) -> dict[str, Value]:
    if len(plans) > 1:
        raise UsageError(
            f"a Triton model has one backend, and {', '.join(map(plan_name, plans))} need several",
            hint="export the portable plan to a repository of its own",
        )
    component_file(job, folder, component, f"{model_name(job, component)}/1/model.onnx")
    return {"backend": "onnxruntime", "default_model_filename": "model.onnx"}


def _engines(job: Job, folder: ExportFolder, name: str, plans: Sequence[PlanDocument]) -> dict[str, Value]:
    if any(plan.config.target.backend == RTX for plan in plans):
        job.note(_RTX_NOTE)
    for plan, file in zip(plans, _file_names(plans), strict=True):
        job.copy_engine(folder, plan, f"{name}/1/{file}")
    config: dict[str, Value] = {"backend": "tensorrt"}
    if len(plans) == 1:
        config["default_model_filename"] = "model.plan"
    else:
        config["cc_model_filenames"] = [{"key": key, "value": file} for key, file in _by_capability(plans).items()]
    if count := _profiles(plans):
        group: dict[str, Value] = {
            "count": 1,
            "kind": Symbol("KIND_GPU"),
            "profile": [str(number) for number in range(count)],
        }
        config["instance_group"] = [group]
    return config


def _file_names(plans: Sequence[PlanDocument]) -> list[str]:
    return ["model.plan"] if len(plans) == 1 else [f"model.{plan.config.target.name}.plan" for plan in plans]


def _by_capability(plans: Sequence[PlanDocument]) -> dict[str, str]:
    found: dict[str, str] = {}
    for plan, file in zip(plans, _file_names(plans), strict=True):
        if not plan.config.target.compute_capabilities:
            raise UsageError(f"{plan_name(plan)} names no compute capability", hint="export it by itself")
        for capability in plan.config.target.compute_capabilities:
            if capability in found:
                raise UsageError(
                    f"{found[capability]} and {file} are both for compute capability {capability}",
                    hint="Triton tells plans apart by compute capability alone: name one of them with --target",
                )
            found[capability] = file
    return found


def _profiles(plans: Sequence[PlanDocument]) -> int:
    """How many optimization profiles each plan has; an instance may use all of them."""
    counts = {len(plan.config.profiles) for plan in plans}
    if len(counts) > 1:
        raise UsageError(
            f"{', '.join(map(plan_name, plans))} have different numbers of optimization profiles",
            hint="one Triton configuration serves all of them: export them to repositories of their own",
        )
    return counts.pop() if counts else 0


def _shapes(job: Job, component: str, plans: Sequence[PlanDocument]) -> dict[str, Value]:
    part, batch = required_component(job, component), job.options.max_batch
    if batch:
        _check_batch(component, (*part.inputs, *part.outputs), plans, batch)
    batching: dict[str, Value] = {"dynamic_batching": {}} if batch else {}
    return {
        "max_batch_size": batch,
        "input": [_tensor(component, value, batched=bool(batch)) for value in part.inputs],
        "output": [_tensor(component, value, batched=bool(batch)) for value in part.outputs],
        **batching,
    }


def _tensor(component: str, value: model_schema.Value, *, batched: bool) -> dict[str, Value]:
    if value.dtype not in DATA_TYPES:
        raise IncompatibleError(
            f"{component!r} has {value.name!r} of type {value.dtype} among its inputs and outputs, which Triton "
            "does not know",
            hint="cast it inside the network, for example to float16 or int8",
        )
    dims = [-1 if isinstance(size, str) else size for size in value.shape[int(batched) :]]
    described: dict[str, Value] = {"name": value.name, "data_type": Symbol(DATA_TYPES[value.dtype])}
    # "dims" may not be empty: a scalar is declared as one element that the server reshapes.
    return {**described, "dims": dims} if dims else {**described, "dims": [1], "reshape": {"shape": []}}


def _check_batch(
    component: str, values: Sequence[model_schema.Value], plans: Sequence[PlanDocument], batch: int
) -> None:
    first = {value.shape[0] if value.shape else None for value in values}
    if len(first) != 1 or not isinstance(next(iter(first)), str):
        raise UsageError(
            f"{component!r} cannot be batched: its inputs and outputs do not all begin with the same dynamic dimension",
            hint="export it without --max-batch",
        )
    largest = [
        limits.max[0] for plan in plans for profile in plan.config.profiles for limits in profile.inputs.values()
    ]
    if largest and batch > min(largest):
        raise UsageError(f"a batch of {batch} is over the {min(largest)} of a profile of {component!r}")
