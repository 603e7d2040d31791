"""Arrays from outside: ``.npy`` and ``.npz`` files, and what a user writes after ``--input``.

Sample files come from remotes, so they are hostile until read: never a pickle, and no byte is read and no memory taken
before the sizes that a header declares have been compared with the bytes that are there. NumPy's own reader allocates
what the header says first, so a 128-byte file can ask it for terabytes.
"""

from __future__ import annotations

import ast
import io
import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.errors import LimitError, MalformedError, NotFoundError, StorageError, UsageError, WszooError
from wszoo.weights.tensor import dtype_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

    from numpy.typing import NDArray

    from wszoo.schema.model import Value

MAX_ARRAY = 1 << 30  # one array, or all arrays of an archive together
MAX_ARRAYS = 1000
SEED = 0

_BYTE = 8
_DIGITS = 12  # no dimension has more

_FORMS = "@FILE.npy, @FILE.npz:KEY, numbers as in 3,1,4, one number, zeros:1x3x224x224, or random:1x3x224x224"


def array_from_npy(stream: IO[bytes], size: int, what: str) -> NDArray[Any]:
    """Read one array of plain numbers.

    Args:
        stream: at the start of the ``.npy`` data.
        size: bytes that are there.
        what: for error messages.

    Raises:
        MalformedError: not ``.npy``, Python objects inside, or a header that does not fit ``size``.
        LimitError: over 1 GiB.
    """
    if size > MAX_ARRAY:
        raise LimitError(f"{what} has {size} bytes, more than the {MAX_ARRAY} that wszoo reads")
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
    except Exception as error:  # NumPy evaluates the header: tokenize.TokenError, SyntaxError, RecursionError, ...
        raise MalformedError(f"{what} is not a NumPy array file: {type(error).__name__}") from error
    if dtype.hasobject or dtype.itemsize == 0 or dtype.fields is not None:
        raise MalformedError(f"{what} holds {dtype}, and only arrays of plain numbers are read")
    nbytes = math.prod(shape) * dtype.itemsize
    if any(dim < 0 for dim in shape) or nbytes > size:
        raise MalformedError(f"{what} declares {nbytes} bytes of shape {list(shape)} in a file of {size} bytes")
    data = stream.read(nbytes)
    if len(data) != nbytes:
        raise MalformedError(f"{what} ends after {len(data)} of {nbytes} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def arrays_from_npz(data: IO[bytes], what: str) -> dict[str, NDArray[Any]]:
    """Read every array of an ``.npz`` archive.

    Raises:
        MalformedError: not such an archive, or an array as for :func:`array_from_npy`.
        LimitError: over 1000 arrays, or over 1 GiB together.
    """
    try:
        with zipfile.ZipFile(data) as archive:
            return {
                entry.filename.removesuffix(".npy"): _from_entry(archive, entry, what)
                for entry in _bounded_entries(archive, what)
            }
    except WszooError:
        raise
    except Exception as error:  # zipfile lets zlib.error, struct.error, EOFError and others through
        raise MalformedError(f"{what} is not a NumPy archive, or is damaged: {error}") from error


def arrays_from_bytes(data: bytes, what: str) -> dict[str, NDArray[Any]]:
    """:func:`arrays_from_npz` for an archive in memory."""
    return arrays_from_npz(io.BytesIO(data), what)


def parse_input(value: Value, text: str) -> NDArray[Any]:
    """Turn what a user wrote after ``--input NAME=`` into an array of the input's type and rank.

    Raises:
        UsageError: it has none of the forms, or does not fit the input.
        NotFoundError: the file, or the array in it, does not exist.
        MalformedError, LimitError: a file that is not what it should be.
    """
    if text.startswith("@"):
        array = _from_file(text[1:])
    elif text.startswith(("zeros:", "random:")):
        kind, _, dims = text.partition(":")
        shape = _shape(value, dims)
        array = np.zeros(shape, numpy_dtype(value)) if kind == "zeros" else random_array(value, shape)
    else:
        array = _inline(value, text)
    return fit(value, array)


def fit(value: Value, array: NDArray[Any]) -> NDArray[Any]:
    """Check an array against an input, and convert it where no number changes its meaning.

    Raises:
        UsageError: wrong rank or dimension, or numbers that the input's type cannot hold.
    """
    want = numpy_dtype(value)
    if array.dtype.kind == "f" and want.kind in "iub":
        raise UsageError(f"the input {value.name!r} takes {value.dtype}, and the given array is {array.dtype}")
    fits = len(array.shape) == len(value.shape) and all(
        isinstance(own, str) or own == given for own, given in zip(value.shape, array.shape, strict=True)
    )
    if not fits:
        shape = "x".join(map(str, value.shape)) or "a scalar"
        raise UsageError(
            f"the input {value.name!r} takes the shape {shape}, and the given array has {list(array.shape)}"
        )
    if want.kind in "iu" and array.size and array.dtype.kind in "iu":
        limits = np.iinfo(want)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise UsageError(f"the input {value.name!r} takes {value.dtype}, which cannot hold the given numbers")
    return np.ascontiguousarray(array.astype(want, copy=False)).reshape(array.shape)


def random_array(value: Value, shape: Sequence[int], seed: int = SEED) -> NDArray[Any]:
    """Seeded noise of an input's type: floats in [0, 1), bytes over their range, other integers 0 or 1.

    Indices stay below 2, because a larger one may be outside of the table that it looks up.
    """
    generator = np.random.default_rng(seed)
    dtype = numpy_dtype(value)
    if dtype.kind in "iub":
        high = 256 if dtype == np.uint8 else 2
        return generator.integers(0, high, tuple(shape)).astype(dtype)
    return generator.random(tuple(shape), np.float32).astype(dtype)


def default_shape(value: Value) -> tuple[int, ...]:
    """An input's shape with every dynamic dimension set to 1."""
    return tuple(dim if isinstance(dim, int) else 1 for dim in value.shape)


def numpy_dtype(value: Value) -> np.dtype[Any]:
    """The element type that the arrays of an input have.

    Raises:
        UsageError: a 4-bit type, for which NumPy has none.
    """
    dtype = dtype_of(value.dtype)
    if dtype.bits < _BYTE:
        raise UsageError(f"the input {value.name!r} takes {value.dtype}, which a NumPy array cannot hold")
    return dtype.numpy


def check_together(values: Mapping[str, Value], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Check that dimensions of one name have one size.

    Raises:
        UsageError: they differ; the message names both inputs.
    """
    seen: dict[str, tuple[str, int]] = {}
    for name, array in arrays.items():
        for dim, given in zip(values[name].shape, array.shape, strict=True):
            if isinstance(dim, str):
                other, before = seen.setdefault(dim, (name, given))
                if before != given:
                    raise UsageError(
                        f"the dimension {dim!r} is {given} in the input {name!r} and {before} in {other!r}"
                    )


def _bounded_entries(archive: zipfile.ZipFile, what: str) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ARRAYS or total > MAX_ARRAY:
        raise LimitError(f"{what} holds {len(entries)} arrays of {total} bytes, more than wszoo reads")
    return entries


def _from_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, what: str) -> NDArray[Any]:
    with archive.open(entry) as stream:  # gives at most the declared size, whatever the compressed data hold
        return array_from_npy(stream, entry.file_size, f"{entry.filename!r} in {what}")


def _from_file(text: str) -> NDArray[Any]:
    head, colon, key = text.rpartition(".npz:")
    path = Path(head + ".npz") if colon else Path(text)
    try:
        with path.open("rb") as file:
            if path.suffix.lower() != ".npz":
                return array_from_npy(file, path.stat().st_size, str(path))
            arrays = arrays_from_npz(file, str(path))
    except FileNotFoundError:
        raise NotFoundError(f"no such file: {path}") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    if not colon and len(arrays) == 1:
        return next(iter(arrays.values()))
    if key not in arrays:
        raise NotFoundError(f"no array {key!r} in {path}", hint=f"write @{path}:KEY with one of: {', '.join(arrays)}")
    return arrays[key]


def _shape(value: Value, text: str) -> tuple[int, ...]:
    parts = [part for part in text.split("x") if part]
    if not all(part.isascii() and part.isdigit() and len(part) <= _DIGITS for part in parts):
        raise UsageError(f"not a shape: {text!r} for the input {value.name!r}", hint="write it as in 1x3x224x224")
    shape = tuple(map(int, parts))
    if math.prod(shape) * numpy_dtype(value).itemsize > MAX_ARRAY:
        raise UsageError(f"an array of shape {text} for the input {value.name!r} is over {MAX_ARRAY} bytes")
    return shape


def _inline(value: Value, text: str) -> NDArray[Any]:
    try:
        numbers = [ast.literal_eval(part.strip()) for part in text.split(",")]
        array = np.array(numbers)
    except (ValueError, SyntaxError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise UsageError(f"not a value for the input {value.name!r}: {text!r}", hint=f"give {_FORMS}") from error
    if array.dtype.kind not in "biuf" or array.ndim != 1:
        raise UsageError(f"not a value for the input {value.name!r}: {text!r}", hint=f"give {_FORMS}")
    if len(numbers) == 1:
        return np.full(default_shape(value), array[0])
    fixed = default_shape(value)
    if math.prod(fixed) == len(numbers):
        return array.reshape(fixed)
    return array.reshape((1,) * (len(value.shape) - 1) + (-1,))
