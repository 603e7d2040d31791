"""Making lock files: the index that a tag points to now, and the plans that a list of GPUs takes from it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from wszoo.distribution.pull import select
from wszoo.errors import IncompatibleError, MalformedError
from wszoo.schema.lock import Lock, LockedBlob, LockedModel, LockedPlan
from wszoo.schema.model import PACK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wszoo.digest import Digest
    from wszoo.distribution.pull import Surroundings
    from wszoo.names import Ref
    from wszoo.schema.oci import Descriptor
    from wszoo.store.documents import DocumentSource, ModelDocument, PlanDocument

PORTABLE = "none"  # what every machine can ask for


def lock_model(
    source: DocumentSource,
    ref: Ref,
    index: Descriptor,
    around: Callable[[str], Surroundings],
    gpus: Sequence[str],
    *,
    held: Sequence[Digest] | None = None,
    remotes: Sequence[str] = (),
) -> LockedModel:
    """Pin a model for some GPUs.

    The plans that run without a GPU are locked too where the model has them: they cost next to nothing beside the
    weights, and a machine without the right runtime or driver takes them.

    Args:
        source: has the index and its documents.
        ref: what it is called.
        index: of the model; already vouched for.
        around: the surroundings of a GPU.
        gpus: as ``--gpu`` takes them.
        held: plan manifests that may be chosen; None allows all.
        remotes: where apps will find it.

    Raises:
        IncompatibleError: no plan fits one of the GPUs.
        IntegrityError: a document is damaged.
    """
    taken: dict[Digest, tuple[PlanDocument, list[str]]] = {}
    model: ModelDocument | None = None
    for gpu in dict.fromkeys((*gpus, PORTABLE)):
        with suppress(*([] if gpu in gpus else [IncompatibleError])):
            selection = select(source, ref, index, around(gpu), held)
            model = selection.model
            for plan in selection.plans.values():
                taken.setdefault(plan.descriptor.digest, (plan, []))[1].append(gpu)
    assert model is not None
    plans = [_plan(plan, wanted) for plan, wanted in taken.values()]
    packs = set(model.config.packs)
    return LockedModel(
        name=ref.name,
        tag=ref.tag,
        remotes=tuple(dict.fromkeys(remotes)),
        index=_blob(index),
        manifest=_blob(model.descriptor),
        config=_blob(model.manifest.config),
        graphs=_sorted(each for each in model.manifest.layers if each.media_type != PACK),
        packs=_sorted(each for each in model.manifest.layers if each.digest in packs),
        plans=tuple(sorted(plans, key=lambda plan: (plan.component, plan.target, plan.manifest.digest))),
    )


def lock_of(models: Iterable[LockedModel], gpus: Sequence[str]) -> Lock:
    """A lock file of models."""
    ordered = sorted(models, key=lambda model: (model.name, model.tag))
    return Lock(gpus=tuple(dict.fromkeys(gpus)), models=tuple(ordered))


def differences(before: LockedModel, now: LockedModel) -> list[str]:
    """What a lock file says and is no longer so, in words; empty when it is up to date."""
    ref = before.ref.tagged
    if before.index != now.index:
        return [f"{ref} is {now.index.digest} now, and locked as {before.index.digest}"]
    told = {plan.manifest.digest: plan for plan in before.plans}
    current = {plan.manifest.digest: plan for plan in now.plans}
    found = [f"{ref}: {_named(current[each])} is not in the lock" for each in current if each not in told]
    found += [f"{ref}: {_named(told[each])} is not taken any more" for each in told if each not in current]
    if not found and (before.blobs() != now.blobs() or before.plans != now.plans):
        found.append(f"{ref}: the lock does not say what its index says: it was edited")
    return found


def check_model(model: LockedModel, document: ModelDocument, plans: Iterable[PlanDocument]) -> None:
    """Raise unless documents that were read by a lock's index are those that the lock names.

    Raises:
        MalformedError: the lock was edited, or put together from two.
    """
    locked, hint = model.blobs(), "take it from version control again, or run 'wszoo lock --upgrade'"
    for each in document.blobs:
        if locked.get(each.digest) != each.size:
            raise MalformedError(
                f"the lock of {model.ref.tagged} does not name {each.digest} with {each.size} bytes, which its index "
                "leads to: it was edited",
                hint=hint,
            )
    told = {plan.manifest.digest: plan for plan in model.plans}
    for plan in plans:
        said = told[plan.descriptor.digest]
        if said != _plan(plan, said.gpus):
            raise MalformedError(
                f"the lock of {model.ref.tagged} says other things of the plan {plan.descriptor.digest} than the plan "
                "itself: it was edited",
                hint=hint,
            )


def _named(plan: LockedPlan) -> str:
    return f"the plan {plan.target} of {plan.component}"


def _plan(plan: PlanDocument, gpus: Iterable[str]) -> LockedPlan:
    config = plan.config
    return LockedPlan(
        component=config.component,
        target=config.target.name,
        gpus=tuple(gpus),
        manifest=_blob(plan.descriptor),
        config=_blob(plan.manifest.config),
        layers=tuple(_blob(each) for each in plan.manifest.layers),
        engine=LockedBlob(digest=config.engine_digest, size=config.engine_bytes),
    )


def _sorted(descriptors: Iterable[Descriptor]) -> tuple[LockedBlob, ...]:
    return tuple(sorted({_blob(each) for each in descriptors}))


def _blob(descriptor: Descriptor) -> LockedBlob:
    return LockedBlob(digest=descriptor.digest, size=descriptor.size)
