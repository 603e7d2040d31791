"""The splice program: a plan as literal bytes and copies out of views, and its byte format.

A plan is cut into *blocks*, in order. A block is a matrix of ``rows`` rows that are ``pitch`` bytes apart; each row
holds *pieces*, one behind the other, every piece a run of bytes from a view that advances by its ``stride`` from row to
row. A plain copy is a block of one row and one piece; a fused QKV matrix is one block of three pieces. Bytes that no
piece covers (between blocks, between a row's pieces, behind a row's last piece up to the next row) are literals, kept
in the order of the plan. Blocks do not overlap, so neither do copies.

Byte format (*body*, version 1)
-------------------------------
Numbers are LEB128; a *column* is defined in :mod:`wszoo.plans.splice.columns`; signed columns are marked (s).

1. version = 1; number of recipes, views, blocks, pieces; length of the literals in bytes.
2. Recipes, each: rank of the permutation (0: identity), the permutation, one number an axis; padded axis + 1 (0: none)
   and, if padded, the new length; ONNX number of the type cast to (0: none); length of the scalar, its bytes.
3. Columns over views, in the order of first use:
   recipe; tensor - (the previous view's tensor + 1) (s), the first compared with 0.
4. Columns over blocks: rows - 1; pieces - 1; tail = pitch - (end of the row's last piece), 0 where rows = 1.
5. Columns over pieces, in order:
   * gap: bytes since the previous piece's end in the row, or, for a first piece, since the previous block's end
     (block's end = end of its last row's last piece);
   * view: 0 = the next view not yet used, n = the view used first n steps before that one;
   * source (s): offset in the view - (the previous piece's offset + length in that view, 0 if there is none);
   * rest (s): bytes of the view - the piece's length;
   * stride (s): stride - length, only for pieces of blocks of more than one row.
6. The literals, to the end.

Engine bytes are pinned by their sha256 and tensors by theirs, outside of the program.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from wszoo.errors import LimitError, MalformedError
from wszoo.plans.splice import columns
from wszoo.plans.splice.columns import Cursor, Ints, Mask
from wszoo.plans.splice.views import MAX_PAD, MAX_RANK, Recipe, View, bind
from wszoo.tree import CHUNK
from wszoo.weights.tensor import dtype_from_onnx, dtype_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.buffers import Bytes
    from wszoo.weights.tensor import Tensor

VERSION = 1
MAX_PLAN = 1 << 40
MAX_COUNT = 1 << 20  # views, blocks or pieces: SDXL's unet takes a few thousand
MAX_RECIPES = 1 << 12
MAX_STEPS = 1 << 22  # pieces put together, window by window: a minute or two; SDXL's unet takes 26,000
# Bytes of plan assembled at a time in rows whose tensors are more than are kept loaded, where they cannot be put
# together in a file: each strip loads all of them again. The cross-attention of SDXL's unet is 140 matrices of 700 MB:
# a chunk at a time they were loaded 170 times.
STRIP = 64 << 20
# Bytes of tensors loaded and computed to assemble a plan: for each of its bytes, and besides. A permuted view is
# computed 4 MiB at a time, and a tensor decoded whole, even if one byte is wanted: a million from all over take hours.
# SDXL's text encoders take 1.0 for each byte of their plans, ResNet-50 2.0, and SDXL's unet 2.8.
MAX_WORK, FREE_WORK = 64, 8 << 30
_MAX_SCALAR = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Columns over blocks, in plan order; ``start``, ``pitch`` in bytes. ``first`` indexes pieces and has one more."""

    start: Ints
    rows: Ints
    pitch: Ints
    first: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """Columns over pieces: ``column`` is the offset in the block's row, ``source`` that in the view, in bytes."""

    column: Ints
    view: Ints
    source: Ints
    stride: Ints
    length: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A valid splice program; make one with :func:`wszoo.plans.splice.encode` or :meth:`from_bytes`.

    Attributes:
        views: what pieces refer to, in the order of first use.
        sizes: bytes in each view.
        blocks: matrices of the plan.
        pieces: their parts.
        literals: every byte that no piece covers, in plan order.
        plan_size: bytes in the plan.
    """

    views: tuple[View, ...]
    sizes: Ints
    blocks: Blocks
    pieces: Pieces
    literals: Bytes = field(repr=False)
    plan_size: int

    @property
    def work_limit(self) -> int:
        """Bytes of tensors that may be loaded and computed to assemble the plan in order."""
        return MAX_WORK * self.plan_size + FREE_WORK

    @property
    def copied(self) -> int:
        """Bytes of the plan that come out of tensors."""
        return self.plan_size - len(self.literals)

    def to_bytes(self) -> bytes:
        """The body, as described at the top of this module; not compressed."""
        recipes = sorted({view.recipe for view in self.views}, key=_recipe_bytes)
        counts = (len(recipes), len(self.views), len(self.blocks.rows), len(self.pieces.view), len(self.literals))
        head = b"".join(map(columns.number, (VERSION, *counts)))
        table = b"".join(map(_recipe_bytes, recipes))
        return head + table + _view_columns(self.views, recipes) + _op_columns(self) + self.literals.tobytes()

    @classmethod
    def from_bytes(cls, body: bytes, tensors: Sequence[Tensor], *, plan_size: int) -> Self:
        """Parse and validate a body that nobody vouches for.

        Args:
            body: as :meth:`to_bytes` wrote it.
            tensors: what the views' numbers refer to; only types and shapes are looked at.
            plan_size: bytes that the plan must have.

        Raises:
            MalformedError: the body does not follow the format, or reaches outside of a tensor or the plan.
            LimitError: a count or size is over what any plan needs.
        """
        if plan_size > MAX_PLAN:
            raise LimitError(f"a plan of {plan_size:,} bytes is over the limit of {MAX_PLAN:,}")
        cursor = Cursor(body)
        if (version := cursor.number(columns.MAX_VALUE)) != VERSION:
            raise MalformedError(f"a splice program has version {version}; this wszoo reads {VERSION}")
        limits = (MAX_RECIPES, MAX_COUNT, MAX_COUNT, MAX_COUNT, plan_size)
        n_recipes, n_views, n_blocks, n_pieces, n_literals = (cursor.number(limit) for limit in limits)
        recipes = [_read_recipe(cursor) for _ in range(n_recipes)]
        views = _read_views(cursor, n_views, recipes, len(tensors))
        sizes = np.array([_size(view, tensors) for view in views], np.int64)
        blocks, pieces = _read_ops(cursor, n_blocks, n_pieces, sizes)
        literals = np.frombuffer(cursor.take(n_literals), np.uint8)
        if cursor.left:
            raise MalformedError(f"a splice program is followed by {cursor.left:,} bytes of garbage")
        program = cls(views=views, sizes=sizes, blocks=blocks, pieces=pieces, literals=literals, plan_size=plan_size)
        _check_ranges(program)
        return program


def _size(view: View, tensors: Sequence[Tensor]) -> int:
    tensor = tensors[view.tensor]
    size = bind(view.recipe, tensor.dtype, tensor.shape).nbytes
    if size > MAX_PLAN:
        raise LimitError(f"a view of tensor {tensor.name!r} has {size:,} bytes, over the limit of {MAX_PLAN:,}")
    return size


def _recipe_bytes(recipe: Recipe) -> bytes:
    pad = (recipe.pad[0] + 1, recipe.pad[1]) if recipe.pad else (0,)
    cast = dtype_of(recipe.cast).onnx if recipe.cast else 0
    numbers = (len(recipe.permutation), *recipe.permutation, *pad, cast, len(recipe.scale))
    return b"".join(map(columns.number, numbers)) + recipe.scale


def _read_recipe(cursor: Cursor) -> Recipe:
    permutation = tuple(cursor.number(MAX_RANK) for _ in range(cursor.number(MAX_RANK)))
    axis = cursor.number(columns.MAX_VALUE)
    pad = (axis - 1, cursor.number(MAX_PAD)) if axis else None
    cast = cursor.number(255)
    scale = cursor.take(cursor.number(_MAX_SCALAR)).tobytes()
    return Recipe(cast=dtype_from_onnx(cast).name if cast else "", scale=scale, pad=pad, permutation=permutation)


def _view_columns(views: tuple[View, ...], recipes: list[Recipe]) -> bytes:
    tensors = np.array([view.tensor for view in views], np.int64)
    number = {recipe: i for i, recipe in enumerate(recipes)}
    chosen = np.array([number[view.recipe] for view in views], np.int64)
    return columns.encode(chosen) + columns.encode_signed(np.diff(tensors, prepend=-1) - 1)


def _read_views(cursor: Cursor, count: int, recipes: list[Recipe], n_tensors: int) -> tuple[View, ...]:
    chosen = cursor.column(count)
    tensors = np.cumsum(cursor.signed_column(count) + 1) - 1
    _require(not np.any(chosen >= len(recipes)), "names a recipe that it does not define")
    _require(not np.any((tensors < 0) | (tensors >= n_tensors)), f"names a tensor beyond the {n_tensors} there are")
    pairs = zip(tensors.tolist(), chosen.tolist(), strict=True)
    return tuple(View(tensor=tensor, recipe=recipes[recipe]) for tensor, recipe in pairs)


def _op_columns(program: Program) -> bytes:
    blocks, pieces = program.blocks, program.pieces
    first, several = _piece_places(blocks)
    row_end = _row_ends(blocks, pieces)
    end = blocks.start + (blocks.rows - 1) * blocks.pitch + row_end
    gap = pieces.column - np.concatenate(([0], (pieces.column + pieces.length)[:-1]))[: len(pieces.view)]
    gap[first] = blocks.start - np.concatenate(([0], end[:-1]))[: len(end)]
    fresh = _is_first_use(pieces.view)
    parts = [
        columns.encode(blocks.rows - 1),
        columns.encode(np.diff(blocks.first) - 1),
        columns.encode(np.where(blocks.rows > 1, blocks.pitch - row_end, 0)),
        columns.encode(gap),
        columns.encode(np.cumsum(fresh) - fresh - pieces.view),
        columns.encode_signed(pieces.source - _previous_end(pieces)),
        columns.encode_signed(program.sizes[pieces.view] - pieces.length),
        columns.encode_signed((pieces.stride - pieces.length)[several]),
    ]
    return b"".join(parts)


def _read_ops(cursor: Cursor, n_blocks: int, n_pieces: int, sizes: Ints) -> tuple[Blocks, Pieces]:
    rows, counts, tail = cursor.column(n_blocks) + 1, cursor.column(n_blocks) + 1, cursor.column(n_blocks)
    _require(int(counts.sum()) == n_pieces, f"declares {n_pieces:,} pieces, its blocks hold {int(counts.sum()):,}")
    _require(not np.any(tail[rows == 1]), "gives a single row a tail")
    index = np.concatenate(([0], np.cumsum(counts)))
    gap = cursor.column(n_pieces)
    view = _read_view_numbers(cursor, n_pieces, len(sizes))
    source_step = cursor.signed_column(n_pieces)
    length = sizes[view] - cursor.signed_column(n_pieces)
    _require(not np.any(length <= 0), "copies nothing")
    blocks = Blocks(start=np.zeros(n_blocks, np.int64), rows=rows, pitch=tail, first=index)
    first, several = _piece_places(blocks)
    stride = length.copy()
    stride[several] += cursor.signed_column(int(several.sum()))
    source = _sum_by_view(view, source_step, length)
    lead, gap[first] = gap[first], 0
    run = np.cumsum(gap + length)
    column = run - length - np.repeat((run - length)[first], counts)
    pieces = Pieces(column=column, view=view, source=source, stride=stride, length=length)
    return _placed(blocks, pieces, lead, tail), pieces


def _placed(blocks: Blocks, pieces: Pieces, lead: Ints, tail: Ints) -> Blocks:
    row_end = _row_ends(blocks, pieces)
    pitch = row_end + tail
    spans = (blocks.rows - 1).astype(np.float64) * pitch
    _require(not np.any(spans > MAX_PLAN), "writes beyond the plan")
    extent = (blocks.rows - 1) * pitch + row_end
    return Blocks(start=np.cumsum(lead + extent) - extent, rows=blocks.rows, pitch=pitch, first=blocks.first)


def _read_view_numbers(cursor: Cursor, count: int, n_views: int) -> Ints:
    back = cursor.column(count)
    fresh = back == 0
    view: Ints = np.cumsum(fresh) - fresh - back
    _require(not np.any(view < 0) and int(fresh.sum()) == n_views, "uses views in another order than it lists them")
    return view


def _is_first_use(view: Ints) -> Ints:
    fresh = np.zeros(len(view), np.int64)
    fresh[np.unique(view, return_index=True)[1]] = 1
    return fresh


def _piece_places(blocks: Blocks) -> tuple[Ints, Mask]:
    """Index of each block's first piece, and which pieces belong to blocks of several rows."""
    return blocks.first[:-1], np.repeat(blocks.rows > 1, np.diff(blocks.first))


