"""What a matrix of builds came to, for tables and for programs."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class State(StrEnum):
    """What became of a cell."""

    KEPT = "kept"
    BUILT = "built"
    TO_BUILD = "to build"
    FAILED = "failed"
    NO_NODE = "no node"


class Ending(StrEnum):
    """What became of a model."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    PLANNED = "planned"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


class CellReport(msgspec.Struct, frozen=True, kw_only=True):
    """One cell.

    Attributes:
        component: the network; ``*`` for a target that no node can build.
        target: what it is for.
        sku: the one GPU product that it is for; empty for several.
        profiles: names of its optimization profiles.
        state: what became of it.
        key: of the build: what it was made from, as a digest.
        plan: digest of its manifest; empty without one.
        where: the node that built it.
        seconds: that it took there.
        error: what happened.
        kind: the error's class.
        hint: what to do about it.
        log: file with the end of the builder's log.
    """

    component: str
    target: str
    sku: str = ""
    profiles: tuple[str, ...] = ()
    state: State
    key: str = ""
    plan: str = ""
    where: str = ""
    seconds: float = 0.0
    error: str = ""
    kind: str = ""
    hint: str = ""
    log: str = ""


class ModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """One model.

    Attributes:
        ref: its name, pinned once it is published.
        state: what became of it.
        cells: all of them.
        new_weight_bytes: stored bytes that it added to the store's packs.
        sent_bytes: that were pushed in the end.
        error: why it failed as a whole.
        hint: what to do about it.
    """

    ref: str
    state: Ending
    cells: tuple[CellReport, ...] = ()
    new_weight_bytes: int = 0
    sent_bytes: int = 0
    error: str = ""
    hint: str = ""

    def count(self, state: State) -> int:
        """How many cells ended so."""
        return sum(cell.state is state for cell in self.cells)


class MatrixReport(msgspec.Struct, frozen=True, kw_only=True):
    """All models.

    Attributes:
        models: in the order in which they were asked for.
    """

    models: tuple[ModelReport, ...]

    def count(self, state: State) -> int:
        """How many cells of all models ended so."""
        return sum(model.count(state) for model in self.models)

    @property
    def failed(self) -> bool:
        """True when a cell or a model failed, or a target has no node."""
        lost = self.count(State.FAILED) + self.count(State.NO_NODE)
        return bool(lost) or any(model.state in {Ending.FAILED, Ending.INCOMPLETE} for model in self.models)
