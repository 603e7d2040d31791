"""Pulling: choose a plan for the GPU at hand, fetch what is missing, and remember it under its tag."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from wszoo.errors import IncompatibleError, MalformedError, StorageError
from wszoo.parallel import ordered_map
from wszoo.progress import Progress, Silent
from wszoo.resolver import Candidate, Resolution, resolve
from wszoo.schema.oci import INDEX, Descriptor, held_in
from wszoo.store.documents import (
    DocumentSource,
    ModelDocument,
    PlanDocument,
    facts_from_document,
    model_descriptor,
    plan_descriptors,
    plan_facts,
    read_index,
    read_model,
    read_plan,
)
from wszoo.store.engine_only import check_pulled, keep_engines_only, keep_weights, packs_beside
from wszoo.transfer import Follower, RemoteDocuments, fetch, missing
from wszoo.transfer.tensors import fetch_parts, plan_parts
from wszoo.trust.vouching import Vouched, vouch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from wszoo.digest import Digest
    from wszoo.gpu.machine import Machine, Runtime
    from wszoo.gpu.request import GpuRequest
    from wszoo.names import Ref
    from wszoo.remotes.protocol import Remote
    from wszoo.schema.trust import Decision
    from wszoo.store.refs import Entry
    from wszoo.store.store import Store
    from wszoo.transfer import Tuning
    from wszoo.transfer.tensors import Part, Parts

_ATTEMPTS = 50  # as many pulls of one tag would have to end in a row for us to give up


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a plan is chosen for.

    Attributes:
        machine: this machine.
        runtimes: what is installed on it.
        request: the GPU that was asked for.
        components: those wanted; None for all.
        avoid: digests or target names of plans not to take.
    """

    machine: Machine
    runtimes: tuple[Runtime, ...]
    request: GpuRequest
    components: Sequence[str] | None = None
    avoid: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A model with the plans that were chosen.

    Attributes:
        ref: pinned.
        index: descriptor of its index.
        model: its manifest and config.
        plans: the chosen plan of each component.
        resolution: why.
    """

    ref: Ref
    index: Descriptor
    model: ModelDocument
    plans: dict[str, PlanDocument]
    resolution: Resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class PullReport:
    """What a pull did, or would do.

    Attributes:
        selection: what was chosen.
        trust: why the index was taken.
        fetched: the blobs that were not here.
        partly: of packs of which only tensors were fetched that were not here.
    """

    selection: Selection
    trust: Decision
    fetched: tuple[Descriptor, ...]
    partly: tuple[Part, ...] = ()

    @property
    def fetched_bytes(self) -> int:
        """Bytes of all that."""
        return sum(each.size for each in self.fetched) + sum(part.size for part in self.partly)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What of an index is wanted, and why it may be taken.

    Attributes:
        vouched: why.
        selection: what.
        names: refs under which the store is to keep it.
        engines_only: its weights may go once its plans are kept whole; those that went are not fetched again.
    """

    vouched: Vouched
    selection: Selection
    names: tuple[Ref, ...]
    engines_only: bool = False


class PullFollower(Follower, Protocol):
    """Who follows a pull."""

    def chosen(self, selection: Selection, lacking: Collection[Digest]) -> None:
        """The transfer begins.

        Args:
            selection: what is pulled; it may be taken.
            lacking: blobs of it that are not in the store; :meth:`arrived` tells of those that are fetched as a whole.
        """
        ...


def select(
    source: DocumentSource, ref: Ref, index: Descriptor, around: Surroundings, held: Sequence[Digest] | None = None
) -> Selection:
    """Choose a plan for each component.

    Args:
        source: a store or remote.
        ref: for messages and the result.
        index: descriptor of the model's index.
        around: what to choose for.
        held: plan manifests that may be chosen; None allows all.

    Raises:
        IncompatibleError: a component has no plan that fits.
        IntegrityError: a document is damaged or malformed.
    """
    listed = read_index(source, index)
    model = read_model(source, model_descriptor(listed))
    published = {each.digest: each for each in plan_descriptors(listed)}
    offered = {digest: each for digest, each in published.items() if held is None or digest in held}
    candidates = [Candidate(digest=each.digest, facts=plan_facts(source, each)) for each in offered.values()]
    try:
        resolution = resolve(
            candidates,
            around.machine,
            around.runtimes,
            around.request,
            components=around.components if around.components is not None else sorted(model.config.components),
            avoid=around.avoid,
        )
    except IncompatibleError as error:
        raise _with_others(error, ref, len(published) - len(offered)) from error
    plans = {name: read_plan(source, offered[choice.candidate.digest]) for name, choice in resolution.choices.items()}
    for name, plan in plans.items():
        if facts_from_document(plan) != resolution.choices[name].candidate.facts:
            raise MalformedError(
                f"the index says other things of plan {plan.descriptor.digest} than the plan itself",
                hint="the publisher's index is wrong: tell them",
            )
    return Selection(ref=ref.pinned(index.digest), index=index, model=model, plans=plans, resolution=resolution)


