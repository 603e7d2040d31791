"""Model configs whose tensor tables contradict themselves, their packs, or other models."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from wszoo.codecs import zstd
from wszoo.digest import Digest
from wszoo.errors import IncompatibleError, LimitError, MalformedError, NotFoundError
from wszoo.progress import Silent
from wszoo.schema.decode import decode, encode
from wszoo.schema.model import Component, Frame, Graph, ModelConfig, TensorInfo
from wszoo.weights.gain import FREE_GAIN, MAX_GAIN
from wszoo.weights.located import known_tensors
from wszoo.weights.packs import MAX_FRAME, Packer, PackReader
from wszoo.weights.tensor import tensor_from_array

DATA = np.random.default_rng(0).integers(0, 255, 4000, np.uint8)
WHOLE = Frame(pack=0, offset=0, stored=4000, raw=4000, codec="raw")


@pytest.fixture
def model(store):
    """A config with one tensor of 4,000 raw bytes, and a way to change what it says."""
    pack = store.blobs.put(DATA)

    def make(*frames, info=None, packs=(pack,)):
        described = {"name": "w", "dtype": "uint8", "shape": (4000,), "digest": Digest.of(DATA), **(info or {})}
        graph = Graph(digest=Digest.of(b""), size=0, layer=Digest.of(b""))
        component = Component(graph=graph, inputs=(), outputs=(), tensors=(TensorInfo(**described),))
        return ModelConfig(family="f", components={"net": component}, packs=packs, frames={Digest.of(DATA): frames})

    return make


def load(store, config):
    received = decode(encode(config), ModelConfig, what="the config")
    return [tensor.array() for tensor in PackReader(store.blobs, received).component("net")]


def changed(**changes):
    return msgspec.structs.replace(WHOLE, **changes)


def test_the_honest_table_reads(store, model):
    np.testing.assert_array_equal(load(store, model(WHOLE))[0], DATA)
    halves = [changed(stored=2000, raw=2000), changed(offset=2000, stored=2000, raw=2000)]
    np.testing.assert_array_equal(load(store, model(*halves))[0], DATA)


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([], "do not add up"),
        ([changed(raw=3999)], "do not add up"),
        ([WHOLE, WHOLE], "do not add up"),
        ([changed(offset=1)], "past its 4000 bytes"),
        ([changed(offset=1 << 61)], "past its 4000 bytes"),
        ([changed(stored=4001)], "past its 4000 bytes"),
        ([changed(stored=3999)], "3999 bytes and is declared as 4000"),
        ([changed(pack=1)], "a pack that the model does not have"),
        ([changed(pack=1 << 60)], "a pack that the model does not have"),
        ([changed(codec="zstd")], "not a zstd frame"),
    ],
)
def test_frames_that_contradict_the_table_or_the_pack(store, model, frames, says):
    with pytest.raises(MalformedError, match=says) as caught:
        load(store, model(*frames))
    assert "'w'" in caught.value.message or "zstd" in caught.value.message


def test_a_codec_from_the_future(store, model):
    with pytest.raises(IncompatibleError, match="unknown codec 'zip'"):
        load(store, model(changed(codec="zip")))


@pytest.mark.parametrize("dtype", ["float99", "", "string", "FLOAT32", "float32\n"])
def test_an_unknown_element_type(store, model, dtype):
    with pytest.raises(MalformedError, match="unknown element type"):
        load(store, model(WHOLE, info={"dtype": dtype}))


def test_a_tensor_that_stands_nowhere(store, model):
    with pytest.raises(MalformedError, match=r"'w'.*stands in no pack"):
        load(store, model(WHOLE, info={"digest": Digest.of(b"other")}))


def test_a_pack_that_is_not_there(store, model):
    with pytest.raises(NotFoundError, match=Digest.of(b"absent")):
        load(store, model(WHOLE, packs=(Digest.of(b"absent"),)))


@pytest.mark.parametrize("shape", [(1 << 47, 1 << 13), (1 << 47,) * 4])
def test_a_shape_of_exabytes(store, model, shape):
    with pytest.raises(MalformedError, match="do not add up"):
        load(store, model(WHOLE, info={"shape": shape}))


def test_a_negative_dimension(store, model):
    with pytest.raises(MalformedError, match=r"shape\[0\]"):
        load(store, model(WHOLE, info={"shape": (-4000,)}))


def test_a_shape_with_more_axes_than_arrays_can_have(store, model):
    with pytest.raises(MalformedError, match="shape"):
        load(store, model(WHOLE, info={"shape": (4000, *[1] * 100)}))


def test_a_frame_that_decodes_to_gigabytes(store, model):
    bomb = store.blobs.put(zstd.compress(bytes(256 << 20), level=1))
    size = 256 << 20
    frame = Frame(pack=0, offset=0, stored=store.blobs.size(bomb), raw=size, codec="zstd")
    with pytest.raises(LimitError, match=f"{size} bytes, more than the"):
        load(store, model(frame, info={"shape": (size,)}, packs=(bomb,)))


def test_many_frames_that_decode_to_gigabytes_together(store, model):
    """Each is within the bound for one, and the table says no wrong word about them."""
    one = zstd.compress(bytes(MAX_FRAME), level=1)
    count = FREE_GAIN // MAX_FRAME + 2
    bombs = store.blobs.put(one * count)
    frames = [
        Frame(pack=0, offset=number * len(one), stored=len(one), raw=MAX_FRAME, codec="zstd") for number in range(count)
    ]
    config = model(*frames, info={"shape": (count * MAX_FRAME,)}, packs=(bombs,))
    with pytest.raises(LimitError, match=f"from {count * len(one)} bytes to {count * MAX_FRAME}"):
        load(store, config)


def test_a_frame_that_is_named_again_and_again(store, model):
    noise = np.random.default_rng(3).bytes(1 << 20)
    pack = store.blobs.put(noise + zstd.compress(bytes(MAX_FRAME), level=1))
    bomb = changed(offset=1 << 20, stored=store.blobs.size(pack) - (1 << 20), raw=MAX_FRAME, codec="zstd")
    # Large raw frames make up for it in the sum.
    cover = [changed(stored=1 << 20, raw=1 << 20)] * 1000
    frames = [*cover, *[bomb] * 500]
    config = model(*frames, info={"shape": (sum(frame.raw for frame in frames),)}, packs=(pack,))
    with pytest.raises(MalformedError, match=rf"of pack {pack}, which has \d+: they overlap"):
        load(store, config)


def test_weights_that_are_mostly_zeros_are_within_the_bounds(store):
    """The bound is far from what honest models have: one non-zero of a hundred, as after pruning."""
    rng = np.random.default_rng(4)
    values = np.where(rng.random(8 << 20) < 0.01, rng.normal(size=8 << 20), 0).astype(np.float16)
    packer = Packer(store.blobs, {})
    packer.add([tensor_from_array("w", values)], Silent())
    assert values.nbytes * 2 < MAX_GAIN * packer.new_bytes


def test_raw_frames_of_exabytes_are_refused_before_memory_is_taken(store, model):
    half = 1 << 45
    frames = [Frame(pack=0, offset=0, stored=half, raw=half, codec="raw")] * 2
    with pytest.raises(MalformedError, match="past its 4000 bytes"):
        load(store, model(*frames, info={"shape": (2 * half,)}))


def poison(store, honest):
    """Another model's table that says: the bytes of ``honest`` stand in my pack."""
    lie = np.random.default_rng(1).integers(0, 255, len(honest), np.uint8)
    pack = store.blobs.put(lie)
    frame = Frame(pack=0, offset=0, stored=len(lie), raw=len(lie), codec="raw")
    return ModelConfig(family="f", components={}, packs=(pack,), frames={Digest.of(honest): (frame,)})


