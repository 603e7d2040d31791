"""Packs: each distinct tensor once, found again, and shared with models that are there."""

from __future__ import annotations

import numpy as np
import pytest
import workers
from hypothesis import given, settings
from hypothesis import strategies as st

from wszoo.codecs import frames
from wszoo.digest import Digest
from wszoo.errors import BuildError, NotFoundError
from wszoo.progress import Silent
from wszoo.schema.decode import decode, encode
from wszoo.schema.model import Component, Graph, ModelConfig, TensorInfo
from wszoo.store.store import Store
from wszoo.weights import packs
from wszoo.weights.located import known_tensors
from wszoo.weights.packs import Packer, PackReader, weights_digest
from wszoo.weights.tensor import DTYPES, Tensor, tensor_from_array


def arrays(seed, *sizes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(size).astype(np.float32) for size in sizes]


def tensors(**named):
    return [tensor_from_array(name, array) for name, array in named.items()]


def packed(store, *components, known=None, **options):
    """Pack components; the config of the model that they make."""
    packer = Packer(store.blobs, known or {}, **options)
    infos = [packer.add(component, Silent()) for component in components]
    return config_of(packer, infos)


def config_of(packer, infos):
    table, graph = packer.table(), Graph(digest=Digest.of(b""), size=0, layer=Digest.of(b""))
    components = {
        f"c{number}": Component(graph=graph, inputs=(), outputs=(), tensors=each) for number, each in enumerate(infos)
    }
    config = ModelConfig(family="f", components=components, packs=table.packs, frames=table.frames)
    return decode(encode(config), ModelConfig, what="config")


def read(store, config, component="c0"):
    return {tensor.name: tensor.load().tobytes() for tensor in PackReader(store.blobs, config).component(component)}


def test_tensors_come_back_as_they_were(store):
    w, b = arrays(0, 10_000, 64)
    given_tensors = tensors(w=w.reshape(100, 100), b=b.astype(np.float16), i=np.arange(500, dtype=np.int64))
    config = packed(store, given_tensors)
    for before, after in zip(given_tensors, PackReader(store.blobs, config).component("c0"), strict=True):
        assert (after.name, after.dtype, after.shape) == (before.name, before.dtype, before.shape)
        np.testing.assert_array_equal(after.array(), before.array())
        assert not after.load().flags.writeable or after.load().base is None


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 9), max_size=3), st.integers(0, 3)),
        max_size=6,
    ),
    st.integers(1, 5000),
    st.sampled_from([0, frames.SMALL]),
)
def test_every_element_type_and_shape_comes_back(tmp_path_factory, made, pack_bytes, small):
    store = Store(tmp_path_factory.mktemp("store"))
    before = []
    for number, (name, shape, seed) in enumerate(made):
        dtype = DTYPES[name]
        raw = np.random.default_rng(seed).integers(0, 3, dtype.nbytes(shape), np.uint8)
        before.append(Tensor(f"t{number}", dtype, tuple(shape), lambda raw=raw: raw))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "SMALL", small)
        config = packed(store, before, pack_bytes=pack_bytes)
    after = PackReader(store.blobs, config).component("c0")
    assert [(t.name, t.dtype, t.shape, t.load().tobytes()) for t in after] == [
        (t.name, t.dtype, t.shape, t.load().tobytes()) for t in before
    ]


def test_equal_tensors_are_stored_once_in_a_component_and_across_components(store):
    w, v = arrays(0, 5000, 6000)
    config = packed(store, tensors(a=w, b=w.copy(), c=v), tensors(d=v, e=w.reshape(50, 100)))
    assert len(config.frames) == 2
    assert len(config.packs) == 1
    stored = sum(frame.stored for at in config.frames.values() for frame in at)
    assert stored <= store.blobs.size(config.packs[0]) <= stored + 2 * packs.ALIGN
    assert read(store, config, "c1") == {"d": v.tobytes(), "e": w.tobytes()}