def _with_others(error: IncompatibleError, ref: Ref, others: int) -> IncompatibleError:
    """The error, and that only some of a model's plans were to choose from: in a store, a bundle, or a lock file."""
    if not others:
        return error
    return IncompatibleError(
        f"{error.message}\nThe model has {others} other plans, which were not to choose from here.",
        hint=f"pull one that fits from where all of them are: wszoo pull {ref.tagged} --from REMOTE; a lock file and "
        "its bundle have plans for the GPUs that they were made for",
    )


def select_local(store: Store, ref: Ref, around: Surroundings) -> Selection:
    """Choose among the plans that are in a store.

    Raises:
        NotFoundError: no such ref.
        IncompatibleError: no plan that is here fits; another may be where the model came from.
    """
    entry = store.refs.get(ref)
    return select(store, ref, entry.descriptor, around, entry.held)


def pull(
    store: Store,
    remote: Remote,
    ref: Ref,
    around: Surroundings,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    mirrors: Sequence[Remote] = (),
    tuning: Tuning | None = None,
    allow_unsigned: bool = False,
    engines_only: bool = False,
    follower: PullFollower | None = None,
) -> PullReport:
    """Fetch a model and the plans that fit into a store.

    Nothing of the model is read before :func:`wszoo.trust.vouching.vouch` has said that it may be.

    Args:
        store: where to.
        remote: where from.
        ref: what; a pin is checked.
        around: what to choose plans for.
        dry_run: only report.
        progress: where to report.
        mirrors: where else its blobs may be had; what the ref points to is asked of ``remote`` alone.
        tuning: how hard to try; None for the default.
        allow_unsigned: take it also if nothing vouches for it.
        engines_only: see :class:`Order`.
        follower: is told what is chosen, and of each blob that arrives.

    Raises:
        GivenUp: the follower wants no more.
        UsageError: ``engines_only``, and all of the model is here, as after a build.
        TrustError: nothing vouches for what the remote has.
        NotFoundError: the remote has no such ref, or not all of its blobs.
        IncompatibleError: a component has no plan that fits.
        IntegrityError: bytes are not what their digest says.
        RemoteError: the remote and its mirrors failed again and again.
        StorageError: the disk is full or refuses.
    """
    if engines_only:
        check_pulled(store.refs.find(ref.unpinned))
    index = remote.resolve(ref)
    documents = RemoteDocuments(remote, tuple(mirrors), tuning)
    vouched = vouch(store, remote, documents, ref, index, allow_unsigned=allow_unsigned)
    bare = Descriptor(media_type=INDEX, digest=index.digest, size=index.size)
    selection = select(documents, ref, bare, around, held_in(index))
    order = Order(vouched=vouched, selection=selection, names=(ref.unpinned,), engines_only=engines_only)
    return take(store, documents, order, dry_run=dry_run, progress=progress, follower=follower)


