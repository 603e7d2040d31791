"""Plan facts as descriptor annotations: one small fetch of the index lets the resolver decide.

Other tools may drop annotations, so the same facts stand in the plan's config, and a reader copes without these.
"""

from __future__ import annotations

import msgspec

from wszoo.digest import Digest
from wszoo.errors import MalformedError
from wszoo.schema.decode import decode, encode
from wszoo.schema.oci import Descriptor, Size
from wszoo.schema.plan import PlanConfig, Target

PREFIX = "org.wszoo."
_PLAN = PREFIX + "plan"
_MAX_LAYERS = 2


class PlanFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the resolver needs to know about a plan.

    Attributes:
        component: the network it runs.
        kind: how it is assembled.
        target: what it was built for.
        profiles: names of its optimization profiles.
        engine_digest: sha256 of the full plan.
        engine_bytes: size of the full plan.
        engine_tree: as in :class:`wszoo.schema.plan.PlanConfig`.
        plan_bytes: what is stored and shipped for it, all layers.
        shared_bytes: the part of ``plan_bytes`` in layers that other plans of the component use too.
        plan_digest: of the layer that only this plan has.
        shared_digest: of the layer that it shares; None when there is none.
    """

    component: str
    kind: str
    target: Target
    profiles: tuple[str, ...] = ()
    engine_digest: Digest
    engine_bytes: Size
    plan_bytes: Size
    shared_bytes: Size = 0
    plan_digest: Digest
    shared_digest: Digest | None = None
    engine_tree: Digest | msgspec.UnsetType = msgspec.UNSET

    @property
    def kept_as(self) -> Digest:
        """What the assembled engine is checked by, hence named by where it is kept; ADR 23."""
        return self.engine_tree if isinstance(self.engine_tree, Digest) else self.engine_digest


def facts_of(config: PlanConfig, layers: tuple[Descriptor, ...]) -> PlanFacts:
    """The facts of a plan whose config and layers are at hand; the last layer is its own, one before it is shared.

    Raises:
        MalformedError: it has no layers, or more than two.
    """
    if not 1 <= len(layers) <= _MAX_LAYERS:
        raise MalformedError(f"a plan of {config.component!r} has {len(layers)} layers")
    shared = layers[:-1]
    return PlanFacts(
        component=config.component,
        kind=config.kind,
        target=config.target,
        profiles=tuple(profile.name for profile in config.profiles),
        engine_digest=config.engine_digest,
        engine_bytes=config.engine_bytes,
        engine_tree=config.engine_tree,
        plan_bytes=sum(layer.size for layer in layers),
        shared_bytes=sum(layer.size for layer in shared),
        plan_digest=layers[-1].digest,
        shared_digest=shared[0].digest if shared else None,
    )


def to_annotations(facts: PlanFacts) -> dict[str, str]:
    """The facts as annotations: one JSON value, and the two that people look for when they inspect an index."""
    return {
        _PLAN: encode(facts).decode(),
        PREFIX + "component": facts.component,
        PREFIX + "target": facts.target.name,
    }


def from_annotations(descriptor: Descriptor) -> PlanFacts | None:
    """The facts that stand in a plan manifest's descriptor, or None when another tool dropped them.

    Raises:
        MalformedError: they stand there and are malformed.
    """
    text = descriptor.annotations.get(_PLAN)
    if text is None:
        return None
    try:
        return decode(text.encode(), PlanFacts, what=f"the annotation {_PLAN} of {descriptor.digest}")
    except UnicodeEncodeError as error:
        raise MalformedError(f"the annotation {_PLAN} of {descriptor.digest} is not text") from error