def test_a_second_version_of_a_model_stores_only_what_changed(store):
    w, v, u = arrays(0, 50_000, 60_000, 10_000)
    first = packed(store, tensors(w=w, v=v))
    before = set(store.blobs.all())
    second = packed(store, tensors(w=w, v=v, u=u), known=known_tensors([first]))
    (fresh,) = set(store.blobs.all()) - before
    assert store.blobs.size(fresh) <= u.nbytes
    assert set(second.packs) == {*first.packs, fresh}
    assert read(store, second) == {"w": w.tobytes(), "v": v.tobytes(), "u": u.tobytes()}


def test_a_tensor_is_not_taken_from_a_pack_of_which_it_is_a_small_part(store):
    w, small = arrays(0, 100_000, 5_000)
    known = known_tensors([packed(store, tensors(w=w, small=small))])
    config = packed(store, tensors(s=small), known=known)
    assert not set(config.packs) & {frame.pack for at in known.values() for frame in at}
    larger = packed(store, tensors(w=w), known=known)
    assert set(larger.packs) == {frame.pack for at in known.values() for frame in at}


def test_tensors_whose_pack_was_deleted_are_stored_again(store):
    (w,) = arrays(0, 10_000)
    first = packed(store, tensors(w=w))
    store.blobs.path(first.packs[0]).unlink()
    second = packed(store, tensors(w=w), known=known_tensors([first]))
    assert second.packs == first.packs
    assert read(store, second) == {"w": w.tobytes()}


def test_large_tensors_are_cut_into_frames(store, monkeypatch):
    monkeypatch.setattr(packs, "FRAME", 10_000)
    (w,) = arrays(0, 10_001)
    config = packed(store, tensors(w=w), pack_bytes=15_000)
    (at,) = config.frames.values()
    assert [frame.raw for frame in at] == [10_000] * 4 + [4]
    assert len(config.packs) > 1
    assert read(store, config) == {"w": w.tobytes()}


@pytest.mark.parametrize("compressible", [True, False])
def test_a_range_of_a_large_tensor_is_decoded_without_its_other_frames(store, monkeypatch, compressible):
    monkeypatch.setattr(packs, "FRAME", 10_000)
    monkeypatch.setattr("wszoo.codecs.frames.SMALL", 0)
    raw = np.random.default_rng(0).integers(0, 9 if compressible else 256, 45_000, np.uint8)
    (tensor,) = PackReader(store.blobs, packed(store, tensors(w=raw))).component("c0")
    spans = {(0, 45_000): 5, (0, 1): 1, (9_999, 10_001): 2, (20_000, 30_000): 1, (44_999, 45_000): 1}
    for (start, stop), count in spans.items():
        loading = tensor.load.begin(start, stop)
        assert len(loading.parts) == (count if compressible or count > 1 else 0)  # a single raw one is mapped
        for part in loading.parts:
            part()
        assert loading.data.tobytes() == raw[start:stop].tobytes()


def test_a_range_of_a_single_raw_frame_is_mapped(store):
    raw = np.random.default_rng(0).integers(0, 256, 45_000, np.uint8)
    (tensor,) = PackReader(store.blobs, packed(store, tensors(w=raw))).component("c0")
    loading = tensor.load.begin(100, 200)
    assert not loading.parts
    assert not loading.data.flags.writeable
    assert loading.data.tobytes() == raw[100:200].tobytes()


def test_packs_are_closed_when_they_are_full(store):
    rng = np.random.default_rng(0)
    many = [tensor_from_array(f"t{i}", rng.integers(0, 255, 1000, np.uint8)) for i in range(50)]
    config = packed(store, many, pack_bytes=10_000)
    sizes = [store.blobs.size(pack) for pack in config.packs]
    assert all(10_000 <= size <= 11_100 for size in sizes[:-1])
    assert 4 <= len(sizes) <= 6


def test_there_are_never_too_many_packs(store, monkeypatch):
    monkeypatch.setattr(packs, "MAX_PACKS", 5)
    many = [tensor_from_array(f"t{i}", np.random.default_rng(i).integers(0, 255, 1000, np.uint8)) for i in range(100)]
    assert len(packed(store, many, pack_bytes=100).packs) <= 6


