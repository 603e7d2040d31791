"""What the page of one model shows beyond its sizes: how to get it, what it shares, its card."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.catalog.survey import PORTABLE, gpus_of, pinned, told
from wszoo.describe import look
from wszoo.distribution.pull import Surroundings
from wszoo.errors import IncompatibleError, WszooError
from wszoo.gpu.machine import Machine, Runtime
from wszoo.gpu.request import parse_gpu
from wszoo.lock.document import lock_text
from wszoo.lock.making import lock_model, lock_of
from wszoo.report import reading_order, target_names
from wszoo.store.documents import read_asset
from wszoo.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.catalog.survey import Summary, Survey
    from wszoo.describe import ModelView, PlanView
    from wszoo.digest import Digest
    from wszoo.schema.lock import Lock
    from wszoo.schema.oci import Descriptor
    from wszoo.store.documents import ModelDocument
    from wszoo.store.refs import Entry
    from wszoo.store.store import Store

REMOTE = "REMOTE"  # in commands, where the address of the store is not known; static/page.js fills it in if it can
NEIGHBOURS = 20  # models with shared weights that a page lists
MAX_CARD = 64 << 10  # bytes of a model card that are shown
_CARDS = ("card.md", "readme.md", "model_card.md")
# A lock is the same whatever machine makes it: one that can run portable plans, and has no GPU of its own.
_MACHINE = Machine(os="linux", arch="x86_64")
_RUNTIMES = (Runtime(backend="onnxruntime", version="1.22", devices=("cpu",)),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Another model that holds some of the same tensors.

    Attributes:
        summary: its line.
        nbytes: raw bytes in common.
    """

    summary: Summary
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """A model's page.

    Attributes:
        view: what ``wszoo show`` says.
        summary: its line in the list.
        targets: the names of the matrix's rows.
        plans: component -> target -> its plans; each with what to call it.
        listed: every plan as people read them, with what to call its target.
        shared_bytes: raw bytes of weights that other models have too.
        neighbours: the models that have most of them.
        more_neighbours: how many are not listed.
        pull: a command line.
        lock: a command line; empty where no lock can be made.
        lock_file: what that command writes.
        card: the model card's text; empty when it has none.
    """

    view: ModelView
    summary: Summary
    targets: tuple[str, ...]
    plans: dict[str, dict[str, list[PlanView]]]
    listed: tuple[tuple[PlanView, str], ...]
    shared_bytes: int
    neighbours: tuple[Neighbour, ...]
    more_neighbours: int
    pull: str
    lock: str
    lock_file: str
    card: str


def detail(survey: Survey, place: int, url: str) -> Detail:
    """Read all that the page of the model at that position shows.

    Args:
        survey: up to date.
        place: position in ``survey.models``.
        url: of the store, for commands; empty when it is not known.

    Raises:
        WszooError: the model cannot be read.
    """
    model = survey.models[place]
    view, document = look(survey.store, model.entry)
    ordered, shared = reading_order(view), survey.sharing.of(place)
    near = tuple(Neighbour(summary=survey.models[other].summary, nbytes=nbytes) for other, nbytes in shared.others)
    gpus, lock = _lock(survey.store, model.entry, view, url)
    return Detail(
        view=view,
        summary=model.summary,
        targets=tuple(dict.fromkeys(plan.target for plan in _by_target(ordered))),
        plans=_matrix(ordered),
        listed=tuple(zip(ordered, target_names(ordered), strict=True)),
        shared_bytes=shared.nbytes,
        neighbours=near[:NEIGHBOURS],
        more_neighbours=max(len(near) - NEIGHBOURS, 0),
        pull=_command("pull", model.entry, "--gpu auto", url),
        lock=_command("lock", model.entry, f"--gpu {','.join(gpus)}", url) if lock else "",
        lock_file=lock_text(lock) if lock else "",
        card=_card(survey.store, document),
    )


def _by_target(plans: Sequence[PlanView]) -> list[PlanView]:
    """In the order of the matrix's rows: a component's own order, portable plans behind all others."""
    return sorted(plans, key=lambda plan: plan.kind == PORTABLE)


def _matrix(plans: Sequence[PlanView]) -> dict[str, dict[str, list[PlanView]]]:
    matrix: dict[str, dict[str, list[PlanView]]] = {}
    for plan in plans:
        matrix.setdefault(plan.component, {}).setdefault(plan.target, []).append(plan)
    return matrix


def _command(verb: str, entry: Entry, options: str, url: str) -> str:
    return f"wszoo {verb} {pinned(entry)} {options} --from {shlex.quote(printable(url)) if url else REMOTE}"


def _lock(store: Store, entry: Entry, view: ModelView, url: str) -> tuple[list[str], Lock | None]:
    """The lock for every GPU that the model has all its plans for."""
    wanted = [gpu for gpu in gpus_of(view) if gpu != PORTABLE] or ["none"]
    lock = _locked(store, entry, wanted, url)
    if lock is None:
        wanted = [gpu for gpu in wanted if _locked(store, entry, [gpu], url)]
        lock = _locked(store, entry, wanted, url) if wanted else None
    return wanted, lock


class _Once:
    """A store whose documents are read and hashed once, though every GPU of a lock asks for them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[Digest, bytes] = {}

    def read(self, descriptor: Descriptor, *, limit: int) -> bytes:
        data = self._read.get(descriptor.digest)
        if data is None:
            data = self._read[descriptor.digest] = self._store.read(descriptor, limit=limit)
        return data


def _locked(store: Store, entry: Entry, gpus: Sequence[str], url: str) -> Lock | None:
    def around(gpu: str) -> Surroundings:
        return Surroundings(machine=_MACHINE, runtimes=_RUNTIMES, request=parse_gpu(gpu))

    remotes = [url] if url else []
    with suppress(IncompatibleError):
        model = lock_model(_Once(store), entry.ref, entry.descriptor, around, gpus, held=entry.held, remotes=remotes)
        return lock_of([model], gpus)
    return None


def _card(store: Store, document: ModelDocument) -> str:
    names = {name.lower(): name for name in document.config.assets}
    name = next((names[card] for card in _CARDS if card in names), None)
    if name is None:
        return ""
    digest = document.config.assets[name]
    if (store.blobs.size(digest) or 0) > MAX_CARD:
        return f"{printable(name)} is longer than {MAX_CARD >> 10} KiB; 'wszoo show --asset' prints it"
    try:
        text = read_asset(store, document, name).decode(errors="replace")
    except WszooError as error:
        return f"{printable(name)} cannot be read: {told(store, error)}"
    return "\n".join(map(printable, text.splitlines()))
