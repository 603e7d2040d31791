"""Which models hold the same tensors, for many models at once.

A tensor takes 16 bytes of memory: the first 64 bits of its digest, and its size. That is enough to draw a page from and
for nothing else: two tensors with equal beginnings would count as one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from wszoo.digest import Digest

MOST_COMPARED = 64  # models that share one and the same set of tensors, of which each is ranked against the others
_HEX = 16


@dataclass(frozen=True, slots=True)
class Tensors:
    """The distinct tensors of one model.

    Attributes:
        keys: uint64, the beginnings of their digests.
        sizes: uint64, their raw bytes, in the same order.
    """

    keys: NDArray[np.uint64]
    sizes: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Shared:
    """What one model has in common with others.

    Attributes:
        nbytes: raw bytes that at least one other model has too.
        others: positions of those models and the bytes in common, most first.
    """

    nbytes: int
    others: tuple[tuple[int, int], ...]


def tensors_of(sizes: Mapping[Digest, int]) -> Tensors:
    """The tensors of a model, from the raw sizes of its distinct ones."""
    keys = np.fromiter((int(digest.hex[:_HEX], 16) for digest in sizes), np.uint64, len(sizes))
    return Tensors(keys, np.fromiter(sizes.values(), np.uint64, len(sizes)))


class Sharing:
    """Who shares what, among models that are known by their positions.

    Tensors that the same models hold are one group, so that a base model's weights in 500 fine-tunes cost one entry.
    Of a group of more than ``MOST_COMPARED`` models only so many are ranked as neighbours.

    Args:
        models: the tensors of each.
    """

    def __init__(self, models: Sequence[Tensors]) -> None:
        self._groups: list[tuple[NDArray[np.int64], int]] = []
        self._of: list[list[int]] = [[] for _ in models]
        for members, nbytes in _groups(models).items():
            where = np.frombuffer(members, np.int64)
            for model in where:
                self._of[model].append(len(self._groups))
            self._groups.append((where, nbytes))

    def of(self, model: int) -> Shared:
        """What a model has in common with the others."""
        common: Counter[int] = Counter()
        mine = [self._groups[group] for group in self._of[model]]
        for members, nbytes in mine:
            for other in members[:MOST_COMPARED].tolist():
                common[other] += nbytes
        del common[model]
        ranked = sorted(common.items(), key=lambda pair: (-pair[1], pair[0]))
        return Shared(sum(nbytes for _, nbytes in mine), tuple(ranked))


def _groups(models: Sequence[Tensors]) -> Mapping[bytes, int]:
    """Models that hold the same tensors, as the bytes of their positions -> raw bytes of these tensors."""
    groups: Counter[bytes] = Counter()
    if not models:
        return groups
    keys = np.concatenate([model.keys for model in models])
    sizes = np.concatenate([model.sizes for model in models])
    owners = np.repeat(np.arange(len(models), dtype=np.int64), [len(model.keys) for model in models])
    order = np.argsort(keys, kind="stable")  # stable: each run of equal keys lists its models in order
    keys, sizes, owners = keys[order], sizes[order], owners[order]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))) if len(keys) else np.empty(0, np.int64)
    ends = np.append(starts[1:], len(keys))
    for start, end in _several(starts, ends):
        groups[owners[start:end].tobytes()] += int(sizes[start])
    return groups


def _several(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Iterable[tuple[int, int]]:
    wanted = ends - starts > 1
    return zip(starts[wanted].tolist(), ends[wanted].tolist(), strict=True)
