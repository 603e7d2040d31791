"""ONNX graphs without their weights, and the weights as tensors: taking a model apart and putting it together.

Weights are found wherever ONNX keeps them: initializers (inline or in external data), Constant nodes (Paddle exports
hold all of theirs there), and both again in subgraphs. In the graph that remains, each is an initializer that says
"external data" with the location :data:`LOCATION`; its bytes come by name from the store.
"""

from __future__ import annotations

import math
import mmap
import stat
from collections import Counter
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import onnx

from wszoo.errors import BuildError, MalformedError, NotFoundError, StorageError, WszooError
from wszoo.schema.model import MAX_DIMENSION, MAX_RANK, Value
from wszoo.weights.apart import Graph
from wszoo.weights.foreign import check_names, parse_model
from wszoo.weights.tensor import Tensor, dtype_from_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wszoo.buffers import Bytes

__all__ = [
    "LOCATION",
    "PROTOBUF_LIMIT",
    "Graph",
    "attach",
    "constant_of",
    "external_initializers",
    "graph_from_file",
    "graph_from_model",
    "scalars",
    "subgraphs",
]

LOCATION = "wszoo"  # external-data location of every tensor that was taken out

# Below this a tensor stays in the graph: its digest in the tensor table alone takes 64 characters.
MIN_TENSOR = 128
# Integer tensors up to this size are shapes, axes and indices, which parsers need as constants to infer shapes.
MAX_SHAPE_TENSOR = 1024

_SHOWN = 200  # characters of what a model says about its external data

_EXTERNAL = onnx.TensorProto.EXTERNAL
_INTEGERS = {onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL}
PROTOBUF_LIMIT = (1 << 31) - 1


def graph_from_file(path: Path) -> Graph:
    """Take an ONNX file apart; external data is mapped, not read.

    Raises:
        NotFoundError: the file, or its external data, does not exist.
        MalformedError: not an ONNX model, or external data outside the model's folder or past its file's end.
    """
    try:
        model = onnx.load_model(path, format="protobuf", load_external_data=False)
    except FileNotFoundError:
        raise NotFoundError(f"no such file: {path}") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # protobuf raises its own DecodeError, whose module has moved between versions
        raise MalformedError(f"{path} is not an ONNX model: {error}") from error
    # A hub's cache links every file to a folder of blobs, so data may also lie beside what the model's own link names.
    return _take_apart(model, _ExternalFiles((path.parent, path.resolve().parent), str(path)))


def graph_from_model(model: onnx.ModelProto, folder: Path | None = None, *, name: str = "the model") -> Graph:
    """Take a model apart. ``model`` is changed in place.

    Args:
        model: with weights inline or in external data.
        folder: where its external data lies; None when it has none.
        name: for error messages.

    Raises:
        MalformedError: external data outside ``folder`` or past its file's end; no graph; two tensors of one name.
    """
    return _take_apart(model, _ExternalFiles((folder,) if folder else (), name))


def _take_apart(model: onnx.ModelProto, files: _ExternalFiles) -> Graph:
    if not model.graph.node:
        raise MalformedError(f"{files.model} has no nodes: it is not an ONNX model, or an empty one")
    check_names(model)
    _drop_unused(model.graph)
    taker = _Taker(files)
    taker.take(model.graph)
    inner = {init.name for init in model.graph.initializer}  # before IR version 4 each is listed as an input too
    inputs = tuple(_value(value) for value in model.graph.input if value.name not in inner)
    outputs = tuple(_value(value) for value in model.graph.output)
    _drop_notes(model)
    proto = model.SerializeToString(deterministic=True)
    return Graph(proto, tuple(taker.tensors.values()), inputs, outputs)


def attach(proto: bytes, tensors: dict[str, Tensor], *, limit: int = PROTOBUF_LIMIT) -> bytes:
    """Put weights back into a graph, inline: a stand-alone ONNX file's bytes.

    Raises:
        MalformedError: a tensor that the graph needs is missing.
        BuildError: the result would be over protobuf's 2 GiB.
    """
    model = parse_model(proto)
    if sum(tensor.nbytes for tensor in tensors.values()) + len(proto) > limit:
        raise BuildError("the model with its weights inline is over 2 GiB, protobuf's limit")
    for init in external_initializers(model.graph):
        if init.name not in tensors:
            raise MalformedError(f"the graph needs a tensor {init.name!r} that the tensor table does not have")
        init.ClearField("external_data")
        init.data_location = onnx.TensorProto.DEFAULT
        init.raw_data = tensors[init.name].load().tobytes()
    return bytes(model.SerializeToString(deterministic=True))


