"""What a caller feeds into an engine, checked against what the network takes: the same rules for every backend."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.backends import dlpack
from wszoo.errors import IncompatibleError, UsageError
from wszoo.weights.tensor import DTYPES, dtype_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from wszoo.schema.model import Value
    from wszoo.schema.plan import Profile, ShapeRange
    from wszoo.weights.graph import Graph

_TEXT = frozenset("UST")  # NumPy's kinds of text: str, bytes, StringDType
_NAMES = {dtype.numpy_name: dtype.name for dtype in DTYPES.values() if not dtype.packed}


def check_values(component: str, graph: Graph) -> None:
    """Check that arrays can carry everything that goes in and out.

    Raises:
        IncompatibleError: an input or output has elements of under a byte, which NumPy cannot hold.
    """
    for value in (*graph.inputs, *graph.outputs):
        if dtype_of(value.dtype).packed:
            raise IncompatibleError(
                f"the network {component!r} has {describe(value)} among its inputs and outputs",
                hint="NumPy has no 4-bit elements: cast to int8 inside the network",
            )


def check_names(wanted: Sequence[Value], given: Mapping[str, object]) -> None:
    """Check that every input is there, and nothing else.

    Raises:
        UsageError: an input is missing or unknown.
    """
    names = [value.name for value in wanted]
    takes = f"it takes {', '.join(map(describe, wanted)) or 'nothing'}"
    for name in given:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            raise UsageError(f"unknown input {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""), hint=takes)
    missing = [name for name in names if name not in given]
    if missing:
        raise UsageError(f"missing input{'s' * (len(missing) > 1)}: {', '.join(missing)}", hint=takes)


def host_array(value: Value, given: object) -> NDArray[Any]:
    """Take one input as an array in host memory.

    Args:
        value: what the network takes.
        given: a NumPy array or scalar, or any array in host memory that speaks DLPack.

    Returns:
        The array itself or a view of its memory; strides as given.

    Raises:
        UsageError: not an array, or of another element type.
        IncompatibleError: of another rank, or a fixed dimension differs.
    """
    if _is_text(given):
        raise UsageError(
            f"input {value.name!r} takes {value.dtype}, and strings cannot be given as arrays",
            hint="turn the text into numbers first, as the model's tokenizer does",
        )
    if isinstance(given, np.ndarray | np.generic):
        array = np.asarray(given)
    elif isinstance(given, dlpack.Producer):
        array = dlpack.host_array(value.name, given)
    else:
        raise UsageError(
            f"input {value.name!r} is a {type(given).__name__}, not an array",
            hint=f"pass numpy.asarray(..., dtype={value.dtype!r})",
        )
    known = _NAMES.get(array.dtype.name) if array.dtype.isnative else None
    check_one(value, known or str(array.dtype), array.shape)
    return array


def _is_text(given: object) -> bool:
    if isinstance(given, np.ndarray | np.generic):
        kind, first = given.dtype.kind, next(iter(given.flat), None)
        return kind in _TEXT or (kind == "O" and isinstance(first, str | bytes))
    return isinstance(given, str | bytes)


def check_one(value: Value, dtype: str, shape: tuple[int, ...]) -> None:
    """Check one input's element type and shape; nothing is ever cast silently.

    Args:
        value: what the network takes.
        dtype: lower-case ONNX element type of what was given.
        shape: its dimensions.

    Raises:
        UsageError: another element type.
        IncompatibleError: another rank, or a fixed dimension differs.
    """
    if dtype != value.dtype:
        raise UsageError(f"input {value.name!r} takes {value.dtype}, not {dtype}", hint="convert it first")
    fits = len(shape) == len(value.shape) and all(
        isinstance(want, str) or want == have for want, have in zip(value.shape, shape, strict=True)
    )
    if not fits:
        raise IncompatibleError(f"input {value.name!r} has the shape {dims(shape)}; it takes {describe(value)}")


def choose_profile(profiles: Sequence[Profile], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Choose the optimization profile that covers the shapes; of several, the one whose ``opt`` is nearest.

    Args:
        profiles: in the engine's order; none when every shape is fixed.
        shapes: of each input.

    Returns:
        Its number; 0 when there are none.

    Raises:
        IncompatibleError: no profile covers the shapes; the hint lists them all.
    """
    if not profiles:
        return 0
    fitting = [number for number, profile in enumerate(profiles) if _covers(profile, shapes)]
    if not fitting:
        dynamic = {name for profile in profiles for name in profile.inputs}
        have = ", ".join(f"{name} {dims(shape)}" for name, shape in shapes.items() if name in dynamic)
        known = "; ".join(f"{profile.name}: {_ranges(profile)}" for profile in profiles)
        raise IncompatibleError(f"no optimization profile of this plan covers {have}", hint=f"there is {known}")
    return min(fitting, key=lambda number: (_distance(profiles[number], shapes), number))


def describe(value: Value) -> str:
    """``sample float16 [batch, 4, 64, 64]``."""
    return f"{value.name} {value.dtype} [{', '.join(map(str, value.shape))}]"


def dims(shape: Sequence[int]) -> str:
    """``1x3x224x224``, as users write shapes; ``scalar`` for rank 0."""
    return "x".join(map(str, shape)) or "scalar"


def _covers(profile: Profile, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return all(_inside(limits, shapes[name]) for name, limits in profile.inputs.items() if name in shapes)


def _inside(limits: ShapeRange, shape: tuple[int, ...]) -> bool:
    return len(shape) == len(limits.min) and all(
        low <= size <= high for low, size, high in zip(limits.min, shape, limits.max, strict=True)
    )


def _distance(profile: Profile, shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(
        abs(size - best)
        for name, limits in profile.inputs.items()
        if name in shapes
        for size, best in zip(shapes[name], limits.opt, strict=True)
    )


def _ranges(profile: Profile) -> str:
    return ", ".join(f"{name} {dims(limits.min)} to {dims(limits.max)}" for name, limits in profile.inputs.items())
