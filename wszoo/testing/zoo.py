"""A small zoo with blobs of telling sizes, for tests of what moves bytes. Nothing in it can be run."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.names import Ref
from wszoo.publish import publish, write_model, write_plan
from wszoo.schema.model import ModelConfig
from wszoo.schema.plan import SPLICE, Kind, PlanConfig, Target
from wszoo.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from wszoo.schema.oci import Descriptor
    from wszoo.store.documents import PlanDocument

FIRST, SECOND = Ref.parse("net:1"), Ref.parse("acme/other:2.0")
PACK_BYTES = (5 << 20) + 3  # more than one piece of 4 MiB, and no round number


def sample_zoo(root: Path) -> Store:
    """A store with ``net:1`` (a model, a pack, two plans) and ``acme/other:2.0``, the same bytes each time."""
    store = Store(root)
    publish_sample(store, FIRST, seed=1, targets=("rtx-sm86", "rtx-sm89"))
    publish_sample(store, SECOND, seed=2, targets=("rtx-sm120",), pack=70_000)
    return store


def publish_sample(store: Store, ref: Ref, *, seed: int, targets: Iterable[str], pack: int = PACK_BYTES) -> Descriptor:
    """Publish a model that carries ``pack`` bytes of noise and a plan for each target; its index's descriptor.

    Args:
        store: where to.
        ref: under which name; plans that it has for the same model stay.
        seed: of the noise.
        targets: names of the plans.
        pack: bytes.
    """
    noise = random.Random(seed)  # noqa: S311 - noise, not secrets
    digest = store.blobs.put(noise.randbytes(pack))
    assets = {"empty.txt": store.blobs.put(b""), "labels.txt": store.blobs.put(b"cat\ndog\n")}
    model = write_model(store, ModelConfig(family="sample", components={}, packs=(digest,), frames={}, assets=assets))
    return publish(store, ref, model, [_plan(store, target, seed) for target in targets])


def _plan(store: Store, target: str, seed: int) -> PlanDocument:
    data = f"plan {seed} for {target}".encode()
    config = PlanConfig(
        component="net",
        target=Target(name=target, backend="tensorrt_rtx", version="1.0"),
        kind=Kind.SPLICE,
        engine_digest=Digest.of(data),
        engine_bytes=len(data),
        graph=Digest.of(b"graph"),
        weights=Digest.of(b"weights"),
    )
    return write_plan(store, config, [(SPLICE, store.blobs.put(data))])