def external_initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The initializers that were taken out, subgraphs included."""
    for inner in subgraphs(graph):
        yield from (init for init in inner.initializer if init.data_location == _EXTERNAL)


def scalars(proto: bytes) -> list[tuple[str, bytes]]:
    """The distinct float scalars that the graph multiplies or divides by: (element type, raw bytes).

    Builders fold such factors into neighbouring weights (attention's 1/sqrt(d) into the query projection).
    """
    model = parse_model(proto)
    values: dict[str, onnx.TensorProto] = {}
    used: set[str] = set()
    for graph in subgraphs(model.graph):
        values.update({init.name: init for init in graph.initializer})
        for node in graph.node:
            if (constant := constant_of(node)) is not None:
                values[node.output[0]] = constant
            elif node.op_type in {"Mul", "Div"}:
                used.update(node.input)
    found: dict[tuple[str, bytes], None] = {}
    for name in used & values.keys():
        tensor = values[name]
        dtype = dtype_from_onnx(tensor.data_type)
        if dtype.is_float and math.prod(tensor.dims) == 1 and tensor.data_location != _EXTERNAL:
            found[dtype.name, _inline(tensor, dtype.nbytes(tensor.dims)).tobytes()] = None
    return sorted(found)


def subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and the bodies of its control flow at any depth."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from subgraphs(attribute.g)
            elif attribute.type == onnx.AttributeProto.GRAPHS:
                for inner in attribute.graphs:
                    yield from subgraphs(inner)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drop initializers that nothing reads: ONNX Runtime drops them too, and then refuses to be given their weights."""
    used = {value.name for value in graph.input}  # there, an initializer is a default that a caller may replace
    for inner in subgraphs(graph):
        used.update(value.name for value in inner.output)
        for note in inner.quantization_annotation:
            used.update(entry.value for entry in note.quant_parameter_tensor_names)
        for node in inner.node:
            used.update(node.input)
    for inner in subgraphs(graph):
        unused = [place for place, init in enumerate(inner.initializer) if init.name not in used]
        for place in reversed(unused):
            del inner.initializer[place]


def _drop_notes(model: onnx.ModelProto) -> None:
    """Drop what computes nothing: torch leaves stack traces there, with paths that differ from machine to machine."""
    for noted in (model, *_parts(model)):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")


def _parts(model: onnx.ModelProto) -> Iterator[Any]:
    for graph in subgraphs(model.graph):
        yield from (graph, *graph.node, *graph.input, *graph.output, *graph.value_info)
    for function in model.functions:
        yield from (function, *function.node)


class _Taker:
    """Moves weights out of a graph and its subgraphs, in order."""

    def __init__(self, files: _ExternalFiles) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._files = files

    def take(self, graph: onnx.GraphProto) -> None:
        for inner in subgraphs(graph):
            self._constants_to_initializers(inner)
            self._check_once(inner)
            for init in inner.initializer:
                if init.data_location == _EXTERNAL or _is_weight(init):
                    self._take_one(init)

    def _check_once(self, graph: onnx.GraphProto) -> None:
        counts = Counter(init.name for init in graph.initializer)
        twice = next((name for name, count in counts.items() if count > 1), None)
        if twice is not None:
            raise MalformedError(
                f"{self._files.model} has two tensors named {twice!r}",
                hint="export it again: names stand for one value",
            )

    def _constants_to_initializers(self, graph: onnx.GraphProto) -> None:
        kept = []
        outputs = {value.name for value in graph.output}
        for node in graph.node:
            constant = None if outputs.intersection(node.output) else constant_of(node)  # a node has to make an output
            if constant is not None and (constant.data_location == _EXTERNAL or _is_weight(constant)):
                tensor = onnx.TensorProto()
                tensor.CopyFrom(constant)
                tensor.name = node.output[0]
                graph.initializer.append(tensor)
            else:
                kept.append(node)
        if len(kept) < len(graph.node):
            copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
            del graph.node[:]
            graph.node.extend(copies)

    def _take_one(self, init: onnx.TensorProto) -> None:
        dtype, shape = dtype_from_onnx(init.data_type), tuple(init.dims)
        if any(dimension < 0 for dimension in shape):
            raise MalformedError(f"tensor {init.name!r} has the shape {list(shape)}")
        nbytes = dtype.nbytes(shape)
        flat = self._files.map(init, nbytes) if init.data_location == _EXTERNAL else _inline(init, nbytes)
        small = nbytes < MIN_TENSOR or (init.data_type in _INTEGERS and nbytes <= MAX_SHAPE_TENSOR)
        if small or init.name in self.tensors:  # the branches of an If may use one name for two tensors
            init.ClearField("external_data")
            init.data_location = onnx.TensorProto.DEFAULT
            init.raw_data = flat.tobytes()
            return
        self.tensors[init.name] = Tensor(init.name, dtype, shape, lambda: flat)
        bare = onnx.TensorProto(name=init.name, data_type=init.data_type, dims=init.dims, data_location=_EXTERNAL)
        bare.external_data.add(key="location", value=LOCATION)
        init.CopyFrom(bare)


def constant_of(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The value of a Constant node; None for other nodes, and for integers, strings and sparse tensors."""
    if node.op_type != "Constant" or node.domain not in {"", "ai.onnx"} or len(node.output) != 1:
        return None
    for attribute in node.attribute:
        if attribute.name == "value":
            return attribute.t
        if attribute.name in {"value_float", "value_floats"}:
            values = attribute.f if attribute.name == "value_float" else attribute.floats
            return onnx.numpy_helper.from_array(np.array(values, np.float32))
    return None


def _is_weight(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type in {onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED}:
        return False
    nbytes = dtype_from_onnx(tensor.data_type).nbytes(tensor.dims)
    return nbytes >= MIN_TENSOR and not (tensor.data_type in _INTEGERS and nbytes <= MAX_SHAPE_TENSOR)


def _inline(init: onnx.TensorProto, nbytes: int) -> Bytes:
    if init.HasField("raw_data"):
        flat = np.frombuffer(init.raw_data, np.uint8)
    else:  # typed fields (float_data, int32_data): let onnx unpack them
        try:
            proto = onnx.numpy_helper.from_array(np.ascontiguousarray(onnx.numpy_helper.to_array(init)))
        except (ValueError, TypeError, OverflowError) as error:
            raise MalformedError(f"tensor {init.name!r} of shape {list(init.dims)} is malformed: {error}") from error
        flat = np.frombuffer(proto.raw_data, np.uint8)
    if len(flat) != nbytes:
        raise MalformedError(f"tensor {init.name!r} of shape {list(init.dims)} has {len(flat)} bytes, not {nbytes}")
    return flat


class _ExternalFiles:
    """Maps external data; each file once.

    Args:
        folders: where locations start, then others that its links may lead to; empty when there is no external data.
        model: for error messages.
    """

    def __init__(self, folders: tuple[Path, ...], model: str) -> None:
        self.model = model
        self._folders = folders
        self._maps: dict[str, Bytes] = {}

    def map(self, init: onnx.TensorProto, nbytes: int) -> Bytes:
        info = {entry.key: entry.value for entry in init.external_data}
        where = f"external data of tensor {init.name!r} in {self.model}"
        try:
            offset, length = int(info.get("offset", 0)), int(info.get("length", nbytes))
        except ValueError:
            raise MalformedError(f"{where}: offset or length is not a number: {str(info)[:_SHOWN]}") from None
        data = self._file(info.get("location", ""), where)
        if length != nbytes or offset < 0 or offset + length > len(data):
            raise MalformedError(
                f"{where}: {length} bytes at {offset} do not fit shape {list(init.dims)} ({nbytes} bytes) "
                f"in a file of {len(data)} bytes"
            )
        return data[offset : offset + length]

    def _file(self, location: str, where: str) -> Bytes:
        if location not in self._maps:
            path = self._inside(location, where)
            try:
                with _open_regular(path) as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise NotFoundError(f"{where}: cannot read {path}: {error}") from error
            self._maps[location] = np.frombuffer(mapped, np.uint8)
        return self._maps[location]

    def _inside(self, location: str, where: str) -> Path:
        pure = PurePosixPath(location)
        outside = pure.is_absolute() or PureWindowsPath(location).drive or ".." in pure.parts
        outside = outside or "\\" in location or "\0" in location
        if not self._folders or not location or outside:
            raise MalformedError(
                f"{where} points outside the model's folder: {location!r}",
                hint="put the data file beside the model and save the model again",
            )
        path = self._folders[0] / pure
        if not any(path.resolve().is_relative_to(folder.resolve()) for folder in self._folders):
            raise MalformedError(f"{where} leaves the model's folder through a link: {location!r}")
        return path


def _open_regular(path: Path) -> BinaryIO:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
        raise OSError("not a regular file")
    return path.open("rb")


def _value(info: onnx.ValueInfoProto) -> Value:
    kind = info.type.tensor_type
    if not info.type.HasField("tensor_type"):
        raise BuildError(f"input or output {info.name!r} is not a tensor; only tensors are supported")
    if kind.elem_type == onnx.TensorProto.STRING:
        raise BuildError(
            f"input or output {info.name!r} holds strings, which cannot be given as arrays",
            hint="leave out of the network what turns text into numbers, and do that before it",
        )
    try:
        dtype = dtype_from_onnx(kind.elem_type).name
    except WszooError as error:
        raise BuildError(f"input or output {info.name!r}: {error.message}") from error
    # -1 is dynamic to ONNX Runtime and TensorRT, and older exporters write it.
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else dim.dim_param or f"{info.name}_{axis}"
        for axis, dim in enumerate(kind.shape.dim)
    )
    if len(shape) > MAX_RANK or any(isinstance(size, int) and size >= MAX_DIMENSION for size in shape):
        raise BuildError(f"input or output {info.name!r} has the shape {list(shape)}, larger than any memory")
    return Value(name=info.name, dtype=dtype, shape=shape)
