"""Native plans in a store: a stripped plan and its refit map, and the weights that the map asks for.

The arithmetic of a folded BatchNormalization is the ONNX parser's: in fp32, each result rounded once to the weights'
own type (onnx-tensorrt, ``ModelRefitter::batchnormWeightRefitter``; bit for bit what tensorrt_rtx 1.7.1 puts into the
network, in fp32 and fp16). Light: it does not import onnx.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.codecs import zstd
from wszoo.digest import Digest
from wszoo.errors import BuildError, LimitError, MalformedError
from wszoo.schema.decode import decode, encode
from wszoo.schema.plan import NATIVE, REFIT
from wszoo.schema.refit import RefitMap, Rule
from wszoo.weights.gain import most_decoded
from wszoo.weights.tensor import dtype_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wszoo.buffers import Bytes
    from wszoo.schema.oci import Manifest
    from wszoo.schema.plan import PlanConfig
    from wszoo.schema.refit import Operand, RefitWeights
    from wszoo.store.documents import DocumentSource
    from wszoo.weights.tensor import Tensor

LEVEL = 19
MAX_LAYER = 1 << 30  # compressed
MAX_PLAN = 4 << 30  # a stripped plan: SDXL's unet has 58 MB, a version-compatible one 105 MB more
MAX_MAP = 16 << 20  # decoded; about 100 bytes an entry, and SDXL's unet has 1,700 tensors. 60 MB of "{}" took 1.6 GB
_BATCH_NORM = 4  # operands


def pack_map(refit: RefitMap) -> bytes:
    """The layer that plans of one network share.

    Raises:
        BuildError: it would be larger than what is read again.
    """
    data = encode(refit)
    if len(data) > MAX_MAP:
        raise BuildError(
            f"the refit map has {len(data)} bytes; up to {MAX_MAP} can be read",
            hint="the graph holds too much inline: build it whole, for a target that wszoo cuts the weights out of",
        )
    return zstd.compress(data, level=LEVEL)


def pack_plan(plan: bytes) -> bytes:
    """The layer that only this plan has.

    Raises:
        BuildError: it would be larger, or decode to more, than what is read again.
    """
    layer = zstd.compress(plan, level=LEVEL)
    if len(layer) > MAX_LAYER or len(plan) > _most(layer):
        raise BuildError(
            f"the stripped plan has {len(plan)} bytes, {len(layer)} when packed; up to {_most(layer)} and {MAX_LAYER} "
            "can be read",
            hint="please report the model",
        )
    return layer


def read_map(source: DocumentSource, manifest: Manifest) -> RefitMap:
    """The refit map of a native plan.

    Raises:
        IntegrityError: it is missing, damaged or malformed.
    """
    layer = _layer(source, manifest, REFIT)
    size = zstd.declared_size(layer, limit=MAX_MAP)
    return decode(zstd.decompress(layer, size=size), RefitMap, what="a refit map")


def read_plan(source: DocumentSource, manifest: Manifest, config: PlanConfig, refit: RefitMap) -> bytes:
    """The stripped plan, checked against the config's digest.

    Raises:
        IntegrityError: it is missing, damaged, malformed, or another plan.
    """
    layer = _layer(source, manifest, NATIVE)
    if refit.plan_bytes > _most(layer):
        raise LimitError(f"a stripped plan claims {refit.plan_bytes} bytes, more than the {_most(layer)} accepted")
    plan = zstd.decompress(layer, size=refit.plan_bytes)
    config.engine_digest.check(Digest.of(plan), f"the stripped plan of {config.component}")
    return plan


def _most(layer: bytes) -> int:
    """The most bytes that a stripped plan may have, whoever made it."""
    return min(MAX_PLAN, most_decoded(len(layer)))


def unknown_rules(refit: RefitMap) -> list[RefitWeights]:
    """What a map makes by rules of a later version; such a plan can only be refitted through TensorRT's parser."""
    known = frozenset(Rule)
    return [weights for weights in refit.weights if weights.rule not in known]


def check_map(refit: RefitMap, tensors: Sequence[Tensor]) -> None:
    """Check what nobody vouches for, before any of it reaches native code.

    What is made by rules of a later version is left out, since nothing here follows them (:func:`unknown_rules`).

    Raises:
        MalformedError: a name twice, an operand that is not in the tensor table, or sizes that contradict each other.
    """
    names = {weights.name for weights in refit.weights}
    if len(names) != len(refit.weights):
        raise MalformedError("a refit map names weights twice")
    later = {weights.name for weights in unknown_rules(refit)}
    for weights in refit.weights:
        if weights.name in later:
            continue
        wanted = 1 if weights.rule == Rule.COPY else _BATCH_NORM
        if len(weights.operands) != wanted:
            raise MalformedError(f"the refit map makes {weights.name!r} of {len(weights.operands)} operands")
        for operand in weights.operands:
            _check_operand(weights, operand, tensors)