def take(
    store: Store,
    documents: RemoteDocuments,
    order: Order,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
    follower: PullFollower | None = None,
) -> PullReport:
    """Fetch what an order needs. Arguments and errors as for :func:`pull`, which has looked whether it may be taken."""
    ref, selection = order.vouched.ref, order.selection
    trust = order.vouched.decision
    wanted = needed_here(store, selection, engines_only=order.engines_only)
    if dry_run:
        lacking = missing(store, wanted)
        return _report(selection, trust, lacking, plan_parts(store, ref, selection.model.config, lacking))
    with store.lease():
        if not order.engines_only:
            keep_weights(store.layout, selection.index.digest)
        lacking = missing(store, wanted)
        deque(ordered_map(store.blobs.put, documents.read_before.values()), maxlen=0)  # each waits for the disk
        parts = plan_parts(store, ref, selection.model.config, lacking)
        remotes = (documents.remote, *documents.mirrors)
        if follower is not None:
            follower.chosen(selection, {each.digest for each in lacking})
        fetcher = _Fetcher(remotes, store, progress or Silent(), f"fetch {ref.tagged}", documents.tuning, follower)
        fetcher.fetch(lacking, parts)
        order.vouched.note(store)
        for name in order.names:
            remember(store, name, selection, _origin(documents.remote))
            if order.engines_only:
                keep_engines_only(store, store.refs.get(name))
        order.vouched.keep_signatures(store)
    return _report(selection, trust, lacking, parts)


@dataclass(frozen=True, slots=True)
class _Fetcher:
    remotes: Sequence[Remote]
    store: Store
    progress: Progress
    label: str
    tuning: Tuning | None
    follower: PullFollower | None = None

    def fetch(self, lacking: Sequence[Descriptor], parts: Parts) -> None:
        """Whole blobs first: tensors that are cut across packs are checked with them."""
        self._whole(each for each in lacking if each.digest not in parts.packs)
        if parts.packs:
            label = f"{self.label}: tensors"
            wrong = fetch_parts(
                self.remotes, self.store, parts, self.progress, label, tuning=self.tuning, follower=self.follower
            )
            if wrong:
                self._whole(each for each in lacking if each.digest in wrong)

    def _whole(self, descriptors: Iterable[Descriptor]) -> None:
        first, *mirrors = self.remotes
        fetch(
            first,
            self.store,
            missing(self.store, descriptors),
            self.progress,
            self.label,
            mirrors=mirrors,
            tuning=self.tuning,
            follower=self.follower,
        )


def _report(selection: Selection, trust: Decision, lacking: Sequence[Descriptor], parts: Parts) -> PullReport:
    return PullReport(
        selection=selection,
        trust=trust,
        fetched=tuple(each for each in lacking if each.digest not in parts.packs),
        partly=tuple(parts.of(each) for each in lacking if each.digest in parts.packs),
    )


def needed(selection: Selection) -> list[Descriptor]:
    """Every blob of a model and its chosen plans, each once."""
    found = [selection.index]
    documents: list[ModelDocument | PlanDocument] = [selection.model, *selection.plans.values()]
    for document in documents:
        found += [document.descriptor, document.manifest.config, *document.manifest.layers]
    return list({descriptor.digest: descriptor for descriptor in found}.values())


def needed_here(store: Store, selection: Selection, *, engines_only: bool) -> list[Descriptor]:
    """Like :func:`needed`; with ``engines_only`` without packs that the chosen plans, kept whole, need nothing of."""
    if not engines_only:
        return needed(selection)
    spare = packs_beside(store.layout, selection.model.config, [plan.config for plan in selection.plans.values()])
    return [each for each in needed(selection) if each.digest not in spare]


def remember(store: Store, ref: Ref, selection: Selection, origin: str) -> None:
    """Point a ref of a store at what was selected, whose blobs are there.

    Raises:
        StorageError: the file system refuses, or other processes keep changing the ref.
    """
    for _ in range(_ATTEMPTS):
        entry = store.refs.find(ref.unpinned)
        held = _merge(entry, selection)
        if store.refs.swap(ref, selection.index, held=held, expected=entry, source=origin):
            return
    raise StorageError(f"other processes keep changing {ref.tagged}", hint="try again when they are done")


def _origin(remote: Remote) -> str:
    """How to name the remote again from another folder; without credentials, as all remotes show themselves."""
    return remote.url if "://" in remote.url else str(Path(remote.url).absolute())


def _merge(entry: Entry | None, selection: Selection) -> tuple[Digest, ...] | None:
    """The plans that are here now: those chosen, and those of the same index that were here before."""
    chosen = {plan.descriptor.digest for plan in selection.plans.values()}
    if entry is None or entry.descriptor.digest != selection.index.digest:
        return tuple(sorted(chosen))
    return None if entry.held is None else tuple(sorted(chosen | set(entry.held)))
