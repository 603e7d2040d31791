"""Saying what came out of a network: shapes and ranges, best classes, accuracy. Text here is safe for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wszoo.errors import LimitError, MalformedError
from wszoo.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_LABELS = 200_000
_BAR = 20


def describe(name: str, array: NDArray[Any]) -> tuple[dict[str, object], str]:
    """Name, element type, shape, least, mean and greatest: as JSON (None for what is not finite) and as a line."""
    numbers = np.asarray(array, np.float64) if array.size else np.zeros(1)
    with np.errstate(all="ignore"):
        stats = {"min": float(numbers.min()), "mean": float(numbers.mean()), "max": float(numbers.max())}
    facts: dict[str, object] = {"name": name, "dtype": str(array.dtype), "shape": list(array.shape)}
    facts |= {key: value if np.isfinite(value) else None for key, value in stats.items()}
    shape = "x".join(map(str, array.shape)) or "scalar"
    numbers_text = "  ".join(f"{key} {value:.6g}" for key, value in stats.items())
    return facts, f"{printable(name)}  {array.dtype} {shape}  {numbers_text}"


def labels_from_asset(data: bytes) -> list[str]:
    """The classes of ``labels.txt``, one a line, UTF-8.

    Raises:
        MalformedError: not UTF-8.
        LimitError: over 200,000 lines.
    """
    try:
        labels = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise MalformedError(f"labels.txt is not UTF-8: {error}") from error
    if len(labels) > MAX_LABELS:
        raise LimitError(f"labels.txt has {len(labels)} lines, more than {MAX_LABELS}")
    return [printable(label) for label in labels]


def probabilities(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Softmax over the last axis, unless the rows are probabilities already."""
    numbers = np.asarray(scores, np.float64)
    if (numbers >= 0).all() and np.allclose(numbers.sum(axis=-1), 1, atol=1e-2):
        return numbers
    shifted = np.exp(numbers - numbers.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def best_classes(
    scores: NDArray[Any], labels: Sequence[str], *, rows: int, count: int = 5
) -> tuple[list[list[dict[str, object]]], list[str]]:
    """The best classes of each of the first rows: as JSON and as lines; nothing when the labels do not fit.

    Args:
        scores: logits or probabilities, ``(N, classes)``.
        labels: a name for each class.
        rows: how many of the N to list.
        count: classes to list.
    """
    if scores.shape[1:] != (len(labels),) or not np.isfinite(scores).all():
        return [], []
    found, lines = [], []
    for row, chances in enumerate(probabilities(scores[:rows])):
        order = np.argsort(-chances, kind="stable")[:count]
        if len(scores) > 1:
            lines.append(f"row {row}")
        lines += [f"  {chances[at]:6.1%}  {'#' * round(chances[at] * _BAR):<{_BAR}}  {labels[at]}" for at in order]
        found.append([{"label": labels[at], "class": int(at), "probability": float(chances[at])} for at in order])
    return found, lines


def accuracy(scores: NDArray[Any], truth: NDArray[Any]) -> tuple[dict[str, object], str]:
    """How many rows have their best class where the truth says: as JSON and as a line.

    Args:
        scores: ``(..., classes)``.
        truth: class numbers of shape ``(...)``.

    Raises:
        MalformedError: the shapes do not fit each other.
    """
    if scores.ndim < 1 or scores.shape[:-1] != truth.shape or not truth.size:
        raise MalformedError(f"labels of shape {list(truth.shape)} do not fit scores of shape {list(scores.shape)}")
    count = truth.size
    correct = int((scores.argmax(axis=-1) == truth).sum())
    facts: dict[str, object] = {"accuracy": correct / count, "correct": correct, "count": count}
    return facts, f"accuracy {correct / count:.3f} ({correct} of {count})"
