"""From a checkpoint's tensors to the network's parameters, in the wanted element type.

A tensor that has the wanted type stays where it lies in its file. Others are converted one at a time into one file of
the export's folder.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.errors import BuildError
from wszoo.families.checkpoints import check_keys, named
from wszoo.families.tensor_files import checkpoint_tensors
from wszoo.weights.tensor import DTYPES, Tensor, dtype_of
from wszoo_llm import chatglm
from wszoo_llm.network import DTYPES as PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wszoo.families.spool import Spool
    from wszoo.progress import Progress
    from wszoo_llm.source import Source

# Models that also see or hear keep their text model under one of these.
_TEXT = ("language_model.", "model.language_model.", "model.text_model.")
# Buffers that old checkpoints hold and the network computes.
_COMPUTED = ("inv_freq", "masked_bias", "attn.bias", "attention.bias", "rope.freqs")
_FLOATS = {"float32", "float16", "bfloat16", "float64"}
_PIECE = 1 << 24  # elements to look at in one go: 64 MB in fp32


def read_tensors(source: Source) -> dict[str, Tensor]:
    """A checkpoint's tensors under transformers' names.

    Raises:
        BuildError: it is quantized already.
        NotFoundError, UsageError, MalformedError, IntegrityError: see :func:`checkpoint_tensors`.
    """
    tensors = checkpoint_tensors(source.folder)
    if source.chatglm:
        tensors = chatglm.renamed(tensors, source.config)
    odd = sorted({tensor.dtype.name for tensor in tensors.values() if tensor.dtype.name not in _FLOATS})
    odd = [name for name in odd if name.startswith(("float8", "int8", "uint8", "int32"))]
    if odd and getattr(source.config, "quantization_config", None) is not None:
        raise BuildError(
            f"{source.folder} is quantized already ({', '.join(odd)})",
            hint="take the model in bf16 or fp16, and quantize it with --precision int8 or --precision int4",
        )
    return tensors


def own_precision(tensors: Mapping[str, Tensor]) -> str:
    """The precision that most of a checkpoint's bytes are in.

    Raises:
        BuildError: there is nothing in a type that networks compute in.
    """
    sizes = {
        name: sum(tensor.nbytes for tensor in tensors.values() if tensor.dtype.name == kind)
        for name, kind in PRECISIONS.items()
    }
    best = max(sizes, key=lambda name: sizes[name])
    if not sizes[best]:
        raise BuildError("the checkpoint holds no weights in fp32, fp16 or bf16")
    return best


def place(tensors: Mapping[str, Tensor], module: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """Find each parameter's tensor.

    Args:
        tensors: by the checkpoint's names.
        module: on the meta device.

    Returns:
        By the parameter's name; one name for each tied pair, the one that the exporter will use.

    Raises:
        BuildError: names or shapes do not fit.
    """
    wanted = _wanted(module)
    found, unexpected, mismatched = {}, [], []
    for key, tensor in tensors.items():
        name = _name(key, wanted)
        if name not in wanted:
            if not key.endswith(_COMPUTED) and not _foreign(key, tensors):
                unexpected.append(key)
            continue
        if tensor.shape != tuple(wanted[name].shape):
            mismatched.append(f"{key} {list(tensor.shape)} instead of {list(wanted[name].shape)}")
            continue
        found[name] = tensor
    same = _tied(module)
    for name, twin in same.items():
        if name not in found and twin in found:
            found[name] = found[twin]
    check_keys([name for name in wanted if name not in found], unexpected, mismatched)
    return found


def convert(tensors: Mapping[str, Tensor], module: Any, spool: Spool, progress: Progress) -> dict[str, Tensor]:  # noqa: ANN401
    """Each parameter in its own element type: untouched where it has it, else converted into the spool.

    Raises:
        BuildError: a weight that is not finite, before or after.
        StorageError: no room.
    """
    wanted = _wanted(module)
    found: dict[str, Tensor] = {}
    broken: list[str] = []
    made: dict[int, Tensor] = {}
    total = sum({id(tensor.load): tensor.nbytes for tensor in tensors.values()}.values())
    with progress.stage("check weights", total) as advance:
        for name, tensor in tensors.items():
            dtype = DTYPES[str(wanted[name].dtype).removeprefix("torch.")]
            if id(tensor) not in made:
                made[id(tensor)] = _converted(tensor, name, dtype, spool)
                if not _finite(made[id(tensor)]):
                    broken.append(name)
                advance(tensor.nbytes)
            found[name] = replace(made[id(tensor)], name=name)
    if broken:
        raise BuildError(
            f"these weights hold NaN or infinity: {named(broken)}",
            hint="the checkpoint is damaged, or its numbers are too large for fp16: try --precision bf16",
        )
    return found


def _converted(tensor: Tensor, name: str, dtype: Any, spool: Spool) -> Tensor:  # noqa: ANN401
    if tensor.dtype == dtype:
        return Tensor(name, dtype, tensor.shape, tensor.load)
    return spool.add_as(replace(tensor, name=name), dtype)


def _finite(tensor: Tensor) -> bool:
    # The exponent's bits are all set in what is no number; integers compare faster than floats convert.
    if not tensor.dtype.is_float:
        return True
    bits = {"float32": (np.uint32, 0x7F800000), "float16": (np.uint16, 0x7C00), "bfloat16": (np.uint16, 0x7F80)}
    kind, mask = bits.get(dtype_of(tensor.dtype.name).name, (None, 0))
    if kind is None:
        return bool(np.isfinite(tensor.array()).all())
    flat = tensor.load().view(kind)
    return not any(bool(((flat[start : start + _PIECE] & mask) == mask).any()) for start in range(0, len(flat), _PIECE))


def _wanted(module: Any) -> dict[str, Any]:  # noqa: ANN401
    return dict(module.state_dict(keep_vars=True))


def _tied(module: Any) -> dict[str, str]:  # noqa: ANN401
    """For each name of a parameter with two, the other."""
    first: dict[int, str] = {}
    found: dict[str, str] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        if id(value) in first:
            found[name], found[first[id(value)]] = first[id(value)], name
        first.setdefault(id(value), name)
    return found


def _name(key: str, wanted: Mapping[str, Any]) -> str:
    for prefix in _TEXT:
        if key.startswith(prefix):
            rest = key.removeprefix(prefix)
            return next((name for name in (rest, f"model.{rest}") if name in wanted), rest)
    return key if key in wanted else f"model.{key}" if f"model.{key}" in wanted else key


def _foreign(key: str, tensors: Mapping[str, Tensor]) -> bool:
    """True for the towers of a model that also sees, beside a text model under a prefix of its own."""
    return not key.startswith((*_TEXT, "lm_head")) and any(other.startswith(_TEXT) for other in tensors)
