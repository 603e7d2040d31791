"""``ort-epcontext``: a plan as a model that ONNX Runtime's TensorRT and TensorRT-RTX execution providers load.

The model is one node, ``com.microsoft.EPContext``, that names the engine's file beside it. Its attributes are those
that the providers write and read themselves (``onnx_ctx_model_helper.cc`` of each, ONNX Runtime 1.31 and the RTX plugin
0.5): ``ep_cache_context`` must be a relative path below the model's folder, ``onnx_model_filename`` a base name, and an
engine called ``*.stripped.engine`` is refitted from that ONNX file.

Native plans are handed over stripped, since only a GPU can make full engines of them. What splice leaves of a plan is
no engine, and ONNX Runtime knows nothing of splice: those plans are written whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.errors import IncompatibleError, UsageError
from wszoo.export.job import is_portable, plan_name, required_component, stem
from wszoo.export.onnx_file import check_file
from wszoo.export.onnx_format import component_file
from wszoo.gpu.fit import RTX, TENSORRT, version_key
from wszoo.plans import native
from wszoo.schema.plan import HardwareCompatibility, Kind
from wszoo.weights.packs import weights_digest
from wszoo.weights.tensor import dtype_of

if TYPE_CHECKING:
    import onnx

    from wszoo.export.folder import ExportFolder
    from wszoo.export.job import Job
    from wszoo.schema.model import Component, Value
    from wszoo.schema.plan import Target
    from wszoo.store.documents import PlanDocument

HEADER = 64  # bytes of an engine that TensorRT-RTX judges its validity by (Runtime.engine_header_size)
_IR_VERSION, _OPSET = 10, 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An execution provider.

    Attributes:
        option: as users name it.
        name: as ONNX Runtime does.
        backend: whose plans it runs.
    """

    option: str
    name: str
    backend: str


PROVIDERS = (
    Provider(option="tensorrt", name="TensorrtExecutionProvider", backend=TENSORRT),
    Provider(option="nv-tensorrt-rtx", name="NvTensorRTRTXExecutionProvider", backend=RTX),
)


def write(job: Job, folder: ExportFolder) -> None:
    """Write ``COMPONENT.TARGET_ctx.onnx`` and its engine for each plan; for stripped ones the weights beside.

    Raises:
        IncompatibleError: no plan has an engine.
        UsageError: the provider asked for does not run these plans.
        IntegrityError: bytes are not what their digest says.
        StorageError: the disk is full or refuses.
    """
    for plan in job.engine_plans():
        write_context(job, folder, plan, stem(plan))
    for plan in filter(is_portable, job.plans):
        job.note(f"{plan_name(plan)} was left out: it has no engine; --format onnx writes what it runs")


def write_context(
    job: Job, folder: ExportFolder, plan: PlanDocument, place: str, *, weights: str = ""
) -> tuple[Provider, bytes]:
    """Write one plan's engine, and the model that names it, as ``PLACE.engine`` and ``PLACE_ctx.onnx``.

    Args:
        job: what is exported.
        folder: where to.
        plan: one with an engine.
        place: what the files' names begin with.
        weights: the ONNX file, written before and in the same folder, that a stripped engine is refitted from; it gets
            one of its own without.

    Returns:
        What runs it, and the engine's first :data:`HEADER` bytes.

    Raises:
        UsageError: the provider asked for does not run this plan.
        IntegrityError: bytes are not what their digest says.
        StorageError: the disk is full or refuses.
    """
    provider, component = _provider(plan, job.options.ep), required_component(job, plan.config.component)
    stripped = plan.config.kind == Kind.NATIVE
    engine = f"{place}.stripped.engine" if stripped else f"{place}.engine"
    if stripped:
        folder.write(engine, _stripped(job, plan, component))
        if not weights:
            component_file(job, folder, plan.config.component, weights := f"{place}.onnx")
    else:
        job.copy_engine(folder, plan, engine)
        job.note("splice plans are written whole: ONNX Runtime could not give a spliced plan its weights back")
    with folder.path(engine).open("rb") as file:
        header = file.read(HEADER)
    model = context_model(
        provider, plan, component, engine=engine.rsplit("/", 1)[-1], weights=weights if stripped else "", header=header
    )
    name = f"{place}_ctx.onnx"
    folder.write(name, model.SerializeToString(deterministic=True))
    check_file(folder.path(name), plan.config.component)
    return provider, header


