from __future__ import annotations

import contextlib
import io
import pickle
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wszoo.errors import IntegrityError, LimitError, MalformedError, NotFoundError, UsageError
from wszoo.families.arrays import array_from_npy, arrays_from_bytes, check_together, parse_input, random_array
from wszoo.schema.model import Value

if TYPE_CHECKING:
    from pathlib import Path

FLOATS = Value(name="x", dtype="float32", shape=("batch", 4))
IDS = Value(name="ids", dtype="int64", shape=("batch", "sequence"))
SCALAR = Value(name="t", dtype="float32", shape=())
BYTES = Value(name="pixels", dtype="uint8", shape=("n",))


def npy(array: np.ndarray, *, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def read(data: bytes) -> np.ndarray:
    return array_from_npy(io.BytesIO(data), len(data), "the file")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f4", "f2", "i8", "u1", "?", ">i4"])
def test_npy_is_read_as_numpy_reads_it(dtype: str, order: str) -> None:
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype=dtype, order=order)
    np.testing.assert_array_equal(read(npy(array)), array)


def test_empty_and_scalar_arrays_are_read() -> None:
    assert read(npy(np.zeros((0, 3), np.float32))).shape == (0, 3)
    assert read(npy(np.float32(3))).shape == ()


class Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("unpickled",))


def test_pickle_inside_is_never_run() -> None:
    with pytest.raises(MalformedError, match="arrays of plain numbers"):
        read(npy(np.array([Bomb()], dtype=object), pickled=True))
    with pytest.raises(MalformedError):
        read(pickle.dumps(Bomb()))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        npy(np.zeros(9))[:-1],
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n"),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }\n"),
        header("{'descr': '|V0', 'fortran_order': False, 'shape': (99999999999999,), }\n"),
        header("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }\n") + bytes(8),
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "(" * 3000 + "), }\n"),
        header("__import__('os').system('false')\n"),
        header("{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,), }\n"),
        b"\x93NUMPY\x09\x00" + bytes(100),
    ],
    ids=["empty", "cut", "short", "terabytes", "negative", "no-size", "fields", "nested", "code", "dtype", "version"],
)
def test_hostile_npy_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError, match="the file"):
        read(data)


def test_oversized_npy_is_refused_unread() -> None:
    with pytest.raises(LimitError, match="more than"):
        array_from_npy(io.BytesIO(), 2 << 30, "the file")


def test_zip_bomb_is_refused_by_its_declared_size() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as stream:
        for _ in range(1025):
            stream.write(bytes(1 << 20))
    with pytest.raises(LimitError, match="more than wszoo reads"):
        arrays_from_bytes(buffer.getvalue(), "samples")


def test_archive_of_too_many_arrays_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for at in range(1001):
            archive.writestr(f"{at}.npy", b"")
    with pytest.raises(LimitError, match="1001 arrays"):
        arrays_from_bytes(buffer.getvalue(), "samples")


def test_archive_that_lies_about_a_size_is_malformed() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros(1000))
    data = buffer.getvalue().replace((8000 + 128).to_bytes(4, "little"), (8000).to_bytes(4, "little"))
    with pytest.raises(MalformedError):
        arrays_from_bytes(data, "samples")


@given(st.integers(0, 400), st.integers(0, 255))
def test_damaged_archive_never_raises_anything_else(at: int, value: int) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.arange(30.0), y=np.arange(3))
    data = bytearray(buffer.getvalue())
    data[at % len(data)] = value
    with contextlib.suppress(IntegrityError):
        arrays_from_bytes(bytes(data), "samples")


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        (FLOATS, "1,2,3,4", [[1, 2, 3, 4]]),
        (FLOATS, "0.5", [[0.5] * 4]),
        (FLOATS, "zeros:2x4", [[0] * 4] * 2),
        (IDS, "3,1,4", [[3, 1, 4]]),
        (IDS, "-7", [[-7]]),
        (SCALAR, "1e-3", 1e-3),
        (BYTES, "0,255", [0, 255]),
    ],
)
def test_inline_values(value: Value, text: str, expected: object) -> None:
    array = parse_input(value, text)
    assert array.dtype.name == value.dtype
    np.testing.assert_allclose(array, expected)


def test_random_values_are_seeded() -> None:
    first, second = (parse_input(FLOATS, "random:3x4") for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (3, 4)
    assert set(random_array(IDS, (5, 9)).flat) == {0, 1}


@pytest.mark.parametrize(
    ("value", "text", "message"),
    [
        (FLOATS, "1,2,3", "takes the shape batchx4"),
        (FLOATS, "zeros:2x5", "takes the shape batchx4"),
        (FLOATS, "zeros:2xy", "not a shape: '2xy'"),
        (FLOATS, "random:99999999x99999999", "over 1073741824 bytes"),
        (FLOATS, "one", "not a value for the input 'x': 'one'"),
        (FLOATS, "'a'", "not a value"),
        (FLOATS, "__import__('os')", "not a value"),
        (FLOATS, "", "not a value"),
        (IDS, "1.5", "takes int64"),
        (BYTES, "256", "cannot hold"),
        (BYTES, "-1", "cannot hold"),
        (Value(name="w", dtype="int4", shape=(2,)), "1,2", "a NumPy array cannot hold"),
    ],
)
def test_wrong_values_name_the_input(value: Value, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_input(value, text)


def test_values_from_files(tmp_path: Path) -> None:
    array = np.arange(8, dtype=np.float64).reshape(2, 4)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", first=array, second=array + 1)
    np.savez(tmp_path / "c.npz", only=array)
    assert parse_input(FLOATS, f"@{tmp_path / 'a.npy'}").dtype == np.float32
    np.testing.assert_array_equal(parse_input(FLOATS, f"@{tmp_path / 'b.npz'}:second"), array + 1)
    np.testing.assert_array_equal(parse_input(FLOATS, f"@{tmp_path / 'c.npz'}"), array)
    with pytest.raises(NotFoundError, match=r"no array 'third'[\s\S]*first, second"):
        parse_input(FLOATS, f"@{tmp_path / 'b.npz'}:third")
    with pytest.raises(NotFoundError, match="no such file"):
        parse_input(FLOATS, f"@{tmp_path / 'd.npy'}")


def test_dimensions_of_one_name_must_agree() -> None:
    values = {"x": FLOATS, "ids": IDS}
    with pytest.raises(UsageError, match="'batch' is 3 in the input 'ids' and 2 in 'x'"):
        check_together(values, {"x": np.zeros((2, 4)), "ids": np.zeros((3, 7))})
