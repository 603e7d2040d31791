"""Models, stores and remotes that the core's tests are made of. Plans are synthetic: real bytes around real weights."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from wszoo.codecs import frames, zstd
from wszoo.digest import Digest
from wszoo.distribution.pull import Surroundings
from wszoo.gpu.machine import Machine, Runtime
from wszoo.gpu.request import parse_gpu
from wszoo.names import Ref
from wszoo.plans.spliced import splice
from wszoo.progress import Silent
from wszoo.publish import publish, write_model, write_plan
from wszoo.remotes.directory import DirectoryRemote
from wszoo.schema import model as model_schema
from wszoo.schema.decode import encode
from wszoo.schema.model import Component, ModelConfig
from wszoo.schema.oci import Descriptor
from wszoo.schema.plan import SPLICE, SPLICE_BASE, Kind, PlanConfig, Target
from wszoo.weights.graph import graph_from_model, scalars
from wszoo.weights.packs import Packer, weights_digest

VERSION = "1.7.1.116"
MACHINE = Machine(os="linux", arch="x86_64")
RUNTIMES = (
    Runtime(backend="tensorrt_rtx", version=VERSION, devices=("cuda",)),
    Runtime(backend="onnxruntime", version="1.22", devices=("cpu",)),
)


def around(gpu="sm89", runtimes=RUNTIMES):
    """Where a pull happens: a machine without a GPU of its own that asks for ``gpu``."""
    return Surroundings(machine=MACHINE, runtimes=runtimes, request=parse_gpu(gpu))


def weights(seed=0, *shapes):
    """Arrays that look trained: small, normal, float32."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, np.float32) * np.float32(0.02) for shape in shapes]


def onnx_model(nodes, inputs, outputs, inits=(), *, ir=10, opset=21):
    """A model; ``inputs`` and ``outputs`` are (name, element type, shape), ``inits`` tensors or (name, array)."""
    values = [[helper.make_tensor_value_info(*value) for value in each] for each in (inputs, outputs)]
    tensors = [init if isinstance(init, TensorProto) else numpy_helper.from_array(init[1], init[0]) for init in inits]
    graph = helper.make_graph(nodes, "net", *values, tensors)
    return helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])