def _row_ends(blocks: Blocks, pieces: Pieces) -> Ints:
    last = blocks.first[1:] - 1
    ends: Ints = pieces.column[last] + pieces.length[last]
    return ends


def _by_view(view: Ints) -> tuple[Ints, Mask]:
    order = np.argsort(view, kind="stable")
    return order, np.diff(view[order], prepend=-1) != 0


def _previous_end(pieces: Pieces) -> Ints:
    order, opens = _by_view(pieces.view)
    end = (pieces.source + pieces.length)[order]
    previous = np.concatenate(([0], end[:-1]))[: len(end)]
    previous[opens] = 0
    result = np.empty_like(previous)
    result[order] = previous
    return result


def _sum_by_view(view: Ints, step: Ints, length: Ints) -> Ints:
    """Source offsets: the sum of all steps and lengths before, view by view."""
    order, opens = _by_view(view)
    total = np.cumsum((step + length)[order])
    before = (total - (step + length)[order])[opens]
    starts = np.flatnonzero(opens)
    counts = np.diff(np.concatenate((starts, [len(view)])))
    result: Ints = np.empty_like(total)
    result[order] = total - np.repeat(before, counts) - length[order]
    return result


def _check_ranges(program: Program) -> None:
    blocks, pieces = program.blocks, program.pieces
    rows = np.repeat(blocks.rows, np.diff(blocks.first))
    reach = (rows - 1).astype(np.float64) * pieces.stride
    _require(not np.any((pieces.stride < 0) | (pieces.source < 0)), "reads before a view's start")
    _require(not np.any(reach > MAX_PLAN), "reads beyond a view's end")
    last = pieces.source + (rows - 1) * pieces.stride + pieces.length
    _require(not np.any(last > program.sizes[pieces.view]), "reads beyond a view's end")
    row_end = _row_ends(blocks, pieces)
    ends = blocks.start + (blocks.rows - 1) * blocks.pitch + row_end
    _require(not np.any(ends > program.plan_size), "writes beyond the plan")
    taken = steps(blocks.rows, blocks.pitch, np.diff(blocks.first))
    if taken > MAX_STEPS:
        raise LimitError(f"a splice program takes {taken:,} steps to assemble, over the limit of {MAX_STEPS:,}")
    copied = sum((rows * pieces.length).tolist())
    if copied + len(program.literals) != program.plan_size:
        total = copied + len(program.literals)
        raise MalformedError(f"a splice program makes {total:,} bytes of a plan of {program.plan_size:,}")


def steps(rows: Ints, pitch: Ints, pieces: Ints) -> int:
    """Steps to assemble blocks: each goes out in whole rows, as many as a chunk takes, piece after piece."""
    chunks = -(-rows // np.maximum(1, CHUNK // pitch))
    return sum((chunks * pieces).tolist())


def _require(holds: bool, defect: str) -> None:
    if not holds:
        raise MalformedError(f"a splice program {defect}")
