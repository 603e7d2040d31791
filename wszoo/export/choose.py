"""What of a model is exported: components, and plans by the name of their target, or all that are here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from wszoo.errors import NotFoundError, UsageError
from wszoo.export.formats import Needs, find_format
from wszoo.export.job import Chosen, ambiguous
from wszoo.names import sm_name
from wszoo.schema.facts import from_annotations
from wszoo.schema.plan import Kind
from wszoo.store.documents import model_descriptor, plan_descriptors, plan_facts, read_index, read_model, read_plan
from wszoo.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wszoo.digest import Digest
    from wszoo.names import Ref
    from wszoo.schema.facts import PlanFacts
    from wszoo.schema.oci import Descriptor, Index
    from wszoo.store.documents import ModelDocument, PlanDocument
    from wszoo.store.store import Store


class _Selected(Protocol):
    """What :func:`wszoo.distribution.pull.select_local` gives, which stands beside this package."""

    @property
    def ref(self) -> Ref: ...
    @property
    def model(self) -> ModelDocument: ...
    @property
    def plans(self) -> dict[str, PlanDocument]: ...


@dataclass(frozen=True, slots=True)
class _Offer:
    """A plan that the index lists."""

    descriptor: Descriptor
    facts: PlanFacts
    here: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a user named.

    Attributes:
        to: the format.
        gpu: take the plans that fit it.
        targets: take the plans for these.
        components: those wanted; None for all.
    """

    to: str
    gpu: str | None = None
    targets: tuple[str, ...] = ()
    components: Sequence[str] | None = None


def choose(store: Store, ref: Ref, wanted: Wanted, fitting: Callable[[str], _Selected]) -> Chosen:
    """Choose as the user asked, or else as the format needs.

    Args:
        store: holds the model.
        ref: the model.
        wanted: what the user named.
        fitting: chooses the plans that fit a GPU.

    Raises:
        UsageError: no such format, or both a GPU and targets were named.
        NotFoundError: no such ref, component or target, or the plan was not pulled.
        IncompatibleError: no plan fits the GPU.
        IntegrityError: a document is damaged.
    """
    needs = find_format(wanted.to).needs
    if wanted.targets and wanted.gpu is not None:
        raise UsageError("both a GPU and targets were named", hint="name one or the other")
    if wanted.targets:
        return by_target(store, ref, wanted.targets, wanted.components)
    if wanted.gpu is None and needs is not Needs.FITTING:
        return everything_here(store, ref, wanted.components)
    return chosen_from(fitting(wanted.gpu or "auto"))


def chosen_from(selection: _Selected) -> Chosen:
    """The plans that the resolver chose."""
    plans = tuple(selection.plans.values())
    return Chosen(ref=selection.ref, model=selection.model, components=tuple(selection.plans), plans=plans)


def everything_here(store: Store, ref: Ref, components: Sequence[str] | None = None) -> Chosen:
    """Every plan that is in the store, of some components or all.

    Raises:
        NotFoundError: no such ref, or no such component.
        IntegrityError: a document is damaged.
    """
    chosen, offers = _survey(store, ref, components)
    plans = [offer.descriptor for offer in offers if offer.here]
    return _with_plans(store, chosen, plans)


def by_target(store: Store, ref: Ref, targets: Sequence[str], components: Sequence[str] | None = None) -> Chosen:
    """The plans for some targets: of each component one for each target.

    Raises:
        NotFoundError: no such ref, component or target, or the plan was not pulled; the hint says how to.
        UsageError: a component has several plans for one target.
        IntegrityError: a document is damaged.
    """
    chosen, offers = _survey(store, ref, components)
    wanted = [
        _find(chosen.ref, offers, component, target)
        for component in chosen.components
        for target in dict.fromkeys(targets)
    ]
    return _with_plans(store, chosen, wanted)


def _survey(store: Store, ref: Ref, components: Sequence[str] | None) -> tuple[Chosen, list[_Offer]]:
    entry = store.refs.get(ref)
    index = read_index(store, entry.descriptor)
    model = read_model(store, model_descriptor(index))
    names = tuple(model.config.components)
    for name in components or ():
        if name not in names:
            known = ", ".join(map(printable, names))
            raise NotFoundError(f"{ref.tagged} has no component {name!r}", hint=f"there is: {known}")
    wanted = tuple(name for name in names if components is None or name in components)
    offers = _offers(store, index, entry.held)
    chosen = Chosen(ref=ref.pinned(entry.descriptor.digest), model=model, components=wanted)
    return chosen, [offer for offer in offers if offer.facts.component in wanted]


def _offers(store: Store, index: Index, held: Sequence[Digest] | None) -> list[_Offer]:
    offers = []
    for each in plan_descriptors(index):
        here = held is None or each.digest in held
        if here or from_annotations(each) is not None:  # else another tool dropped what is known of it
            offers.append(_Offer(each, plan_facts(store, each), here))
    return offers


def _find(ref: Ref, offers: Sequence[_Offer], component: str, target: str) -> Descriptor:
    found = [offer for offer in offers if (offer.facts.component, offer.facts.target.name) == (component, target)]
    if not found:
        known = sorted({printable(offer.facts.target.name) for offer in offers if offer.facts.component == component})
        raise NotFoundError(
            f"{ref.tagged} has no plan of {component} for {target!r}", hint=f"there is: {', '.join(known) or 'none'}"
        )
    here = [offer for offer in found if offer.here]
    if not here:
        raise NotFoundError(
            f"the plan of {component} for {target} was not pulled",
            hint=f"fetch it: wszoo pull {ref.tagged} --gpu {_gpu(found[0].facts)} --from REMOTE",
        )
    if len(here) > 1:
        raise ambiguous(ref, component, target, len(here))
    return here[0].descriptor


def _gpu(facts: PlanFacts) -> str:
    """What ``--gpu`` makes ``pull`` take a plan."""
    capabilities = facts.target.compute_capabilities
    return "none" if facts.kind == Kind.PORTABLE or not capabilities else sm_name(printable(capabilities[0]))


def _with_plans(store: Store, chosen: Chosen, descriptors: Sequence[Descriptor]) -> Chosen:
    return replace(chosen, plans=tuple(read_plan(store, each) for each in descriptors))
