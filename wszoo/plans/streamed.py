"""A splice plan that is fed to the deserializer from the store's weights, with no file of it on the disk.

Nothing unverified may reach a deserializer, and a stream cannot be hashed as a whole before its first byte is used. So
the whole is computed and hashed once, and a stamp notes what it was computed from: the plan's layers by digest (they
are hashed whenever they are read) and every pack by size and modification time. As long as those are the same, the
bytes are; when one differs, the whole is hashed again. That is what a kept plan's stamp is worth, too (see
:mod:`wszoo.store.engines`). ADR 16 has the reasons.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from wszoo.plans.source import SplicedSource
from wszoo.plans.splice import Program, apply
from wszoo.plans.splice.window import Windows
from wszoo.plans.spliced import read_body
from wszoo.store.files import storage_errors, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.progress import Progress
    from wszoo.store.documents import PlanDocument
    from wszoo.store.store import Store
    from wszoo.weights.packs import PackReader

_STAMP = "streamed.stamp"
_MOST = 1 << 20  # bytes of a stamp: 200 packs take 20 KB


def open_streamed(
    store: Store, plan: PlanDocument, packs: PackReader, folder: Path, progress: Progress
) -> SplicedSource:
    """Open a splice plan for reading in any order; its whole is known to be what the builder wrote.

    Args:
        store: holds the plan's layers.
        plan: a splice plan.
        packs: reads the model's packs.
        folder: where the stamp is kept.
        progress: gets told about hashing.

    Raises:
        IntegrityError: the whole has another digest, or a part of it is damaged.
        StorageError: a pack cannot be read.
    """
    config = plan.config
    tensors = packs.component(config.component)
    program = Program.from_bytes(read_body(store, plan.manifest, config), tensors, plan_size=config.engine_bytes)
    name = f"the plan of {config.component} for {config.target.name}"
    state = _state(store, plan, packs)
    if _read(folder) != state:
        with progress.stage(f"verify {config.component}", config.engine_bytes) as advance:
            config.kept_as.check(apply(program, tensors, lambda window: advance(len(window))), name)
        with suppress(OSError):  # without the stamp, as in a store that cannot be written, the next load hashes again
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(folder / _STAMP, state, folder)
    return SplicedSource(Windows(program, tensors), name)


def _state(store: Store, plan: PlanDocument, packs: PackReader) -> bytes:
    layers = [f"layer {layer.digest}\n" for layer in plan.manifest.layers]
    files = []
    with storage_errors("look at a pack in"):
        for digest in sorted(packs.packs(plan.config.component)):
            status = store.blobs.path(digest).stat()
            files.append(f"pack {digest} {status.st_size} {status.st_mtime_ns}\n")
    return "".join([f"engine {plan.config.kept_as}\n", *layers, *files]).encode()


def _read(folder: Path) -> bytes:
    path = folder / _STAMP
    try:
        return path.read_bytes() if path.stat().st_size <= _MOST else b""
    except OSError:
        return b""
