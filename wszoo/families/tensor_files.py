"""Safetensors checkpoints, one file or many shards, as tensors that stay in their files until they are loaded.

The header is checked here, before anything believes it: its size, each tensor's type, shape and place, and, where
there is an index, that every tensor stands in the shard that the index names. Nothing is copied: a tensor's bytes are
mapped from its file, so that a checkpoint larger than memory can be read from one end to the other.

Format: 8 bytes of little-endian header length, a JSON object, then the data
(https://huggingface.co/docs/safetensors, section "Format").
"""

from __future__ import annotations

import math
import mmap
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from wszoo.errors import IntegrityError, LimitError, MalformedError, NotFoundError, StorageError
from wszoo.families.checkpoints import named, read_json, weight_files
from wszoo.schema.decode import decode
from wszoo.weights.tensor import Tensor, dtype_of

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.buffers import Bytes

_PREFIX = 8
MAX_HEADER = 64 << 20  # a header of 100,000 tensors takes about 12 MB; the library's own limit is 100 MB

# Safetensors' names for element types.
_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8e4m3fn",
    "F8_E5M2": "float8e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}

_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 60)]


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: Annotated[tuple[_Number, ...], msgspec.Meta(max_length=32)]
    data_offsets: tuple[_Number, _Number]


def checkpoint_tensors(folder: Path, stem: str = "model") -> dict[str, Tensor]:
    """All tensors of a checkpoint folder, by the names that the files give them.

    Args:
        folder: with ``model.safetensors``, or shards and their index.
        stem: how the files' names begin.

    Raises:
        NotFoundError: there are no files, or a shard is missing.
        UsageError: there are only pickles.
        MalformedError: a file or index that is damaged.
        IntegrityError: index and shards disagree.
        LimitError: a header over 64 MiB.
    """
    found: dict[str, Tensor] = {}
    where: dict[str, str] = {}
    for path in weight_files(folder, stem):
        for name, tensor in tensors_of(path).items():
            if name in found:
                raise IntegrityError(f"both {where[name]} and {path.name} hold the tensor {name!r}")
            found[name], where[name] = tensor, path.name
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        _check_index(index, where, sum(tensor.nbytes for tensor in found.values()))
    return found


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file, mapped from it.

    Raises:
        MalformedError: not a safetensors file, or its header does not fit the file.
        LimitError: a header over 64 MiB.
        StorageError: it cannot be read.
    """
    data = _map(path)
    header, start = _header(data, path)
    return {name: _tensor(name, entry, data[start:], path) for name, entry in header.items() if name != "__metadata__"}


def _map(path: Path) -> Bytes:
    try:
        with path.open("rb") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except FileNotFoundError:
        raise NotFoundError(f"no such file: {path}") from None
    except ValueError:
        raise MalformedError(f"{path} is empty, not a safetensors file") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def _header(data: Bytes, path: Path) -> tuple[dict[str, Any], int]:
    size = int.from_bytes(data[:_PREFIX].tobytes(), "little") if len(data) >= _PREFIX else 0
    if not size or _PREFIX + size > len(data):
        raise MalformedError(
            f"{path} is not a safetensors file, or was cut off: a header of {size} bytes in {len(data)}",
            hint="download it again",
        )
    if size > MAX_HEADER:
        raise LimitError(f"{path} has a header of {size} bytes, more than the {MAX_HEADER} that wszoo reads")
    header = decode(memoryview(data[_PREFIX : _PREFIX + size]), dict[str, Any], what=str(path), limit=MAX_HEADER)
    return header, _PREFIX + size


def _tensor(name: str, entry: object, data: Bytes, path: Path) -> Tensor:
    try:
        known = msgspec.convert(entry, _Entry)
    except msgspec.ValidationError as error:
        raise MalformedError(f"{path}: the entry of {name!r} is malformed: {error}") from error
    if known.dtype not in _TYPES:
        raise MalformedError(f"{path}: the tensor {name!r} has the unknown element type {known.dtype!r}")
    dtype = dtype_of(_TYPES[known.dtype])
    begin, end = known.data_offsets
    if not begin <= end <= len(data) or end - begin != dtype.nbytes(known.shape):
        raise MalformedError(
            f"{path}: the tensor {name!r} of {known.dtype} {list(known.shape)} needs {dtype.nbytes(known.shape)} "
            f"bytes, and the header places it at {begin} to {end} of {len(data)}",
            hint="the file is damaged or was cut off: download it again",
        )
    flat = data[begin:end]
    return Tensor(name, dtype, known.shape, lambda: flat)


def _check_index(index: Path, where: dict[str, str], total: int) -> None:
    document = read_json(index)
    wanted = {str(name): str(shard) for name, shard in (document.get("weight_map") or {}).items()}
    wrong = [name for name, shard in wanted.items() if where.get(name) != shard]
    wrong += [name for name in where if name not in wanted]
    if wrong:
        raise IntegrityError(
            f"{index} and the shards disagree about {named(sorted(wrong))}",
            hint="the files are of different versions of the model: download all of it again",
        )
    metadata = document.get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(size, int | float) and not math.isclose(size, total, rel_tol=0, abs_tol=0.5):
        raise IntegrityError(
            f"{index} says that the tensors have {int(size)} bytes, and they have {total}",
            hint="a shard is of another version, or the index is stale: download the model again",
        )