def network(seed=0, width=64):
    """``z = (x @ w * 0.125 + b) @ v``: two weights, a small bias, a folded scalar."""
    w, v = weights(seed, (width, width), (width, width // 2))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Mul", ["h", "scale"], ["s"]),
        helper.make_node("Add", ["s", "b"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["z"]),
    ]
    inits = [("w", w), ("scale", np.float32(0.125)), ("b", np.arange(width, dtype=np.float32)), ("v", v)]
    return onnx_model(nodes, [("x", 1, ["n", width])], [("z", 1, ["n", width // 2])], inits)


def scaling(path, seed, width):
    """Write ``z = x * w`` over ``width`` channels as a file; gives the weights."""
    weight = np.random.default_rng(seed).standard_normal(width, np.float32)
    node = helper.make_node("Mul", ["x", "w"], ["z"])
    model = onnx_model([node], [("x", 1, [1, width])], [("z", 1, [1, width])], [("w", weight)])
    path.write_bytes(model.SerializeToString())
    return weight


def synthetic_plan(graph, name):
    """What a builder might write: a header, the weights (one of them transposed), a tail."""
    rng = np.random.default_rng(len(name))
    header = b"vtrt" + name.encode().ljust(60) + rng.bytes(512)
    parts = [tensor.load().tobytes() if i else tensor.array().T.tobytes() for i, tensor in enumerate(graph.tensors)]
    return header + b"between".join(parts) + b"the end of " + name.encode()


def publish_model(store, tag, *, seed=0, targets=("rtx-sm86", "rtx-sm89"), portable=True, model=None, width=64):
    """Publish a network with splice plans and a portable one, as ``wszoo build`` does; the index's descriptor."""
    graph = graph_from_model(model or network(seed, width))
    packer = Packer(store.blobs, {})
    # Small weights are kept as they are; here they are coded, as large ones would be.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "SMALL", 0)
        tensors = packer.add(graph.tensors, Silent())
    layer = store.blobs.put(zstd.compress(graph.proto, level=3))
    stored = model_schema.Graph(digest=Digest.of(graph.proto), size=len(graph.proto), layer=layer)
    component = Component(graph=stored, inputs=graph.inputs, outputs=graph.outputs, tensors=tensors)
    table = packer.table()
    assets = {"labels.txt": store.blobs.put(b"cat\ndog\n")}
    config = ModelConfig(
        family="onnx", components={"net": component}, packs=table.packs, frames=table.frames, assets=assets
    )
    plans = [splice_plan(store, graph, component, target) for target in targets]
    if portable:
        whole = plan_config(component, Target(name="portable", backend="onnxruntime"), Kind.PORTABLE, graph.proto)
        plans.append(write_plan(store, whole, [(model_schema.GRAPH, layer)]))
    return publish(store, Ref.parse(tag), write_model(store, config), plans)


def splice_plan(store, graph, component, target):
    """Store a splice plan of the synthetic engine for ``rtx-smNN``."""
    data = synthetic_plan(graph, target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plan")
        path.write_bytes(data)
        parts = splice(path, graph.tensors, scales=scalars(graph.proto), base=None, progress=Silent(), label=target)
    number = target.removeprefix("rtx-sm")
    made_for = Target(
        name=target, backend="tensorrt_rtx", version=VERSION, compute_capabilities=(f"{number[:-1]}.{number[-1]}",)
    )
    layers = [(SPLICE_BASE, store.blobs.put(parts.base)), (SPLICE, store.blobs.put(parts.layer))]
    config = plan_config(component, made_for, Kind.SPLICE, data)
    return write_plan(store, msgspec.structs.replace(config, engine_tree=parts.engine_tree), layers)


def plan_config(component, target, kind, data):
    """The config of a plan whose engine is ``data``."""
    return PlanConfig(
        component="net",
        target=target,
        kind=kind,
        engine_digest=Digest.of(data),
        engine_bytes=len(data),
        graph=component.graph.digest,
        weights=weights_digest(component.tensors),
    )


class SimulatedRemote(DirectoryRemote):
    """A real folder behind a door that counts and tampers.

    Attributes:
        opened: digests of the blobs that were asked for, in order.
        tamper: digest -> function of the true bytes that gives what is sent instead.
    """

    def __init__(self, store, *, trusted=True):
        super().__init__(store.layout.root)
        self.trusted = trusted
        self.opened = []
        self.tamper = {}

    def open(self, descriptor, offset=0, length=None):
        self.opened.append(descriptor.digest)
        change = self.tamper.get(descriptor.digest)
        if change is None:
            yield from super().open(descriptor, offset, length)
        else:
            yield from change(b"".join(super().open(descriptor, offset, length)))


def replace_in_index(store, tag, **changes):
    """Rebuild a model's documents consistently after changing some of them, as an attacker would; the new descriptor.

    Args:
        store: of the attacker.
        tag: to repoint.
        changes: ``plan_config``, ``model_config`` (functions of the struct), ``layers`` (function of media type and
            bytes), ``index`` (function of the struct).
    """
    from wszoo.store.documents import model_descriptor, plan_descriptors, read_index, read_model, read_plan

    def keep(value, *_):
        return value

    entry = store.refs.get(Ref.parse(tag))
    index = read_index(store, entry.descriptor)
    model = read_model(store, model_descriptor(index))
    plans = [read_plan(store, each) for each in plan_descriptors(index)]
    new_model = write_model(store, changes.get("model_config", keep)(model.config))
    new_plans = []
    for plan in plans:
        config = changes.get("plan_config", keep)(plan.config)
        layers = []
        for layer in plan.manifest.layers:
            data = store.blobs.read(layer.digest, limit=1 << 30)
            changed = changes.get("layers", lambda _, data: data)(layer.media_type, data)
            layers.append((layer.media_type, store.blobs.put(changed)))
        new_plans.append(write_plan(store, config, layers))
    made = (new_model.descriptor, *(plan.descriptor for plan in new_plans))
    fresh = changes.get("index", keep)(msgspec.structs.replace(index, manifests=made))
    data = encode(fresh)
    descriptor = Descriptor(media_type=fresh.media_type, digest=store.blobs.put(data), size=len(data))
    assert store.refs.swap(entry.ref, descriptor, held=None, expected=entry)
    return descriptor


def plan_of(store, tag, target):
    """The plan document that an index lists for a target."""
    from wszoo.publish import read_published

    return next(p for p in read_published(store, Ref.parse(tag)).plans if p.config.target.name == target)


def snapshot(folder):
    """Every file below a folder with its bytes; two are equal when nothing was changed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def leftovers(store):
    """Files that unfinished work left behind, and assembled plans."""
    return sorted(path.name for folder in (store.layout.tmp, store.layout.engines) for path in folder.iterdir())


def age(store, seconds=7200.0):
    """Make every blob look old to gc."""
    for digest in store.blobs.all():
        path = store.blobs.path(digest)
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


def run_ort(model, feeds):
    """Outputs of a serialized model in ONNX Runtime."""
    import onnxruntime

    data = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feeds)


def copy_of(model):
    """A copy; taking a model apart changes it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