def test_a_pulled_model_cannot_put_its_bytes_into_a_model_that_is_built_here(store):
    packer = Packer(store.blobs, known_tensors([poison(store, DATA)]))
    infos = packer.add([tensor_from_array("w", DATA)], Silent())
    table, graph = packer.table(), Graph(digest=Digest.of(b""), size=0, layer=Digest.of(b""))
    component = Component(graph=graph, inputs=(), outputs=(), tensors=infos)
    config = ModelConfig(family="f", components={"net": component}, packs=table.packs, frames=table.frames)
    np.testing.assert_array_equal(load(store, config)[0], DATA)


@pytest.mark.parametrize(
    "frame",
    [
        changed(offset=1 << 61),
        changed(codec="zip"),
        changed(codec="zstd"),
        changed(pack=7),
        changed(raw=1 << 60, codec="zstd"),
        changed(stored=10),
    ],
)
def test_a_broken_table_of_another_model_only_costs_reuse(store, model, frame):
    packer = Packer(store.blobs, known_tensors([model(frame)]))
    packer.add([tensor_from_array("w", DATA)], Silent())
    (at,) = packer.table().frames.values()
    assert at == (WHOLE,)


def test_a_damaged_pack_of_another_model_is_not_built_upon(store):
    noise = np.random.default_rng(5).integers(0, 255, 50_000, np.uint8)
    first = Packer(store.blobs, {})
    first.add([tensor_from_array("w", noise)], Silent())
    table = first.table()
    path = store.blobs.path(table.packs[0])
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    known = known_tensors([ModelConfig(family="f", components={}, packs=table.packs, frames=table.frames)])
    second = Packer(store.blobs, known)
    second.add([tensor_from_array("w", noise)], Silent())
    assert second.new_bytes > 0
    assert store.blobs.map(second.table().packs[0])[: len(noise)].tobytes() == noise.tobytes()
