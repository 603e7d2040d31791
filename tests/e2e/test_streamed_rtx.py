"""Real TensorRT-RTX plans fed from the store: every byte that the deserializer could ask for is the builder's.

TensorRT's own reader class cannot be made without a CUDA driver; what it would call is what is tested here.
"""

import numpy as np
import pytest
import tensorrt_rtx
from builders import onnx_model
from onnx import helper

from wszoo.assemble import Keep, assemble
from wszoo.backends.trt_reader import Cursor
from wszoo.building.build import BuildRequest, build
from wszoo.errors import IntegrityError
from wszoo.names import Ref, TargetSpec
from wszoo.plugins import registry
from wszoo.progress import Silent
from wszoo.publish import read_published
from wszoo.store.store import Store

HALF = 10
WIDTH = 256


def _attention():
    """Queries, keys and values of one input: the builder fuses their weights by columns, so copies are strided."""
    rng = np.random.default_rng(3)
    inits = [(name, (rng.standard_normal((WIDTH, WIDTH)) * 0.05).astype(np.float16)) for name in "qkvo"]
    inits += [("scale", np.float16(0.125)), ("e", rng.standard_normal((512, 3, 7, 7)).astype(np.float16))]
    nodes = [helper.make_node("MatMul", ["x", name], [f"x{name}"]) for name in "qkv"]
    nodes += [
        helper.make_node("Transpose", ["xk"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["xq", "kt"], ["s"]),
        helper.make_node("Mul", ["s", "scale"], ["t"]),
        helper.make_node("Softmax", ["t"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "xv"], ["a"]),
        helper.make_node("MatMul", ["a", "o"], ["z"]),
        helper.make_node("Conv", ["image", "e"], ["features"]),
    ]
    inputs = [("x", HALF, [2, 64, WIDTH]), ("image", HALF, [1, 3, 32, 32])]
    return onnx_model(nodes, inputs, [("z", HALF, [2, 64, WIDTH]), ("features", HALF, [1, 512, 26, 26])], inits)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A store with a real plan, and what the builder wrote."""
    folder = tmp_path_factory.mktemp("streamed")
    (folder / "model.onnx").write_bytes(_attention().SerializeToString())
    store = Store(folder / "store")
    store.layout.create()
    request = BuildRequest(
        family="onnx", source=folder / "model.onnx", ref=Ref.parse("net:1"), targets=(TargetSpec.parse("rtx-sm89"),)
    )
    build(store, registry(), request)
    found = read_published(store, Ref.parse("net:1"))
    whole = assemble(store, found.model, found.plans[0], "cuda", Silent())
    data = whole.engine.read_bytes()
    whole.engine.unlink()
    return store, found, data


@pytest.fixture
def streamed(published):
    store, found, _ = published
    return assemble(store, found.model, found.plans[0], "cuda", Silent(), keep=Keep.WEIGHTS)


def _read_all(reader, sizes):
    parts = []
    while part := reader.read(int(sizes())):
        parts.append(part)
    return b"".join(parts)


def test_the_plan_is_mostly_copies_some_of_them_in_many_rows(published, streamed):
    _, found, data = published
    assert sum(layer.size for layer in found.plans[0].manifest.layers) < len(data) / 10
    assert streamed.source._windows._program.blocks.rows.max() >= WIDTH


@pytest.mark.parametrize("size", [1 << 30, 1 << 16, 4093, 997])
def test_every_byte_is_the_builders_whatever_the_size_of_reads(published, streamed, size):
    reader = Cursor(streamed.source)
    assert _read_all(reader, lambda: size) == published[2]
    assert streamed.engine is None


def test_every_byte_is_the_builders_in_odd_reads_and_seeks(published, streamed):
    data, rng = published[2], np.random.default_rng(4)
    reader = Cursor(streamed.source)
    position = 0
    for _ in range(2000):
        where = ("SET", "CUR", "END")[rng.integers(3)]
        target = int(rng.integers(len(data) + 1))
        offset = {"SET": target, "CUR": target - position, "END": target - len(data)}[where]
        assert reader.seek(offset, getattr(tensorrt_rtx.SeekPosition, where))
        part = reader.read(int(rng.integers(1, 5000)))
        assert part == data[target : target + len(part)]
        assert part or target == len(data)
        position = target + len(part)


def test_seeks_outside_of_the_plan_are_refused(published, streamed):
    reader = Cursor(streamed.source)
    assert not reader.seek(-1, tensorrt_rtx.SeekPosition.SET)
    assert not reader.seek(1, tensorrt_rtx.SeekPosition.END)
    assert reader.read(4) == b"vtrt"


def test_no_engine_file_is_on_the_disk(published, streamed):
    store = published[0]
    assert list(store.layout.engines.iterdir()) == []
    assert [path.name for path in streamed.cache.iterdir()] == ["streamed.stamp"]


def test_a_verified_stream_is_not_hashed_again(published, streamed, monkeypatch):
    store, found, _ = published
    monkeypatch.setattr("wszoo.plans.streamed.apply", None)
    again = assemble(store, found.model, found.plans[0], "cuda", Silent(), keep=Keep.WEIGHTS)
    assert bytes(again.source.read(0, 4)) == b"vtrt"


def test_a_pack_that_changed_is_found_before_a_byte_is_handed_out(published, streamed):
    store, found, _ = published
    path = store.blobs.path(found.model.config.packs[0])
    data = path.read_bytes()
    try:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(IntegrityError):
            assemble(store, found.model, found.plans[0], "cuda", Silent(), keep=Keep.WEIGHTS)
    finally:
        path.write_bytes(data)
    assert assemble(store, found.model, found.plans[0], "cuda", Silent(), keep=Keep.WEIGHTS).source.size
