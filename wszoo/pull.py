"""Pulling: choose a plan for the GPU at hand, fetch what is missing, and remember it under its tag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.errors import IncompatibleError, MalformedError, NotFoundError, StorageError, TrustError
from wszoo.progress import Progress, Silent
from wszoo.resolver import Candidate, Resolution, resolve
from wszoo.schema.oci import INDEX, Descriptor
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
from wszoo.transfer import RemoteDocuments, fetch, missing
from wszoo.transfer.tensors import fetch_parts, plan_parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wszoo.digest import Digest
    from wszoo.gpu.machine import Machine, Runtime
    from wszoo.gpu.request import GpuRequest
    from wszoo.names import Ref
    from wszoo.remotes.protocol import Remote
    from wszoo.store.refs import Entry
    from wszoo.store.store import Store
    from wszoo.transfer import Tuning
    from wszoo.transfer.tensors import Parts

_ATTEMPTS = 50  # as many pulls of one tag would have to end in a row for us to give up


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a plan is chosen for.

    Attributes:
        machine: this machine.
        runtimes: what is installed on it.
        request: the GPU that was asked for.
        components: those wanted; None for all.
    """

    machine: Machine
    runtimes: tuple[Runtime, ...]
    request: GpuRequest
    components: Sequence[str] | None = None


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
        fetched: the blobs that were not here.
        partly: packs of which only tensors were fetched that were not here.
        partly_bytes: bytes of those tensors.
    """

    selection: Selection
    fetched: tuple[Descriptor, ...]
    partly: tuple[Descriptor, ...] = ()
    partly_bytes: int = 0

    @property
    def fetched_bytes(self) -> int:
        """Bytes of all that."""
        return sum(descriptor.size for descriptor in self.fetched) + self.partly_bytes


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
    offered = {each.digest: each for each in plan_descriptors(listed) if held is None or each.digest in held}
    candidates = [Candidate(digest=each.digest, facts=plan_facts(source, each)) for each in offered.values()]
    resolution = resolve(
        candidates,
        around.machine,
        around.runtimes,
        around.request,
        components=around.components if around.components is not None else sorted(model.config.components),
    )
    plans = {name: read_plan(source, offered[choice.candidate.digest]) for name, choice in resolution.choices.items()}
    for name, plan in plans.items():
        if facts_from_document(plan) != resolution.choices[name].candidate.facts:
            raise MalformedError(
                f"the index says other things of plan {plan.descriptor.digest} than the plan itself",
                hint="the publisher's index is wrong: tell them",
            )
    return Selection(ref=ref.pinned(index.digest), index=index, model=model, plans=plans, resolution=resolution)


def select_local(store: Store, ref: Ref, around: Surroundings) -> Selection:
    """Choose among the plans that are in a store.

    Raises:
        NotFoundError: no such ref.
        IncompatibleError: no plan that is here fits; another may be where the model came from.
    """
    entry = store.refs.get(ref)
    try:
        return select(store, ref, entry.descriptor, around, entry.held)
    except IncompatibleError as error:
        if entry.held is None:
            raise
        raise IncompatibleError(
            f"{error.message}\nThe model has other plans, which were not pulled.",
            hint=f"pull one that fits: wszoo pull {ref.tagged} --from REMOTE",
        ) from error


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
) -> PullReport:
    """Fetch a model and the plans that fit into a store.

    Args:
        store: where to.
        remote: where from.
        ref: what; a pin is checked.
        around: what to choose plans for.
        dry_run: only report.
        progress: where to report.
        mirrors: where else its blobs may be had; what the ref points to is asked of ``remote`` alone.
        tuning: how hard to try; None for the default.

    Raises:
        TrustError: nothing vouches for the remote.
        NotFoundError: the remote has no such ref, or not all of its blobs.
        IncompatibleError: a component has no plan that fits.
        IntegrityError: bytes are not what their digest says.
        RemoteError: the remote and its mirrors failed again and again.
        StorageError: the disk is full or refuses.
    """
    index = remote.resolve(ref)
    _check_trust(remote, ref)
    _check_pin(ref, index, remote)
    documents = RemoteDocuments(remote, tuple(mirrors), tuning)
    bare = Descriptor(media_type=INDEX, digest=index.digest, size=index.size)
    selection = select(documents, ref, bare, around)
    wanted = list(_needed(selection))
    if dry_run:
        lacking = missing(store, wanted)
        return _report(selection, lacking, plan_parts(store, ref, selection.model.config, lacking))
    with store.lease():
        lacking = missing(store, wanted)
        for data in documents.read_before.values():
            store.blobs.put(data)
        parts = plan_parts(store, ref, selection.model.config, lacking)
        fetcher = _Fetcher((remote, *mirrors), store, progress or Silent(), f"fetch {ref.tagged}", tuning)
        fetcher.fetch(lacking, parts)
        _remember(store, ref, selection)
    return _report(selection, lacking, parts)


@dataclass(frozen=True, slots=True)
class _Fetcher:
    remotes: Sequence[Remote]
    store: Store
    progress: Progress
    label: str
    tuning: Tuning | None

    def fetch(self, lacking: Sequence[Descriptor], parts: Parts) -> None:
        """Whole blobs first: tensors that are cut across packs are checked with them."""
        self._whole(each for each in lacking if each.digest not in parts.packs)
        if parts.packs:
            label = f"{self.label}: tensors"
            wrong = fetch_parts(self.remotes, self.store, parts, self.progress, label, tuning=self.tuning)
            if wrong:
                self._whole(each for each in lacking if each.digest in wrong)

    def _whole(self, descriptors: Iterable[Descriptor]) -> None:
        first, *mirrors = self.remotes
        wanted = missing(self.store, descriptors)
        fetch(first, self.store, wanted, self.progress, self.label, mirrors=mirrors, tuning=self.tuning)


def _report(selection: Selection, lacking: Sequence[Descriptor], parts: Parts) -> PullReport:
    return PullReport(
        selection=selection,
        fetched=tuple(each for each in lacking if each.digest not in parts.packs),
        partly=tuple(each for each in lacking if each.digest in parts.packs),
        partly_bytes=parts.size,
    )


def _check_trust(remote: Remote, ref: Ref) -> None:
    if not remote.trusted and ref.digest is None:
        raise TrustError(
            f"nothing vouches for {ref} at {remote.url}: a plan is native code",
            hint=f"pin it with {ref.tagged}@sha256:..., or copy it to a folder of yours and name that with --from",
        )


def _check_pin(ref: Ref, index: Descriptor, remote: Remote) -> None:
    if ref.digest is not None and ref.digest != index.digest:
        raise NotFoundError(
            f"{remote.url} has {ref.tagged} as {index.digest}, not as {ref.digest}",
            hint="the tag has moved since it was pinned: pull without the digest to take what is there now",
        )


def _needed(selection: Selection) -> list[Descriptor]:
    found = [selection.index]
    documents: list[ModelDocument | PlanDocument] = [selection.model, *selection.plans.values()]
    for document in documents:
        found += [document.descriptor, document.manifest.config, *document.manifest.layers]
    return list({descriptor.digest: descriptor for descriptor in found}.values())


def _remember(store: Store, ref: Ref, selection: Selection) -> None:
    for _ in range(_ATTEMPTS):
        entry = store.refs.find(ref.unpinned)
        held = _merge(entry, selection)
        if store.refs.swap(ref, selection.index, held=held, expected=entry):
            return
    raise StorageError(f"other processes keep changing {ref.tagged}", hint="try again when they are done")


def _merge(entry: Entry | None, selection: Selection) -> tuple[Digest, ...] | None:
    """The plans that are here now: those chosen, and those of the same index that were here before."""
    chosen = {plan.descriptor.digest for plan in selection.plans.values()}
    if entry is None or entry.descriptor.digest != selection.index.digest:
        return tuple(sorted(chosen))
    return None if entry.held is None else tuple(sorted(chosen | set(entry.held)))