def test_raw_frames_are_aligned_and_mapped_not_copied(store):
    rng = np.random.default_rng(0)
    noise = [tensor_from_array(f"n{i}", rng.integers(0, 255, 1001 + i, np.uint8)) for i in range(5)]
    config = packed(store, noise)
    for (frame,) in config.frames.values():
        assert (frame.codec, frame.offset % packs.ALIGN) == ("raw", 0)
    for tensor in PackReader(store.blobs, config).component("c0"):
        assert not tensor.load().flags.owndata
        assert not tensor.load().flags.writeable


def test_contents_do_not_depend_on_the_order_of_components(store, tmp_path):
    w, v, u = arrays(0, 5000, 6000, 7000)
    one = packed(store, tensors(w=w, v=v), tensors(u=u))
    other = packed(Store(tmp_path / "other"), tensors(u=u), tensors(w=w, v=v))
    assert one.frames.keys() == other.frames.keys()
    assert weights_digest(one.components["c0"].tensors) == weights_digest(other.components["c1"].tensors)
    assert read(store, one, "c0") == read(Store(tmp_path / "other"), other, "c1")


def test_packing_the_same_tensors_again_gives_the_same_packs(store, tmp_path):
    made = [
        packed(each, tensors(**{str(i): a for i, a in enumerate(arrays(0, *range(1, 3000, 100)))}))
        for each in (store, Store(tmp_path / "other"))
    ]
    assert made[0] == made[1]


def test_each_tensor_is_loaded_twice_however_large_it_is(store, monkeypatch):
    monkeypatch.setattr(packs, "FRAME", 1000)
    loads = []
    data = np.random.default_rng(0).integers(0, 255, 20_000, np.uint8)

    def load():
        loads.append(1)
        return data

    packed(store, [Tensor("w", DTYPES["uint8"], (20_000,), load)])
    assert len(loads) == 2


def test_progress_counts_each_byte_once_per_stage(store):
    seen = {}

    class Counting(Silent):
        def stage(self, label, total=None, unit="B"):
            from contextlib import nullcontext

            seen[label] = [total]
            return nullcontext(seen[label].append)

    w, v = arrays(0, 5000, 6000)
    Packer(store.blobs, {}).add(tensors(w=w, v=v, same=w), Counting())
    assert {label: (total, sum(steps)) for label, (total, *steps) in seen.items()} == {
        "hash weights": (64_000, 64_000),
        "store weights": (44_000, 44_000),
    }


def test_a_tensor_that_loads_too_few_bytes_is_named(store):
    wrong = Tensor("w", DTYPES["float32"], (100,), lambda: np.zeros(399, np.uint8))
    with pytest.raises(BuildError, match="tensor 'w' loads 399 bytes, its shape takes 400"):
        packed(store, [wrong])


def test_a_missing_pack_is_named(store):
    config = packed(store, tensors(w=arrays(0, 1000)[0]))
    store.blobs.path(config.packs[0]).unlink()
    (tensor,) = PackReader(store.blobs, config).component("c0")
    with pytest.raises(NotFoundError, match=config.packs[0]):
        tensor.load()


def test_the_weights_digest_is_the_documented_one():
    infos = [
        TensorInfo(name="any", dtype="float16", shape=(3, 4), digest=Digest.of(b"a")),
        TensorInfo(name="other", dtype="int4", shape=(), digest=Digest.of(b"b")),
    ]
    text = f"{Digest.of(b'a')} float16 3x4\n{Digest.of(b'b')} int4 \n"
    assert weights_digest(infos) == Digest.of(text.encode())
    assert weights_digest(infos[::-1]) != weights_digest(infos)


def test_packing_a_mapped_file_of_300_mb_takes_little_memory(tmp_path):
    rows = 75_000  # of 4 KiB
    path = tmp_path / "weights"
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(0, rows, 1000):
            file.write(rng.random(1000 * 1024, np.float32).tobytes())
    ((grown, count),) = workers.together(workers.pack_file, [(str(tmp_path / "s"), str(path), rows)])
    assert count >= 5
    assert grown < 200 << 20, f"grew by {grown >> 20} MiB"
