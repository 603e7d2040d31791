"""Giving one version's stripped plans the weights of another: ``wszoo refit REF --weights NEWREF``.

A plan that was built with TensorRT's REFIT takes any weights of the same names, types and shapes. So a new version
whose network is the same gets such plans by a manifest of its own over the very same layers: nothing is built, no GPU
is needed, and nobody fetches the plan again. A plan built with REFIT_IDENTICAL takes its own weights only; anything
else is undefined behaviour, and refused by the digest of the weights when a plan is assembled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.building.earlier import reason_against, refitted
from wszoo.errors import IncompatibleError, NotFoundError
from wszoo.publish import publish, read_published
from wszoo.store.engine_only import keeps_engines_only

if TYPE_CHECKING:
    from wszoo.names import Ref
    from wszoo.publish import Published
    from wszoo.store.documents import PlanDocument
    from wszoo.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class RefitReport:
    """What refitting did.

    Attributes:
        ref: the version that got plans, pinned to its new index.
        plans: those that it got.
        left: plans of the other version that do not take other weights, with the reason.
    """

    ref: Ref
    plans: tuple[PlanDocument, ...]
    left: tuple[tuple[PlanDocument, str], ...]


def _not_here(store: Store, ref: Ref, published: Published) -> NotFoundError:
    entry = published.entry
    if entry is None or not keeps_engines_only(store.layout, entry.descriptor.digest):
        return NotFoundError(f"{ref.tagged} is not here, or not all of it", hint=f"wszoo pull {ref.tagged}")
    return NotFoundError(
        f"{ref.tagged} was pulled with --keep engine, and its weights are not all here any more",
        hint=f"fetch them again: wszoo pull {ref.tagged} --from {entry.source or 'REMOTE'}",
    )


def refit(store: Store, ref: Ref, weights: Ref) -> RefitReport:
    """Publish the plans of ``ref`` with the weights of ``weights``, under the latter's tag.

    Raises:
        NotFoundError: no such ref, or not all of it is here.
        IncompatibleError: no plan takes the other weights.
        IntegrityError: a document is damaged.
        StorageError: the file system refuses.
    """
    there, new = read_published(store, ref), read_published(store, weights)
    for name, published in ((ref, there), (weights, new)):
        if published.model is None:
            raise _not_here(store, name, published)
    assert new.model is not None
    taken, left = [], []
    for plan in there.plans:
        component = new.model.config.components.get(plan.config.component)
        reason = reason_against(store, plan, component)
        if reason or component is None:
            left.append((plan, reason))
            continue
        taken.append(refitted(store, plan, component))
    if not taken:
        reasons = dict.fromkeys(f"{plan.config.target.name}: {reason}" for plan, reason in left)
        raise IncompatibleError(
            f"no plan of {ref.tagged} takes the weights of {weights.tagged}: {'; '.join(reasons) or 'it has none'}",
            hint="plans that do are built with a target such as 'trt-sm89.refit'",
        )
    descriptor = publish(store, weights, new.model, taken)
    return RefitReport(ref=weights.pinned(descriptor.digest), plans=tuple(taken), left=tuple(left))