def context_model(
    provider: Provider, plan: PlanDocument, component: Component, *, engine: str, weights: str, header: bytes
) -> onnx.ModelProto:
    """The model around an engine.

    Args:
        provider: that will run it.
        plan: the plan.
        component: what it computes.
        engine: base name of the engine's file.
        weights: name of the ONNX file to refit a stripped engine from; empty for a full one.
        header: the engine's first 64 bytes.
    """
    from onnx import helper

    config = plan.config
    node = helper.make_node(
        "EPContext",
        [value.name for value in component.inputs],
        [value.name for value in component.outputs],
        name=f"{config.component}_0",
        domain="com.microsoft",
        main_context=1,
        embed_mode=0,
        ep_cache_context=engine,
        source=provider.name,
        partition_name=f"{config.component}_0",
        hardware_architecture=hardware_architecture(config.target),
        ep_sdk_version=sdk_version(config.target.version),
        onnx_model_filename=weights.rsplit("/", 1)[-1],
    )
    values = [[_value_info(value) for value in side] for side in (component.inputs, component.outputs)]
    graph = helper.make_graph([node], config.component, *values)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="wszoo")
    if compatibility := compatibility_string(provider, header):
        model.metadata_props.add(key=f"ep_compatibility_info.{provider.name}", value=compatibility)
    return model


def compatibility_string(provider: Provider, header: bytes) -> str:
    """By what a provider tells whether it can run an engine; empty where it has no such thing.

    TensorRT-RTX's is the engine's header in hexadecimal digits, which it hands to ``getEngineValidity``.
    """
    return header.hex() if provider.backend == RTX and len(header) == HEADER else ""


def hardware_architecture(target: Target) -> str:
    """``89``; ``80+`` for Ampere and later. The providers only warn when the GPU has another one."""
    if target.hardware_compatibility == HardwareCompatibility.AMPERE_PLUS:
        return "80+"
    return target.compute_capabilities[0].replace(".", "") if target.compute_capabilities else ""


def sdk_version(version: str) -> str:
    """``1.7.1.116`` -> ``10701``, as ``getInferLibVersion`` counts since TensorRT 10 and TensorRT-RTX 1."""
    major, minor, patch = (*version_key(version), 0, 0, 0)[:3]
    return str(major * 10_000 + minor * 100 + patch)


def _provider(plan: PlanDocument, option: str) -> Provider:
    backend = plan.config.target.backend
    known = {provider.backend: provider for provider in PROVIDERS}.get(backend)
    asked = next((provider for provider in PROVIDERS if provider.option == option), known)
    if asked is None:
        raise IncompatibleError(
            f"ONNX Runtime has no execution provider for plans of {backend!r}",
            hint="--ep names one, if the plan is for it all the same",
        )
    if known is not None and asked is not known:
        raise UsageError(
            f"the plan {plan_name(plan)} is {backend}'s, and {asked.name} does not run those",
            hint=f"leave out --ep, or choose a plan built for {asked.backend}",
        )
    return asked


def _stripped(job: Job, plan: PlanDocument, component: Component) -> bytes:
    """A native plan, after checking that it was built from the weights that are put beside it."""
    if plan.config.weights != weights_digest(component.tensors):
        raise IncompatibleError(
            f"the plan {plan_name(plan)} was made from other weights than the model has",
            hint="pull the model again: its plans were replaced together with its weights",
        )
    return native.read_plan(job.store, plan.manifest, plan.config, native.read_map(job.store, plan.manifest))


def _value_info(value: Value) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(value.name, dtype_of(value.dtype).onnx, list(value.shape))
