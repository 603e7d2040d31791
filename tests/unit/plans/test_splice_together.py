"""Wide interleaved matrices out of compressed packs: each is decoded once, and put in its place in the file itself."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest

from wszoo.digest import Digest
from wszoo.errors import MalformedError
from wszoo.plans.splice import output, reader, restore, window
from wszoo.plans.splice.encode import encode
from wszoo.progress import Silent
from wszoo.schema.model import Component, Graph, ModelConfig
from wszoo.tree import leaf, tree_digest
from wszoo.weights.packs import Packer, PackReader
from wszoo.weights.tensor import LoadInParts, tensor_from_array

assembling = import_module("wszoo.plans.splice.apply")  # in the package its name is the function's
MATRICES, ROWS, WIDTH = 40, 256, 512


@pytest.fixture(scope="module")
def matrices():
    rng = np.random.default_rng(3)
    arrays = (rng.standard_normal((ROWS, WIDTH)).astype(np.float16) for _ in range(MATRICES))
    return [tensor_from_array(str(number), array) for number, array in enumerate(arrays)]


@pytest.fixture(params=[0, 24], ids=["rows meet", "rows have a tail"])
def case(request, matrices):
    """A plan whose rows each have a piece of every matrix, and its program."""
    rng = np.random.default_rng(4)
    rows = (
        b"".join(each.array()[row].tobytes() for each in matrices) + rng.bytes(request.param) for row in range(ROWS)
    )
    plan = np.frombuffer(rng.bytes(5000) + b"".join(rows) + rng.bytes(5000), np.uint8)
    return SimpleNamespace(plan=plan, program=encode(plan, matrices), tail=request.param)


@pytest.fixture
def stored(store, matrices):
    """The matrices out of a pack, all of them compressed."""
    packer = Packer(store.blobs, {})
    infos, table = packer.add(matrices, Silent()), packer.table()
    assert sum(frame.stored < frame.raw for at in table.frames.values() for frame in at) >= MATRICES
    nothing = Digest.of(b"")
    graph = Graph(digest=nothing, size=0, layer=nothing)
    component = Component(graph=graph, inputs=(), outputs=(), tensors=infos)
    config = ModelConfig(family="f", components={"c": component}, packs=table.packs, frames=table.frames)
    return PackReader(store.blobs, config).component("c")


CHUNK = 1 << 18


@pytest.fixture
def decoded(monkeypatch):
    """How often each tensor was decoded; little is kept, chunks and strips are short."""
    found, load = dict.fromkeys(map(str, range(MATRICES)), 0), reader.load

    def counted(tensor):
        found[tensor.name] += 1
        return load(tensor)

    monkeypatch.setattr(reader, "load", counted)
    monkeypatch.setattr(reader, "_LOADED", 3 * ROWS * WIDTH * 2)
    monkeypatch.setattr(assembling, "STRIP", 1 << 20)
    monkeypatch.setattr(assembling, "CHUNK", CHUNK)
    return found


def tree(plan):
    data = plan.tobytes()
    return tree_digest(leaf(data[start : start + CHUNK]) for start in range(0, len(data), CHUNK))


def put_together(case, tensors, folder):
    folder.mkdir()
    restore(case.program, tensors, folder / "plan", expected=tree(case.plan))
    assert (folder / "plan").read_bytes() == case.plan.tobytes()
    assert [path.name for path in folder.iterdir()] == ["plan"]
    assert threading.active_count() == 1 or all(each.daemon for each in threading.enumerate()[1:])


def test_each_matrix_is_decoded_once(case, stored, decoded, tmp_path):
    put_together(case, stored, tmp_path / "out")
    assert max(decoded.values()) <= 2  # the first and the last are looked at beforehand
    assert sum(decoded.values()) <= MATRICES + 2


def test_large_tensors_as_they_stand_are_decoded_range_by_range(stored, matrices, tmp_path, monkeypatch):
    size, begun = matrices[0].nbytes, []
    monkeypatch.setattr(reader, "_LARGE", size // 2)
    monkeypatch.setattr(reader, "_RANGE", size // 3)
    monkeypatch.setattr(assembling, "CHUNK", CHUNK)
    plan = np.frombuffer(bytes(100) + b"".join(each.load().tobytes() for each in matrices[:4]), np.uint8)

    def counted(tensor):
        begin = tensor.load.begin
        return replace(tensor, load=LoadInParts(lambda *span: begun.append((tensor.name, *span)) or begin(*span)))

    case = SimpleNamespace(plan=plan, program=encode(plan, matrices))
    put_together(case, [counted(each) for each in stored], tmp_path / "out")
    ranges = [(low, min(low + size // 3, size)) for low in range(0, size, size // 3)]
    assert sorted(begun) == sorted((str(number), *span) for number in range(4) for span in ranges)


def test_large_matrices_are_put_together_in_shares(case, stored, decoded, tmp_path, monkeypatch):
    shares, put = [], window.Windows._columns
    monkeypatch.setattr(window, "SLAB", 1 << 12)
    monkeypatch.setattr(window.Windows, "_columns", lambda *args: shares.append(args[-1].nbytes) or put(*args))
    put_together(case, stored, tmp_path / "out")
    assert max(shares) <= 4 << 12
    assert sum(decoded.values()) <= MATRICES + 2


def test_where_a_file_cannot_be_mapped_safely_strips_are_decoded_again(case, stored, decoded, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "_reserve", os.ftruncate)
    put_together(case, stored, tmp_path / "out")
    assert 3 <= max(decoded.values()) <= len(case.plan) // (1 << 20) + 3


def test_a_stream_gets_the_same_bytes_in_order(case, stored, decoded):
    out = bytearray()
    assert assembling.apply(case.program, stored, out.extend) == tree(case.plan)
    assert out == case.plan.tobytes()
    assert max(decoded.values()) <= len(case.plan) // (1 << 20) + 3


def test_without_pwrite_as_on_windows_the_bytes_are_the_same(case, stored, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "pwrite")
    monkeypatch.setattr(assembling, "CHUNK", CHUNK)
    put_together(case, stored, tmp_path / "out")


def test_tensors_that_are_mapped_are_not_put_together_beforehand(case, decoded, tmp_path, matrices, monkeypatch):
    (tmp_path / "raw").write_bytes(b"".join(each.load().tobytes() for each in matrices))
    whole, size = np.memmap(tmp_path / "raw", np.uint8, "r"), matrices[0].nbytes
    tensors = [
        replace(each, load=partial(whole.__getitem__, slice(number * size, (number + 1) * size)))
        for number, each in enumerate(matrices)
    ]
    monkeypatch.setattr(output, "_mapping", None)
    put_together(case, tensors, tmp_path / "out")
    assert set(decoded.values()) == {1}  # they take no memory, so all of them stay


def test_a_tensor_that_cannot_be_decoded_leaves_no_file_and_no_thread(case, stored, decoded, tmp_path):
    def damaged():
        raise MalformedError("mine")

    tensors = [*stored[:20], replace(stored[20], load=damaged), *stored[21:]]
    with pytest.raises(MalformedError, match="mine"):
        restore(case.program, tensors, tmp_path / "plan", expected=tree(case.plan))
    assert not (tmp_path / "plan").exists()
    assert all(each.daemon for each in threading.enumerate() if each is not threading.main_thread())


def test_a_stop_by_the_user_ends_every_thread(case, stored, tmp_path, monkeypatch):
    monkeypatch.setattr(assembling, "CHUNK", CHUNK)
    seen = []

    def advance(count):
        seen.append(count)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(case.program, stored, tmp_path / "plan", expected=tree(case.plan), advance=advance)
    assert len(seen) == 1
    assert not (tmp_path / "plan").exists()
    assert all(each.daemon for each in threading.enumerate() if each is not threading.main_thread())
