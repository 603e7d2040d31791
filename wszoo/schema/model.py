"""The model manifest's config: what a model is made of, and where every tensor's bytes stand."""

from __future__ import annotations

from typing import Annotated

import msgspec

from wszoo.digest import Digest
from wszoo.schema.oci import Size

ARTIFACT = "application/vnd.wszoo.model.v1"
CONFIG = "application/vnd.wszoo.model.config.v1+json"
GRAPH = "application/vnd.wszoo.graph.v1.onnx+zstd"
PACK = "application/vnd.wszoo.pack.v1"
ASSET = "application/vnd.wszoo.asset.v1"

MAX_RANK = 32  # what NumPy before version 2 takes
MAX_DIMENSION = 1 << 48  # one more than the largest
Dimension = Annotated[int, msgspec.Meta(ge=0, lt=MAX_DIMENSION)]


class TensorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor as a component names it.

    Attributes:
        name: unique in the component.
        dtype: lower-case ONNX element type.
        shape: dimensions, outermost first.
        digest: sha256 of the raw little-endian bytes; the identity under which they are stored once.
    """

    name: str
    dtype: str
    shape: Annotated[tuple[Dimension, ...], msgspec.Meta(max_length=MAX_RANK)]
    digest: Digest


class Frame(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One independently coded run of a tensor's bytes in a pack.

    Attributes:
        pack: position in ``ModelConfig.packs``.
        offset: first byte in the pack.
        stored: bytes in the pack.
        raw: bytes after decoding.
        codec: ``raw``, ``zstd``, or ``zstd+bytes<N>`` for byte-grouped elements of N bytes.
    """

    pack: Annotated[int, msgspec.Meta(ge=0)]
    offset: Size
    stored: Size
    raw: Size
    codec: str


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """An input or output; dynamic dimensions are given by their name."""

    name: str
    dtype: str
    shape: Annotated[tuple[Dimension | str, ...], msgspec.Meta(max_length=MAX_RANK)]


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """An ONNX graph without its weights.

    Attributes:
        digest: sha256 of the serialized ``ModelProto``.
        size: its bytes.
        layer: digest of the layer of media type ``GRAPH`` that holds it compressed.
    """

    digest: Digest
    size: Size
    layer: Digest


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """One network of a model.

    Attributes:
        graph: what it computes.
        inputs: in the graph's order.
        outputs: in the graph's order.
        tensors: the weights, in the order that splice programs refer to.
    """

    graph: Graph
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    tensors: tuple[TensorInfo, ...]


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a model that does not depend on a target.

    Attributes:
        family: the plugin that made it and that runs its demo.
        components: by name.
        packs: digests of the layers that hold weights.
        frames: tensor digest -> its frames, in order; their raw sizes add up to the tensor's.
        assets: file name -> digest of a layer (labels, tokenizer, model card).
        licence: SPDX expression, or empty when unknown.
        options: the family's own record of how it exported; opaque to the core.
        provenance: names and versions of what built it.
    """

    family: str
    components: dict[str, Component]
    packs: tuple[Digest, ...]
    frames: dict[Digest, tuple[Frame, ...]]
    assets: dict[str, Digest] = {}
    licence: str = ""
    options: dict[str, str] = {}
    provenance: dict[str, str] = {}
