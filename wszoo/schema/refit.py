"""The refit map: how to give a stripped engine its weights by name, from a component's tensor table alone.

It is made when the plan is built, where the graph and the engine are both at hand, so that a client needs neither an
ONNX file nor a parser: the lean runtime has none.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from wszoo.schema.oci import Size

MAX_INLINE = 64 << 10  # bytes; tensors of 1,024 bytes and more are in the tensor table
MAX_WEIGHTS = 1 << 20


class Mode(StrEnum):
    """Which weights a stripped plan takes."""

    IDENTICAL = "identical"  # those that it was built with: anything else is undefined behaviour in TensorRT
    ANY = "any"  # any of the same names, types and shapes


class Rule(StrEnum):
    """How an engine's weights come from operands."""

    COPY = "copy"
    BATCH_NORM_SCALE = "batch_norm_scale"
    BATCH_NORM_SHIFT = "batch_norm_shift"


class Operand(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Elements that a rule computes with.

    Attributes:
        tensor: position in the component's tensor table; None when the graph itself holds them.
        dtype: lower-case ONNX element type, of inline elements.
        data: inline elements, little-endian.
    """

    tensor: Annotated[int, msgspec.Meta(ge=0)] | None = None
    dtype: str = ""
    data: Annotated[bytes, msgspec.Meta(max_length=MAX_INLINE)] = b""


class RefitWeights(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry of ``Refitter.get_all_weights()``.

    Attributes:
        name: as the engine calls it: an initializer, a Constant node's output, or what the parser made up.
        dtype: lower-case ONNX element type that the engine takes.
        count: elements that it takes.
        rule: one of :class:`Rule`, or one that a later wszoo knows.
        operands: one to copy; for a folded BatchNormalization its scale, bias, mean and variance.
        epsilon: of the BatchNormalization.
    """

    name: str
    dtype: str
    count: Size
    rule: str = Rule.COPY.value
    operands: tuple[Operand, ...]
    epsilon: float = 0.0


class RefitMap(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that refitting a plan takes beside the tensors.

    Attributes:
        mode: one of :class:`Mode`.
        plan_bytes: size of the stripped plan.
        weights: all that the engine lists, in its order.
    """

    mode: str
    plan_bytes: Size
    weights: Annotated[tuple[RefitWeights, ...], msgspec.Meta(max_length=MAX_WEIGHTS)]
