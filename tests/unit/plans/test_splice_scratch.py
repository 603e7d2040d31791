"""Wide interleaved matrices out of compressed packs: each is decoded once, in a file that is gone afterwards."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest

from wszoo.digest import Digest
from wszoo.errors import MalformedError
from wszoo.plans.splice import encode, reader, restore
from wszoo.plans.splice.pipeline import scratch
from wszoo.progress import Silent
from wszoo.schema.model import Component, Graph, ModelConfig
from wszoo.weights.packs import Packer, PackReader
from wszoo.weights.tensor import tensor_from_array

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


@pytest.fixture
def decoded(monkeypatch):
    """How often each tensor was decoded; little is kept and strips are short, as if the matrices were larger."""
    found, load = dict.fromkeys(map(str, range(MATRICES)), 0), reader.load

    def counted(tensor):
        found[tensor.name] += 1
        return load(tensor)

    monkeypatch.setattr(reader, "load", counted)
    monkeypatch.setattr(reader, "_LOADED", 3 * ROWS * WIDTH * 2)
    monkeypatch.setattr(assembling, "STRIP", 1 << 20)
    monkeypatch.setattr(assembling, "WINDOW", 1 << 18)
    return found


def put_together(case, tensors, folder):
    folder.mkdir()
    restore(case.program, tensors, folder / "plan", expected=Digest.of(case.plan.tobytes()))
    assert [path.name for path in folder.iterdir()] == ["plan"]


def test_each_matrix_is_decoded_once_or_twice_and_no_other_file_is_left(case, stored, decoded, tmp_path):
    put_together(case, stored, tmp_path / "out")
    most = 3 if case.tail else 2  # the first is looked at beforehand; a last row that has no tail comes by itself
    assert max(decoded.values()) <= most
    assert sum(decoded.values()) <= (most - 1) * MATRICES + 2


def test_where_the_disk_has_no_room_for_it_strips_are_decoded_again(case, stored, decoded, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(case.plan)))
    put_together(case, stored, tmp_path / "out")
    assert max(decoded.values()) > 3


def test_tensors_that_are_mapped_take_no_file(case, decoded, tmp_path, matrices, monkeypatch):
    (tmp_path / "raw").write_bytes(b"".join(each.load().tobytes() for each in matrices))
    whole, size = np.memmap(tmp_path / "raw", np.uint8, "r"), matrices[0].nbytes
    tensors = [
        replace(each, load=partial(whole.__getitem__, slice(number * size, (number + 1) * size)))
        for number, each in enumerate(matrices)
    ]
    folders = []

    def noted(folder, size, *, spare):
        folders.append(folder)
        return scratch(folder, size, spare=spare)

    monkeypatch.setattr(assembling, "scratch", noted)
    put_together(case, tensors, tmp_path / "out")
    assert folders == [None]
    assert sum(decoded.values()) >= MATRICES


def test_a_tensor_that_cannot_be_decoded_leaves_no_file(case, stored, decoded, tmp_path):
    def damaged():
        raise MalformedError("mine")

    folder = tmp_path / "out"
    folder.mkdir()
    tensors = [*stored[:20], replace(stored[20], load=damaged), *stored[21:]]
    with pytest.raises(MalformedError, match="mine"):
        restore(case.program, tensors, folder / "plan", expected=Digest.of(case.plan.tobytes()))
    assert not list(folder.iterdir())
    assert decoded["19"] == 1


def test_scratch_is_a_file_of_that_size_which_is_gone_afterwards(tmp_path):
    with scratch(tmp_path, 10_000, spare=0) as mapped:
        mapped[9_999] = 7
        assert len(mapped) == 10_000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", [None, "absent"])
def test_scratch_is_none_where_no_file_can_be(tmp_path, folder):
    with scratch(folder and tmp_path / folder, 10_000, spare=0) as mapped:
        assert mapped is None


def test_what_fails_inside_scratch_is_what_comes_out(tmp_path):
    def fail(mapped):
        raise ValueError("mine", np.frombuffer(mapped, np.uint8))

    with pytest.raises(ValueError, match="mine"), scratch(tmp_path, 10_000, spare=0) as mapped:
        fail(mapped)
    assert not list(tmp_path.iterdir())
