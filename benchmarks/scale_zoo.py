"""A simulated zoo of many models: real documents of the real format around a few hundred bytes of seeded noise.

A model has one component, one pack of its own, and a plan for each of twelve targets. A graph, and the layers of the
plans, are shared by all versions and fine-tunes of one network, as in real life: splice recipes name places, not
weights. Manifests and configs are each model's own. That makes 28 files a model and a few
thousand shared ones; four models share each network. The blobs are written without fsync, as nobody minds losing them.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from pathlib import Path
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.schema import model as model_schema
from wszoo.schema import plan as plan_schema
from wszoo.schema.decode import encode
from wszoo.schema.facts import facts_of, to_annotations
from wszoo.schema.model import Component, Frame, Graph, ModelConfig, TensorInfo, Value
from wszoo.schema.oci import INDEX, MANIFEST, REF_NAME, Descriptor, Index, Manifest
from wszoo.schema.plan import Kind, PlanConfig, Target
from wszoo.store.refs import RefRecord
from wszoo.store.store import Store

if TYPE_CHECKING:
    import msgspec

RTX = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
TENSORRT = ("8.0", "8.6", "8.9", "9.0", "12.0")
VERSIONS = 4  # models of one network
TENSORS = 24
SHARED = 18  # of them the same in all versions
TENSOR_BYTES = 1 << 20  # said, not stored
FAMILIES = ("cnn", "sdxl", "llm", "onnx", "audio")
LICENCES = ("Apache-2.0", "MIT", "CC-BY-4.0", "")


def fill(root: Path, models: int) -> Store:
    """Make a store of so many models."""
    store = Store(root)
    store.layout.create()
    made = Maker(store)
    listed = Index(manifests=tuple(made.model(number) for number in range(models)))
    store.layout.index.write_bytes(encode(listed))
    for each in listed.manifests:
        record(store, each)
    return store


def record(store: Store, listed: Descriptor) -> None:
    """Write a ref where :mod:`wszoo.store.refs` would, without its three fsyncs: 10,000 of those take minutes."""
    name = listed.annotations[REF_NAME]
    folder = store.layout.refs / hashlib.sha256(name.encode()).hexdigest()[:32] / f"{1:08d}"
    folder.mkdir(parents=True)
    bare = Descriptor(media_type=INDEX, digest=listed.digest, size=listed.size)
    (folder / "record.json").write_bytes(encode(RefRecord(ref=name, descriptor=bare)))


class Maker:
    """Writes blobs and documents of made-up models."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.targets = [*(_target("rtx", each) for each in RTX), *(_target("trt", each) for each in TENSORRT)]
        self.targets.append(Target(name="portable", backend="onnxruntime"))

    def model(self, number: int) -> Descriptor:
        """Write one model; the descriptor of its index, named."""
        network, version = divmod(number, VERSIONS)
        graph = self._blob(b"graph %d" % network, model_schema.GRAPH)
        pack = self._blob(random.Random(number).randbytes(256), model_schema.PACK)  # noqa: S311 - noise
        component = _component(network, version, graph)
        config = ModelConfig(
            family=FAMILIES[network % len(FAMILIES)],
            components={"net": component},
            packs=(pack.digest,),
            frames={info.digest: (_frame(place),) for place, info in enumerate(component.tensors)},
            licence=LICENCES[network % len(LICENCES)],
            provenance={"wszoo": "simulated"},
        )
        layers = (graph, pack)
        model = self._manifest(model_schema.ARTIFACT, self._put(config, model_schema.CONFIG), layers)
        plans = [self._plan(number, target, graph) for target in self.targets]
        index = self._put(Index(manifests=(model, *plans)), INDEX)
        name = f"{FAMILIES[network % len(FAMILIES)]}/network-{network:05d}:{version + 1}.0"
        return Descriptor(media_type=INDEX, digest=index.digest, size=index.size, annotations={REF_NAME: name})

    def _plan(self, number: int, target: Target, graph: Descriptor) -> Descriptor:
        network, rng = number // VERSIONS, random.Random(f"{number} {target.name}")  # noqa: S311
        portable = target.name == "portable"
        config = PlanConfig(
            component="net",
            target=target,
            kind=Kind.PORTABLE if portable else Kind.SPLICE,
            engine_digest=Digest.of(rng.randbytes(8)),
            engine_bytes=TENSORS * TENSOR_BYTES + rng.randrange(1 << 20),
            graph=graph.digest,
            weights=Digest.of(b"weights %d" % number),
        )
        recipe = b"plan of network %d for %s" % (network % 100, target.name.encode())
        layers = (graph,) if portable else (self._blob(recipe, plan_schema.SPLICE),)
        made = self._manifest(plan_schema.ARTIFACT, self._put(config, plan_schema.CONFIG), layers)
        annotations = to_annotations(facts_of(config, layers))
        return Descriptor(
            media_type=MANIFEST,
            digest=made.digest,
            size=made.size,
            artifact_type=made.artifact_type,
            annotations=annotations,
        )

    def _manifest(self, artifact: str, config: Descriptor, layers: tuple[Descriptor, ...]) -> Descriptor:
        made = self._put(Manifest(artifact_type=artifact, config=config, layers=layers), MANIFEST)
        return Descriptor(media_type=MANIFEST, digest=made.digest, size=made.size, artifact_type=artifact)

    def _put(self, document: msgspec.Struct, media_type: str) -> Descriptor:
        return self._blob(encode(document), media_type)

    def _blob(self, data: bytes, media_type: str) -> Descriptor:
        digest = Digest.of(data)
        self.store.blobs.path(digest).write_bytes(data)
        return Descriptor(media_type=media_type, digest=digest, size=len(data))


def _target(prefix: str, capability: str) -> Target:
    return Target(
        name=f"{prefix}-sm{capability.replace('.', '')}",
        backend={"rtx": "tensorrt_rtx", "trt": "tensorrt"}[prefix],
        version={"rtx": "1.7.1.116", "trt": "10.13.3.9"}[prefix],
        compute_capabilities=(capability,),
        os="" if prefix == "rtx" else "linux",
    )


def _component(network: int, version: int, graph: Descriptor) -> Component:
    tensors = tuple(
        TensorInfo(
            name=f"layers.{place}.weight",
            dtype="float16",
            shape=(TENSOR_BYTES // 2048, 1024),
            digest=Digest.of(b"tensor %d %d %d" % (network, place, 0 if place < SHARED else version)),
        )
        for place in range(TENSORS)
    )
    return Component(
        graph=Graph(digest=graph.digest, size=graph.size, layer=graph.digest),
        inputs=(Value(name="x", dtype="float16", shape=("batch", 1024)),),
        outputs=(Value(name="y", dtype="float16", shape=("batch", 1024)),),
        tensors=tensors,
    )


def _frame(place: int) -> Frame:
    return Frame(pack=0, offset=place * 8, stored=8, raw=TENSOR_BYTES, codec="zstd")


def main() -> None:
    """Make a store at a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--models", type=int, default=100)
    given = parser.parse_args()
    fill(given.root, given.models)


if __name__ == "__main__":
    main()
