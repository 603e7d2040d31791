"""The plan manifest's config, and the facts about a plan that the resolver reads."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from wszoo.digest import Digest
from wszoo.schema.model import Dimension
from wszoo.schema.oci import Size

ARTIFACT = "application/vnd.wszoo.plan.v1"
CONFIG = "application/vnd.wszoo.plan.config.v1+json"
SPLICE_BASE = "application/vnd.wszoo.plan.splice-base.v1"
SPLICE = "application/vnd.wszoo.plan.splice.v1"
REFIT = "application/vnd.wszoo.plan.refit.v1+json+zstd"
NATIVE = "application/vnd.wszoo.plan.native.v1+zstd"


class Kind(StrEnum):
    """How a plan was stripped, hence how it is assembled."""

    SPLICE = "splice"
    NATIVE = "native"
    PORTABLE = "portable"


class HardwareCompatibility(StrEnum):
    """Which GPUs other than the one built for may run a plan (TensorRT's levels)."""

    NONE = "none"
    SAME_COMPUTE_CAPABILITY = "same_compute_capability"
    AMPERE_PLUS = "ampere_plus"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan was built for.

    Attributes:
        name: as the publisher spelled it: ``rtx-sm89``, ``portable``.
        backend: ``tensorrt_rtx``, ``tensorrt``, ``onnxruntime``.
        version: the builder's version; empty when any will do.
        compute_capabilities: dotted, those compiled for; empty means any.
        sku: the one GPU product it is for; empty means any of that compute capability.
        os: ``linux``, ``windows``; empty means any.
        arch: ``x86_64``, ``aarch64``; empty means any.
        hardware_compatibility: TensorRT's level: a :class:`HardwareCompatibility`, or one that a later wszoo knows.
        version_compatible: TensorRT's lean runtime of that version may run it, whatever TensorRT is installed.
        lean_excluded: that lean runtime is not inside of the plan: it has to be installed, or TensorRT of the very
            version. Absent means that it is inside, and then wszoo does not load the plan (ADR 26).
    """

    name: str
    backend: str
    version: str = ""
    compute_capabilities: tuple[str, ...] = ()
    sku: str = ""
    os: str = ""
    arch: str = ""
    hardware_compatibility: str = HardwareCompatibility.NONE.value
    version_compatible: bool = False
    lean_excluded: bool | msgspec.UnsetType = msgspec.UNSET


class ShapeRange(msgspec.Struct, frozen=True, kw_only=True):
    """The shapes of one input that an optimization profile covers."""

    min: tuple[Dimension, ...]
    opt: tuple[Dimension, ...]
    max: tuple[Dimension, ...]


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """An optimization profile: a shape range for each dynamic input."""

    name: str
    inputs: dict[str, ShapeRange]


class PlanConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one plan.

    Attributes:
        component: the network it runs.
        target: what it was built for.
        kind: how it is assembled: one of :class:`Kind`, or one that a later wszoo knows.
        profiles: in the order in which the engine numbers them; empty when every shape is fixed.
        engine_digest: sha256 of the full plan's bytes; for ``native``, of the stripped plan's, since refitting twice
            need not give the same bytes. Of a spliced plan it is for people: see ``engine_tree``.
        engine_bytes: size of the full plan.
        engine_tree: for ``splice``, the full plan's tree digest (:mod:`wszoo.tree`), which assembling checks.
        graph: digest of the serialized graph it was built from.
        weights: digest over the component's tensor table (see ``docs/format.md``); pins which weights fit.
        provenance: builder, flags, versions.
    """

    component: str
    target: Target
    kind: str
    profiles: tuple[Profile, ...] = ()
    engine_digest: Digest
    engine_bytes: Size
    graph: Digest
    weights: Digest
    provenance: dict[str, str] = {}
    engine_tree: Digest | msgspec.UnsetType = msgspec.UNSET

    @property
    def kept_as(self) -> Digest:
        """What the assembled engine is checked by, hence named by where it is kept; ADR 23."""
        return self.engine_tree if isinstance(self.engine_tree, Digest) else self.engine_digest