def _check_operand(weights: RefitWeights, operand: Operand, tensors: Sequence[Tensor]) -> None:
    if operand.tensor is None:
        dtype, nbytes = dtype_of(operand.dtype), len(operand.data)
    elif operand.tensor < len(tensors):
        dtype, nbytes = tensors[operand.tensor].dtype, tensors[operand.tensor].nbytes
    else:
        raise MalformedError(f"the refit map makes {weights.name!r} of tensor {operand.tensor} of {len(tensors)}")
    if nbytes != dtype.nbytes((weights.count,)):
        raise MalformedError(
            f"the refit map makes {weights.count} elements of {weights.name!r} out of {nbytes} bytes of {dtype.name}"
        )
    converts = dtype.name != weights.dtype or weights.rule != Rule.COPY
    if converts and not all(each.is_float and not each.packed for each in (dtype, dtype_of(weights.dtype))):
        raise MalformedError(f"the refit map turns {dtype.name} into {weights.dtype} for {weights.name!r}")


def value_of(weights: RefitWeights, tensors: Sequence[Tensor]) -> Bytes:
    """The bytes that the engine takes under one name: the tensor's own memory where nothing has to be computed.

    Args:
        weights: of a map that :func:`check_map` has passed, by a rule that this version knows.
        tensors: the component's.

    Returns:
        ``count`` elements of the engine's type, little-endian.
    """
    if weights.rule == Rule.COPY:
        (operand,) = weights.operands
        if _dtype(operand, tensors) == weights.dtype:
            return _bytes(operand, tensors)
        with np.errstate(all="ignore"):
            return _flat(_array(operand, tensors).astype(dtype_of(weights.dtype).numpy))
    scale, bias, mean, variance = (_array(operand, tensors) for operand in weights.operands)
    scale, shift = fold(scale, bias, mean, variance, weights.epsilon)
    wanted = dtype_of(weights.dtype).numpy
    with np.errstate(all="ignore"):
        return _flat((scale if weights.rule == Rule.BATCH_NORM_SCALE else shift).astype(wanted))


def fold(
    scale: NDArray[Any], bias: NDArray[Any], mean: NDArray[Any], variance: NDArray[Any], epsilon: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A BatchNormalization as one scale and one shift, as the parser folds it.

    Args:
        scale: [channels], as the other arrays.
        bias: added last.
        mean: of the training data.
        variance: of the training data.
        epsilon: added to the variance, in the arrays' type.

    Returns:
        Scale and shift in the arrays' type if all have the same, else in fp32.
    """
    kinds = {array.dtype for array in (scale, bias, mean, variance)}
    kind = kinds.pop() if len(kinds) == 1 else np.dtype(np.float32)
    with np.errstate(all="ignore"):  # the numbers are whatever the publisher wrote
        wide = [array.astype(np.float32) for array in (scale, bias, mean, variance)]
        small = np.array(epsilon, np.float32).astype(kind).astype(np.float32)
        folded = (wide[0] / np.sqrt(wide[3] + small)).astype(kind)
        return folded, (wide[1] - wide[2] * folded.astype(np.float32)).astype(kind)


def _dtype(operand: Operand, tensors: Sequence[Tensor]) -> str:
    return operand.dtype if operand.tensor is None else tensors[operand.tensor].dtype.name


def _bytes(operand: Operand, tensors: Sequence[Tensor]) -> Bytes:
    if operand.tensor is None:
        return np.frombuffer(operand.data, np.uint8)
    return tensors[operand.tensor].load()


def _array(operand: Operand, tensors: Sequence[Tensor]) -> NDArray[Any]:
    return _bytes(operand, tensors).view(dtype_of(_dtype(operand, tensors)).numpy)


def _flat(array: NDArray[Any]) -> Bytes:
    return np.ascontiguousarray(array).view(np.uint8)


def _layer(source: DocumentSource, manifest: Manifest, media_type: str) -> bytes:
    found = [layer for layer in manifest.layers if layer.media_type == media_type]
    if len(found) != 1:
        raise MalformedError(f"a native plan has {len(found)} layers of type {media_type} instead of one")
    return source.read(found[0], limit=MAX_LAYER)
