"""A graph and its weights as an ONNX file that other programs read.

Weights go to one file beside it, a tensor at a time, so memory holds one tensor whatever the model's size. A tensor
that a component has under two names is written once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import onnx

    from wszoo.digest import Digest
    from wszoo.export.folder import ExportFolder, OutFile
    from wszoo.schema.model import TensorInfo
    from wszoo.weights.apart import Graph
    from wszoo.weights.tensor import Tensor

ALIGN = 64  # a cache line, and what vector units and GPUs' copy engines like
# Large tensors begin where Windows can map a file (64 KiB), which is a page's start everywhere else. With 1 MiB and
# more, the gaps cost under 7 %, and nothing to speak of in a file system that keeps holes.
LARGE, GRANULARITY = 1 << 20, 64 << 10


def write_onnx(
    folder: ExportFolder,
    name: str,
    graph: Graph,
    infos: Sequence[TensorInfo],
    advance: Callable[[int], None],
    *,
    data: str,
) -> None:
    """Write a graph, and its weights as external data.

    Args:
        folder: where to.
        name: of the model's file.
        graph: the network.
        infos: its tensor table, in the tensors' order.
        advance: told the bytes of each tensor that was written.
        data: name of the file for the weights; the model refers to its last part.

    Raises:
        MalformedError: the graph and its tensors do not belong together, or it points to files of its own.
        BuildError: the weights in bodies of If and Loop, which must go inline, are over protobuf's 2 GiB.
        IntegrityError: a tensor is damaged.
        StorageError: the disk is full or refuses.
    """
    model, tensors = _take_apart(graph)
    digests = {info.name: info.digest for info in infos}
    with folder.open(data) as out:
        places = _write_tensors(out, tensors, digests, advance)
    for init in model.graph.initializer:
        if init.name in places:
            _point(init, data.rsplit("/", 1)[-1], *places[init.name])
    folder.write(name, model.SerializeToString(deterministic=True))


def write_inline(folder: ExportFolder, name: str, graph: Graph, advance: Callable[[int], None]) -> None:
    """Write a graph with its weights in the same file: all of it in memory, at most protobuf's 2 GiB.

    Raises:
        BuildError: it would be larger.
        MalformedError: the graph and its tensors do not belong together, or it points to files of its own.
        IntegrityError: a tensor is damaged.
        StorageError: the disk is full or refuses.
    """
    from wszoo.weights.graph import attach

    model, tensors = _take_apart(graph)
    try:
        whole = attach(model.SerializeToString(deterministic=True), {tensor.name: tensor for tensor in tensors})
    except BuildError as error:
        raise BuildError(
            error.message, hint="export it without --inline: the weights go to a file beside it"
        ) from error
    folder.write(name, whole)
    advance(graph.weight_bytes)


def check_file(path: Path, component: str) -> None:
    """Let onnx's checker read what was written, external data included.

    Raises:
        BuildError: it refuses.
    """
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise BuildError(
            f"onnx's checker refuses the graph of {component!r}: {error}",
            hint="the model was published like this: tell its publisher",
        ) from error


def _take_apart(graph: Graph) -> tuple[onnx.ModelProto, tuple[Tensor, ...]]:
    import onnx

    from wszoo.backends.initializers import split

    proto, tensors = split(graph)
    return onnx.ModelProto.FromString(proto), tensors


def _write_tensors(
    out: OutFile, tensors: Sequence[Tensor], digests: dict[str, Digest], advance: Callable[[int], None]
) -> dict[str, tuple[int, int]]:
    written: dict[Digest, tuple[int, int]] = {}
    for tensor in tensors:
        digest = digests[tensor.name]
        if digest not in written:
            written[digest] = (out.align(GRANULARITY if tensor.nbytes >= LARGE else ALIGN), tensor.nbytes)
            out.write(tensor.load())
            advance(tensor.nbytes)
    return {tensor.name: written[digests[tensor.name]] for tensor in tensors}


def _point(init: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    init.ClearField("external_data")
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        init.external_data.add(key=key, value=value)
