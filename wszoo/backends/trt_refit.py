"""Giving weights to a stripped engine, by name from the store or through the ONNX parser, and keeping the result.

Has run only with a fake of the runtime (:mod:`tests.unit.backends.fake_tensorrt`); the calls are checked against the
bindings of tensorrt_rtx 1.7.1, tensorrt_lean 11.4 and the type stubs of tensorrt 10.13.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.backends.initializers import split
from wszoo.backends.trt_log import logger
from wszoo.backends.trt_types import ONNX_NAMES, WEIGHT_NAMES
from wszoo.errors import IncompatibleError, MalformedError
from wszoo.plans.native import check_map, unknown_rules, value_of
from wszoo.weights.tensor import dtype_of

if TYPE_CHECKING:
    from wszoo.backends.cuda_memory import Stream
    from wszoo.buffers import Bytes
    from wszoo.plans.native_map import Wanted
    from wszoo.schema.refit import RefitMap, RefitWeights
    from wszoo.weights.apart import Graph

_SHOWN = 5
_STALE = "the plan and its refit map do not belong together: pull them again, or tell the publisher"


def wanted_weights(trt: Any, engine: Any) -> list[Wanted]:  # noqa: ANN401 - the module has no type information
    """Name, element type and number of elements of everything that an engine takes.

    Raises:
        IncompatibleError: weights of a type that no tensor has.
    """
    refitter = trt.Refitter(engine, logger(trt)[1])
    return [_prototype(refitter, name) for name in refitter.get_all_weights()]


def refit(trt: Any, engine: Any, refit_map: RefitMap, graph: Graph, stream: Stream) -> None:  # noqa: ANN401
    """Give an engine all of its weights, by name.

    ``get_missing_weights()`` may leave some out (seen reported for TensorRT-RTX), so what the engine lists is compared
    with what was set.

    Args:
        trt: ``tensorrt_rtx`` or a sibling; the lean runtime too.
        engine: from the stripped plan; nothing may run on it meanwhile.
        refit_map: of that plan.
        graph: the network whose tensors to take. They are the caller's to check: for
            :attr:`wszoo.schema.refit.Mode.IDENTICAL`, other weights are undefined behaviour.
        stream: what to refit on, where the runtime can.

    Raises:
        IncompatibleError: the engine takes other weights than the map says, or refuses some; or the map has a rule that
            this version does not know.
        IntegrityError: the map is malformed, or tensors are not what the tensor table says.
    """
    check_map(refit_map, graph.tensors)
    for weights in unknown_rules(refit_map):
        raise IncompatibleError(
            f"the refit map makes {weights.name!r} by {weights.rule!r}", hint="pip install --upgrade wszoo"
        )
    log, theirs = logger(trt)
    mark = log.mark()
    refitter = trt.Refitter(engine, theirs)
    refitter.max_threads = max(1, os.cpu_count() or 1)
    _check_names(refitter, refit_map)
    held = [_set(trt, refitter, weights, value_of(weights, graph.tensors)) for weights in refit_map.weights]
    _finish(refitter, stream, log.reason, mark)
    del held  # TensorRT reads them until the stream has done its work


def refit_through_parser(trt: Any, engine: Any, graph: Graph, stream: Stream) -> None:  # noqa: ANN401
    """Give an engine all of its weights through TensorRT's ONNX parser: for maps that this wszoo cannot follow.

    Args:
        trt: a module with a parser, which the lean runtime has not.
        engine: from the stripped plan.
        graph: the network with its weights.
        stream: what to refit on, where the runtime can.

    Raises:
        IncompatibleError: the parser or the engine refuses, or weights are left over.
        IntegrityError: the graph and its tensors do not belong together.
    """
    log, theirs = logger(trt)
    mark = log.mark()
    proto, tensors = split(graph)
    held = [tensor.load() for tensor in tensors]  # must outlive the refitters
    refitter = trt.Refitter(engine, theirs)
    parser = trt.OnnxParserRefitter(refitter, theirs)
    done = parser.load_model_proto(proto)
    for tensor, data in zip(tensors, held, strict=True):
        done = done and parser.load_initializer(tensor.name, data.ctypes.data, data.nbytes)
    if not (done and parser.refit_model_proto()):
        raise IncompatibleError(f"TensorRT's parser does not refit the plan: {log.reason(mark)}", hint=_STALE)
    unset = [name for name in refitter.get_all_weights() if refitter.get_named_weights(name).size <= 0]
    if unset:
        raise IncompatibleError(f"TensorRT's parser sets no weights named {_list(unset)}", hint=_STALE)
    _finish(refitter, stream, log.reason, mark)


def serialize(trt: Any, engine: Any, *, weights: bool, refittable: bool = False) -> Any:  # noqa: ANN401
    """An engine's plan.

    Args:
        trt: the module.
        engine: refitted.
        weights: with its weights, or stripped again.
        refittable: it can be refitted once more (from TensorRT 10.14 on; before, a plan with weights never can).

    Returns:
        An ``IHostMemory``.

    Raises:
        IncompatibleError: TensorRT refuses.
    """
    log, _ = logger(trt)
    mark = log.mark()
    config = engine.create_serialization_config()
    flags = trt.SerializationFlag
    (config.clear_flag if weights else config.set_flag)(flags.EXCLUDE_WEIGHTS)
    if hasattr(flags, "INCLUDE_REFIT"):
        (config.set_flag if refittable else config.clear_flag)(flags.INCLUDE_REFIT)
    plan = engine.serialize_with_config(config)
    if plan is None:
        raise IncompatibleError(f"TensorRT does not serialize the engine: {log.reason(mark)}")
    return plan


def _prototype(refitter: Any, name: str) -> Wanted:  # noqa: ANN401
    prototype = refitter.get_weights_prototype(name)
    theirs = prototype.dtype.name
    ours = {their: our for our, their in WEIGHT_NAMES.items()} | ONNX_NAMES
    if theirs not in ours or prototype.size < 0:
        raise IncompatibleError(f"the engine wants {prototype.size} elements of {theirs} named {name!r}")
    return name, ours[theirs], prototype.size


def _check_names(refitter: Any, refit_map: RefitMap) -> None:  # noqa: ANN401
    listed, mapped = set(refitter.get_all_weights()), {weights.name for weights in refit_map.weights}
    if unknown := sorted(listed - mapped):
        raise IncompatibleError(f"the engine wants weights that the refit map lacks: {_list(unknown)}", hint=_STALE)
    if absent := sorted(mapped - listed):
        raise IncompatibleError(f"the engine has no weights named {_list(absent)}", hint=_STALE)


def _set(trt: Any, refitter: Any, weights: RefitWeights, data: Bytes) -> Bytes:  # noqa: ANN401
    _, dtype, count = _prototype(refitter, weights.name)
    if (dtype, count) != (weights.dtype, weights.count):
        raise IncompatibleError(
            f"the engine wants {count} elements of {dtype} named {weights.name!r}, "
            f"the refit map has {weights.count} of {weights.dtype}",
            hint=_STALE,
        )
    if data.nbytes != dtype_of(dtype).nbytes((count,)):  # TensorRT reads as many as it wants, whatever is there
        raise MalformedError(f"{count} elements of {dtype} named {weights.name!r} come as {data.nbytes} bytes")
    if data.ctypes.data % dtype_of(dtype).numpy.itemsize:  # anywhere in a pack, and TensorRT loads aligned
        data = np.copy(data)
    theirs = trt.Weights(getattr(trt.DataType, WEIGHT_NAMES[dtype]), data.ctypes.data, count)
    if not refitter.set_named_weights(weights.name, theirs):
        raise IncompatibleError(f"the engine does not take the weights named {weights.name!r}", hint=_STALE)
    return data


def _finish(refitter: Any, stream: Stream, reason: Any, mark: int) -> None:  # noqa: ANN401
    if missing := list(refitter.get_missing_weights()):
        raise IncompatibleError(f"the engine misses weights named {_list(missing)}", hint=_STALE)
    if hasattr(refitter, "refit_cuda_engine_async"):
        done = refitter.refit_cuda_engine_async(int(stream))
        stream.synchronize()
    else:
        done = refitter.refit_cuda_engine()
    if not done:
        raise IncompatibleError(f"TensorRT does not refit the engine: {reason(mark)}", hint=_STALE)


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more
