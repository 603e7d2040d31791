"""A store's models in a line each, and what they share; read again only where something changed."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from wszoo.catalog.sharing import Sharing, Tensors, tensors_of
from wszoo.describe import look, tensor_sizes
from wszoo.errors import WszooError
from wszoo.names import capability_key, sm_name
from wszoo.progress import Silent
from wszoo.report import totals
from wszoo.schema.decode import encode
from wszoo.text import printable

if TYPE_CHECKING:
    from wszoo.describe import ModelView
    from wszoo.digest import Digest
    from wszoo.names import Ref
    from wszoo.progress import Progress
    from wszoo.store.refs import Entry
    from wszoo.store.store import Store

PORTABLE = "portable"
_SLUG = re.compile(r"[^a-z0-9]+")
_LONGEST_SLUG = 80
_NONE = tensors_of({})


class Summary(msgspec.Struct, frozen=True, array_like=True):
    """A model in the list. As JSON it is an array in this order, which ``static/catalog.js`` reads.

    Attributes:
        page: name of its page, without folder and ``.html``.
        ref: ``name:tag``.
        family: the plugin that made it.
        gpus: ``sm89`` and the like, and ``portable``: what its plans are for.
        components: how many networks.
        full: bytes of every engine with its own copy of the weights.
        stored: bytes of the weights once and every plan.
        weights: raw bytes of the weights.
        licence: SPDX, or empty.
        signatures: how many are here.
        problem: why it cannot be read; empty when it can.
    """

    page: str
    ref: str
    family: str = ""
    gpus: tuple[str, ...] = ()
    components: int = 0
    full: int = 0
    stored: int = 0
    weights: int = 0
    licence: str = ""
    signatures: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A model as it was read once.

    Attributes:
        entry: its ref.
        summary: its line.
        tensors: what it may share.
        seen: hash of everything about it that a page shows.
    """

    entry: Entry
    summary: Summary
    tensors: Tensors
    seen: bytes


class Survey:
    """The models of a store as they were read, by name and tag.

    Memory: about a kilobyte a model, and 16 bytes a tensor.

    Args:
        store: which.
        progress: where to report.
        before: an earlier survey; models whose ref has not changed since are taken from it.
    """

    def __init__(self, store: Store, progress: Progress | None = None, *, before: Survey | None = None) -> None:
        known = {model.entry.ref: model for model in before.models} if before else {}
        entries, damage = store.refs.survey()
        ours = [entry for entry in entries if not entry.ref.is_referrers]
        self.store = store
        self.models: list[Surveyed] = []
        with (progress or Silent()).stage("read models", len(ours), unit="models") as advance:
            for entry in ours:
                same = known.get(entry.ref)
                self.models.append(same if same and same.entry == entry else survey(store, entry))
                advance(1)
        self.problems = [told(store, error) for error in damage]
        self.sharing = Sharing([model.tensors for model in self.models])
        self._by_page = {model.summary.page: place for place, model in enumerate(self.models)}

    def place(self, page: str) -> int | None:
        """The position of the model with that page."""
        return self._by_page.get(page)


def survey(store: Store, entry: Entry) -> Surveyed:
    """Read one model; one that cannot be read says so."""
    try:
        view, document = look(store, entry)
        summary, tensors = summary_of(view, entry.ref), tensors_of(tensor_sizes(document.config))
    except WszooError as error:
        summary = Summary(page=page_name(entry.ref), ref=entry.ref.tagged, problem=told(store, error))
        return Surveyed(entry, summary, _NONE, hashlib.sha256(encode(summary)).digest())
    return Surveyed(entry, summary, tensors, hashlib.sha256(encode(view)).digest())


def told(store: Store, error: WszooError) -> str:
    """What is wrong, for everybody: without the place on this machine where the store is."""
    return printable(error.message.replace(f"{store.layout.root}{os.sep}", ""))


def summary_of(view: ModelView, ref: Ref) -> Summary:
    """A model's line."""
    total = totals(view)
    return Summary(
        page=page_name(ref),
        ref=printable(view.ref),
        family=printable(view.family),
        gpus=tuple(map(printable, gpus_of(view))),
        components=len(view.components),
        full=total.full,
        stored=total.stored,
        weights=view.weight_bytes,
        licence=printable(view.licence),
        signatures=view.signatures,
    )


def gpus_of(view: ModelView) -> list[str]:
    """What the plans that are here are for: ``sm75`` before ``sm120``, ``portable`` last."""
    held = [plan for plan in view.plans if plan.held]
    found = {capability for plan in held for capability in plan.compute_capabilities if _is_number(capability)}
    named = [sm_name(each) for each in sorted(found, key=capability_key)]
    return [*named, *([PORTABLE] if any(not plan.compute_capabilities for plan in held) else [])]


def page_name(ref: Ref) -> str:
    """A file name that no other ref has, safe everywhere: what can be read of the ref, and a hash of all of it."""
    slug = _SLUG.sub("-", ref.tagged.lower()).strip("-")[:_LONGEST_SLUG]
    return f"{slug}-{hashlib.sha256(ref.tagged.encode()).hexdigest()[:32]}"


def pinned(entry: Entry) -> Ref:
    """The ref, pinned to what it points to."""
    digest: Digest = entry.descriptor.digest
    return entry.ref.pinned(digest)


def _is_number(capability: str) -> bool:
    return re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,2}", capability) is not None
