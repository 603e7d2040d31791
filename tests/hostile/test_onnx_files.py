"""ONNX files that point elsewhere or contradict themselves."""

from __future__ import annotations

import os
from contextlib import suppress

import numpy as np
import onnx
import pytest
from builders import network, onnx_model
from onnx import TensorProto, helper

from wszoo.errors import MalformedError, NotFoundError, WszooError
from wszoo.weights.graph import graph_from_file, graph_from_model, scalars

SIZE = 64 * 64 * 4


def pointing(**entries):
    """A model whose 64 by 64 weight is external data with these entries."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64, 64], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return with_weight(tensor)


def with_weight(tensor, *, op="MatMul"):
    nodes = [helper.make_node(op, ["x", "w"], ["z"])]
    return onnx_model(nodes, [("x", TensorProto.FLOAT, [1, 64])], [("z", TensorProto.FLOAT, None)], [tensor])


@pytest.fixture
def folder(tmp_path):
    """A model's folder with honest data, and a secret beside it."""
    made = tmp_path / "model"
    (made / "sub").mkdir(parents=True)
    for name in ("w.bin", "sub/w.bin", "../secret"):
        (made / name).write_bytes(np.ones(64 * 64, np.float32).tobytes())
    return made


@pytest.mark.parametrize("location", ["w.bin", "sub/w.bin", "./w.bin"])
def test_data_inside_the_folder_is_accepted(folder, location):
    (tensor,) = graph_from_model(pointing(location=location), folder).tensors
    np.testing.assert_array_equal(tensor.array(), np.ones((64, 64)))


@pytest.mark.parametrize(
    "location",
    [
        "../secret",
        "sub/../../secret",
        "/etc/passwd",
        "//host/share",
        "..\\secret",
        "sub\\w.bin",
        "C:\\secret",
        "C:secret",
        "C:/secret",
        "\\\\host\\share\\x",
        "w.bin\0",
        "",
    ],
)
def test_data_outside_the_folder_is_refused_with_the_location(folder, location):
    with pytest.raises(MalformedError, match="outside the model's folder") as caught:
        graph_from_model(pointing(location=location), folder)
    assert repr(location) in caught.value.message
    assert "'w'" in caught.value.message


def test_an_absolute_path_to_the_very_folder_is_refused(folder):
    with pytest.raises(MalformedError, match="outside"):
        graph_from_model(pointing(location=str(folder / "w.bin")), folder)


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd"])
def test_links_out_of_the_folder_are_refused(folder, target):
    (folder / "link").symlink_to(target)
    onnx.save_model(pointing(location="link"), folder / "model.onnx")
    with pytest.raises(MalformedError, match="through a link: 'link'"):
        graph_from_file(folder / "model.onnx")


def test_a_linked_folder_is_refused(folder):
    (folder / "away").symlink_to("..")
    with pytest.raises(MalformedError, match="through a link"):
        graph_from_model(pointing(location="away/secret"), folder)


@pytest.mark.parametrize("location", ["absent.bin", "sub", ".", "w" * 300, "w.bin/x"])
def test_data_that_cannot_be_read_is_named(folder, location):
    with pytest.raises(NotFoundError, match="external data of tensor 'w'"):
        graph_from_model(pointing(location=location), folder)


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "1"},
        {"offset": "-1"},
        {"offset": str(1 << 70)},
        {"offset": str(SIZE)},
        {"length": str(SIZE - 1)},
        {"length": str(SIZE + 1)},
        {"length": "0"},
        {"length": str(-SIZE)},
        {"offset": "zero"},
        {"offset": "1" * 10_000},
        {"length": ""},
        {"length": "1e4"},
    ],
    ids=str,
)
def test_ranges_that_do_not_fit_the_file_or_the_shape_are_refused(folder, entries):
    with pytest.raises(MalformedError, match="external data of tensor 'w'"):
        graph_from_model(pointing(location="w.bin", **entries), folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
def test_a_pipe_is_refused_and_not_waited_for(folder):
    os.mkfifo(folder / "pipe")
    with pytest.raises(NotFoundError, match="not a regular file"):
        graph_from_model(pointing(location="pipe"), folder)


def test_an_empty_data_file_is_refused(folder):
    (folder / "empty").touch()
    with pytest.raises(NotFoundError, match="cannot read"):
        graph_from_model(pointing(location="empty"), folder)


def test_external_data_without_a_folder_is_refused():
    with pytest.raises(MalformedError, match="outside the model's folder"):
        graph_from_model(pointing(location="w.bin"))


def tensor_of(**fields):
    return TensorProto(**{"name": "w", "data_type": TensorProto.FLOAT, "dims": [64, 64], **fields})


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (tensor_of(raw_data=bytes(SIZE - 1)), "16383 bytes, not 16384"),
        (tensor_of(raw_data=bytes(SIZE + 4)), "16388 bytes, not 16384"),
        (tensor_of(raw_data=b""), "0 bytes, not 16384"),
        (tensor_of(float_data=[1.0] * 10), "is malformed"),
        (tensor_of(), "is malformed"),
        (tensor_of(int32_data=[1] * 4096), "is malformed"),
        (tensor_of(dims=[-64, -64], raw_data=bytes(SIZE)), r"shape \[-64, -64\]"),
        (tensor_of(dims=[1 << 40, 1 << 40], raw_data=bytes(SIZE)), "16384 bytes, not"),
        (tensor_of(data_type=99, raw_data=bytes(SIZE)), "element type 99"),
    ],
)
def test_a_tensor_that_contradicts_its_shape_or_type_is_refused(tensor, says):
    with pytest.raises(MalformedError, match=says):
        graph_from_model(with_weight(tensor))


@pytest.mark.parametrize(
    "tensor",
    [TensorProto(name="w", data_type=1, raw_data=b"ab"), TensorProto(name="w", data_type=11, float_data=[1.0])],
)
def test_a_malformed_scalar_is_refused(tensor):
    with pytest.raises(MalformedError, match="'w'"):
        scalars(with_weight(tensor, op="Mul").SerializeToString())


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Constant", [], ["w"]),
        helper.make_node("Constant", [], []),
        helper.make_node("Constant", [], ["w"], value_int=1),
        helper.make_node("Constant", [], ["w", "v"], value_float=1.0),
    ],
)
def test_a_constant_without_a_usable_value_is_left_for_the_checker(node):
    model = onnx_model([node], [], [("z", TensorProto.FLOAT, [1])])
    assert graph_from_model(model).tensors == ()
    assert scalars(model.SerializeToString()) == []


def test_a_model_without_nodes_is_named(tmp_path):
    with pytest.raises(MalformedError, match="no nodes"):
        graph_from_model(onnx.ModelProto())
    for data in (os.urandom(200), b"\x0a\x02\x08", b"\xff" * 50):
        (tmp_path / "m.onnx").write_bytes(data)
        with pytest.raises(MalformedError, match=r"m\.onnx"):
            graph_from_file(tmp_path / "m.onnx")


def test_a_flipped_bit_anywhere_gives_a_typed_error_or_a_model(tmp_path):
    data, rng = network(width=16).SerializeToString(), np.random.default_rng(0)
    for _ in range(400):
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= 1 << rng.integers(8)
        (tmp_path / "m.onnx").write_bytes(broken)
        with suppress(WszooError):
            scalars(graph_from_file(tmp_path / "m.onnx").proto)
