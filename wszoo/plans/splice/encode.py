"""Encode a plan: find what of it comes out of tensors, in passes from the likely and cheap to the rare and thorough.

1. The usual views of all tensors, looked for at every eighth byte of the plan, in small regions: what a few rows lead
   to is verified to its end and searched no more, so that a plan of large matrices is mostly compared, not searched.
2. The same in large regions of what is left, which hold several rows of the widest interleaved matrices.
3. Matrices interleaved byte by byte, among the tensors that were not found.
4. The usual views at every byte of what is left, or every fourth if that is too much.
5. All other views of the tensors that were not found, as in 2.
6. The same as in 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wszoo.plans.splice.program import MAX_COUNT, MAX_STEPS, Blocks, Pieces, Program, steps
from wszoo.plans.splice.reader import Reader
from wszoo.plans.splice.recipes import common, rare
from wszoo.plans.splice.scan import FAR, NEAR
from wszoo.plans.splice.search import Search
from wszoo.plans.splice.tile import Block, tile
from wszoo.plans.splice.views import BYTE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wszoo.buffers import Bytes
    from wszoo.plans.splice.columns import Ints
    from wszoo.plans.splice.match import Copy
    from wszoo.plans.splice.views import View
    from wszoo.weights.tensor import Tensor


def encode(
    plan: Bytes,
    tensors: Sequence[Tensor],
    *,
    scales: Sequence[tuple[str, bytes]] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Program:
    """Rewrite a plan as literals and copies out of tensors.

    Args:
        plan: the plan's bytes, usually mapped from a file; read in windows.
        tensors: the weights; each ``load()`` is called several times.
        scales: scalars of the graph that a builder may fold into weights, as :class:`~wszoo.plans.splice.Scale`.
        progress: called with bytes done and the plan's size, as if all passes were one.

    Returns:
        A program that :func:`wszoo.plans.splice.apply` turns back into exactly ``plan``; where nothing is found, all
        of the plan is literals.

    Raises:
        IntegrityError: a tensor loads another number of bytes than its type and shape take.
    """
    search = Search(np.asarray(plan), tensors, progress or (lambda _done, _total: None))
    usual = search.index(common(tensors, scales))
    step = _aligned(tensors)
    search.look(usual, region=NEAR, step=step)
    search.look(usual, region=FAR, step=step)
    search.comb()
    search.look(usual, region=FAR)
    others = search.index(rare(tensors, search.missing(), scales))
    search.look(others, region=FAR, step=step)
    search.look(others, region=FAR)
    return _program(search.plan, tensors, search.views, _tiled(search.copies))


def _aligned(tensors: Sequence[Tensor]) -> int:
    """Bytes that a builder aligns weights to: 8 or more, but 4 where there are any of a byte or less an element."""
    return 4 if any(tensor.dtype.bits <= BYTE for tensor in tensors) else 8


def _tiled(copies: list[Copy]) -> list[Block]:
    """Blocks of the copies, or of the larger ones where all would be more than a program may have."""
    blocks = tile(copies)
    while _is_too_much(blocks):
        copies = sorted(copies, key=lambda copy: -copy.nbytes)[: len(copies) // 2]
        blocks = tile(copies)
    return blocks


def _is_too_much(blocks: list[Block]) -> bool:
    pieces = _ints(len(block.parts) for block in blocks)
    rows, pitch = _ints(block.rows for block in blocks), _ints(block.pitch for block in blocks)
    return int(pieces.sum()) > MAX_COUNT or steps(rows, pitch, pieces) > MAX_STEPS


def _program(plan: Bytes, tensors: Sequence[Tensor], views: Sequence[View], blocks: list[Block]) -> Program:
    parts = [part for block in blocks for part in block.parts]
    used = {view: i for i, view in enumerate(dict.fromkeys(part.view for part in parts))}
    kept = tuple(views[view] for view in used)
    return Program(
        views=kept,
        sizes=_ints(layout.nbytes for layout in Reader(tensors, kept).layouts),
        blocks=Blocks(
            start=_ints(block.start for block in blocks),
            rows=_ints(block.rows for block in blocks),
            pitch=_ints(block.pitch for block in blocks),
            first=np.cumsum(_ints([0, *(len(block.parts) for block in blocks)])),
        ),
        pieces=Pieces(
            column=_ints(part.column for part in parts),
            view=_ints(used[part.view] for part in parts),
            source=_ints(part.source for part in parts),
            stride=_ints(part.stride for part in parts),
            length=_ints(part.length for part in parts),
        ),
        literals=_literals(plan, blocks),
        plan_size=len(plan),
    )


def _literals(plan: Bytes, blocks: list[Block]) -> Bytes:
    """The bytes between blocks and between their parts, in plan order."""
    found: list[Bytes] = []
    at = 0
    for block in blocks:
        found.append(plan[at : block.start])
        at = block.end
        if block.rows == 1 and len(block.parts) == 1:
            continue
        keep = np.ones(block.pitch, np.bool_)
        for part in block.parts:
            keep[part.column : part.column + part.length] = False
        if keep.any():
            whole = plan[block.start : block.start + (block.rows - 1) * block.pitch].reshape(-1, block.pitch)
            last = plan[block.start + (block.rows - 1) * block.pitch : at]
            found += [whole[:, keep].reshape(-1), last[keep[: len(last)]]]
    found.append(plan[at:])
    return np.concatenate(found)


def _ints(values: object) -> Ints:
    return np.fromiter(values, np.int64)  # type: ignore[call-overload,no-any-return]
