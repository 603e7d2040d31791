"""``engine``: each plan as a file, assembled and verified, with a card in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from wszoo.digest import Digest
from wszoo.export.job import is_portable, plan_name, required_component, stem
from wszoo.export.onnx_format import ASSETS
from wszoo.schema.decode import encode
from wszoo.schema.model import Value
from wszoo.schema.plan import Profile, Target

if TYPE_CHECKING:
    from wszoo.export.folder import ExportFolder, WrittenFile
    from wszoo.export.job import Job
    from wszoo.store.documents import PlanDocument


class EngineCard(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside an engine.

    Attributes:
        component: the network that it runs.
        target: what it was built for, with the builder's version.
        digest: sha256 of the engine's file.
        size: its bytes.
        plan: digest of the plan's manifest.
        profiles: optimization profiles, in the engine's order.
        inputs: what the network takes.
        outputs: what it gives.
        provenance: builder, flags, versions.
    """

    component: str
    target: Target
    digest: Digest
    size: int
    plan: Digest
    profiles: tuple[Profile, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    provenance: dict[str, str]


def write(job: Job, folder: ExportFolder) -> None:
    """Write ``COMPONENT.TARGET.plan`` and ``COMPONENT.TARGET.json`` for each plan, and ``assets/``.

    Raises:
        IncompatibleError: no plan has an engine, or a native one has no GPU of its target here.
        IntegrityError: bytes are not what their digest says.
        StorageError: the disk is full or refuses.
    """
    for plan in job.engine_plans():
        name = f"{stem(plan)}.plan"
        job.copy_engine(folder, plan, name)
        folder.write(f"{stem(plan)}.json", msgspec.json.format(encode(_card(job, plan, folder.files[name]))) + b"\n")
    for plan in filter(is_portable, job.plans):
        job.note(f"{plan_name(plan)} was left out: it has no engine; --format onnx writes what it runs")
    job.write_assets(folder, ASSETS)


def _card(job: Job, plan: PlanDocument, written: WrittenFile) -> EngineCard:
    config = plan.config
    component = required_component(job, config.component)
    return EngineCard(
        component=config.component,
        target=config.target,
        digest=written.digest,
        size=written.size,
        plan=plan.descriptor.digest,
        profiles=config.profiles,
        inputs=component.inputs,
        outputs=component.outputs,
        provenance=config.provenance,
    )
