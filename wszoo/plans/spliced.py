"""Splice plans in a store: a full plan's file to layers, and back to the same bytes.

Programs of one component differ little between targets, so the first one's body is a layer of its own, the *base*, and
each plan's layer is compressed against it. A client fetches the base and its own plan's layer, and no byte that only
another target needs.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wszoo.digest import Digest
from wszoo.errors import BuildError, IntegrityError, MalformedError
from wszoo.plans.splice import Program, apply, pack, pack_base, restore, unpack, unpack_base
from wszoo.schema.plan import SPLICE, SPLICE_BASE
from wszoo.tree import tree_of_file
from wszoo.weights.gain import most_decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from wszoo.buffers import Bytes
    from wszoo.progress import Progress
    from wszoo.schema.oci import Manifest
    from wszoo.schema.plan import PlanConfig
    from wszoo.store.documents import DocumentSource
    from wszoo.weights.tensor import Tensor

MAX_LAYER = 1 << 30  # compressed; a plan in which nothing was found is stored whole
MAX_BASE = 256 << 20  # a larger body is nearly all literals: as a dictionary it would cost more memory than it saves
SLACK = 1 << 20  # a body is at most its plan's bytes and the operations
MAX_BODY = 4 << 30  # uncompressed, in memory; SDXL's unet has 40 MB, and 1 GiB of packed weights would be 1.3 GB


@dataclass(frozen=True, slots=True, kw_only=True)
class Spliced:
    """A full plan taken apart.

    Attributes:
        base: the compressed base, when this plan made a new one; else None.
        layer: the plan's own layer.
        engine_digest: sha256 of the full plan.
        engine_tree: its tree digest.
        engine_bytes: its size.
    """

    base: bytes | None
    layer: bytes
    engine_digest: Digest
    engine_tree: Digest
    engine_bytes: int


def splice(
    plan: Path,
    tensors: Sequence[Tensor],
    *,
    scales: Sequence[tuple[str, bytes]],
    base: bytes | None,
    progress: Progress,
    label: str,
) -> Spliced:
    """Cut the weights out of a full plan, and prove that they can be put back.

    Args:
        plan: the file that the builder wrote.
        tensors: the component's, in the order of its tensor table.
        scales: scalars of the graph, see :func:`wszoo.weights.graph.scalars`.
        base: uncompressed base of the component's other plans, when there is one.
        progress: where to report.
        label: names the plan there.

    Raises:
        BuildError: the result does not assemble to the same bytes: a defect in wszoo, caught before publishing.
    """
    from wszoo.plans.splice.encode import encode  # here, because clients do not need it

    data = _map(plan)
    with progress.stage(f"splice {label}", len(data)) as advance:
        program = encode(data, tensors, scales=scales, progress=_steps(advance, len(data)))
    body = program.to_bytes()
    engine_tree = tree_of_file(plan)
    with progress.stage(f"check {label}", len(data)) as advance:
        parsed = Program.from_bytes(body, tensors, plan_size=len(data))
        if apply(parsed, tensors, lambda window: advance(len(window))) != engine_tree:
            raise BuildError(
                f"the plan of {label} does not assemble to the bytes that the builder wrote",
                hint="this is a defect in wszoo: please report it with the model's graph",
            )
    new_base = pack_base(body) if base is None and len(body) <= MAX_BASE else None
    known = base if new_base is None else body
    layer = pack(body, known)
    _check_readable(layer, body, label)
    if not _unpacks(layer, body, known, len(data)) or (new_base and unpack_base(new_base, max_size=MAX_BASE) != body):
        raise BuildError(
            f"the program of the plan of {label} would not be unpacked as it was packed",
            hint="this is a defect in wszoo: please report it with the model's graph",
        )
    return Spliced(
        base=new_base,
        layer=layer,
        engine_digest=Digest.of_file(plan),
        engine_tree=engine_tree,
        engine_bytes=len(data),
    )


def _check_readable(layer: bytes, body: bytes, label: str) -> None:
    if len(layer) > MAX_LAYER or len(body) > min(MAX_BODY, most_decoded(len(layer))):
        raise BuildError(
            f"without its weights the plan of {label} still has {len(body)} bytes, {len(layer)} when packed; up to "
            f"{MAX_BODY} and {MAX_LAYER} can be read",
            hint="the builder stores these weights in a form that splice does not know: please report the model",
        )


def _unpacks(layer: bytes, body: bytes, base: bytes | None, engine_bytes: int) -> bool:
    try:
        return unpack(layer, max_size=_most(layer, engine_bytes), base=base) == body
    except IntegrityError:
        return False


def _most(layer: bytes, engine_bytes: int) -> int:
    """The most bytes that a body may have, whoever made it."""
    return min(engine_bytes + SLACK, MAX_BODY, most_decoded(len(layer)))


def unsplice(
    source: DocumentSource,
    manifest: Manifest,
    config: PlanConfig,
    tensors: Sequence[Tensor],
    out: Path,
    *,
    advance: Callable[[int], object] = lambda _count: None,
) -> None:
    """Put a plan together again; ``out`` exists afterwards only if its bytes are those that the builder wrote.

    Args:
        source: of the plan's layers.
        manifest: the plan's.
        config: the plan's.
        tensors: the component's, in the order of its tensor table.
        out: the file to create.
        advance: gets told the number of bytes done.

    Raises:
        IntegrityError: a layer is damaged or malformed, or the tensors are not those that the plan was cut from.
        StorageError: the file cannot be written.
    """
    body = read_body(source, manifest, config)
    program = Program.from_bytes(body, tensors, plan_size=config.engine_bytes)
    what = f"the plan of {config.component} for {config.target.name}"
    restore(program, tensors, out, expected=config.kept_as, what=what, advance=advance)


def read_body(source: DocumentSource, manifest: Manifest, config: PlanConfig) -> bytes:
    """The uncompressed program of a plan.

    Raises:
        IntegrityError: a layer is missing, damaged or malformed.
    """
    layer = _layer(source, manifest, SPLICE)
    return unpack(layer, max_size=_most(layer, config.engine_bytes), base=read_base(source, manifest))


def read_base(source: DocumentSource, manifest: Manifest) -> bytes | None:
    """The uncompressed base that a plan's layer was compressed against, or None.

    Raises:
        IntegrityError: it is damaged or malformed.
    """
    if all(layer.media_type != SPLICE_BASE for layer in manifest.layers):
        return None
    return unpack_base(_layer(source, manifest, SPLICE_BASE), max_size=MAX_BASE)


def _layer(source: DocumentSource, manifest: Manifest, media_type: str) -> bytes:
    found = [layer for layer in manifest.layers if layer.media_type == media_type]
    if len(found) != 1:
        raise MalformedError(f"a splice plan has {len(found)} layers of type {media_type} instead of one")
    return source.read(found[0], limit=MAX_LAYER)


def _map(path: Path) -> Bytes:
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _steps(advance: Callable[[int], None], size: int) -> Callable[[int, int], None]:
    """Turn the encoder's (done, of) into amounts of ``size`` bytes done since the last call."""
    seen = 0

    def report(done: int, total: int) -> None:
        nonlocal seen
        now = size * done // max(total, 1)
        advance(max(now - seen, 0))
        seen = max(now, seen)

    return report
