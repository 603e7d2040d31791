"""Copying blobs into a store: only what is missing, nothing visible before it is whole and hashed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from wszoo.store.files import check_room
from wszoo.store.partials import Partials
from wszoo.store.presence import present
from wszoo.store.substitutes import hold_substitute
from wszoo.transfer import tuning as tunings
from wszoo.transfer.engine import Engine
from wszoo.transfer.items import Item, Range
from wszoo.transfer.sources import Sources, flattened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from wszoo.progress import Progress
    from wszoo.remotes.protocol import Remote
    from wszoo.schema.oci import Descriptor
    from wszoo.store.store import Store
    from wszoo.transfer.following import Follower
    from wszoo.transfer.items import Finished
    from wszoo.transfer.tuning import Tuning


def missing(store: Store, descriptors: Iterable[Descriptor]) -> list[Descriptor]:
    """Those of the blobs that are not in the store, each once; those that are get their age renewed.

    A blob of another size than its descriptor says counts as missing, so that pulling again repairs a truncated one.
    """
    unique = {descriptor.digest: descriptor for descriptor in descriptors}
    return [descriptor for descriptor in unique.values() if not _here(store, descriptor)]


def fetch(
    remote: Remote,
    store: Store,
    descriptors: Sequence[Descriptor],
    progress: Progress,
    label: str,
    *,
    mirrors: Sequence[Remote] = (),
    tuning: Tuning | None = None,
    whole: bool = False,
    follower: Follower | None = None,
) -> None:
    """Copy blobs into the store.

    What was fetched before a failure or a kill is kept for the next call. Several processes that fetch the same blobs
    share the work.

    Args:
        remote: where from.
        store: where to.
        descriptors: what, with sizes that bound what is read.
        progress: gets every byte once, however often it had to be fetched.
        label: of the stage.
        mirrors: where else the blobs may be had, in order.
        tuning: how hard to try; None for the default.
        whole: packs that a table stands in for are wanted as well.
        follower: is told of each blob.

    Raises:
        GivenUp: the follower wants no more.
        StorageError: the disk has not enough room (checked first), or refuses.
        IntegrityError: a blob is not what its descriptor says; nothing of it is kept.
        NotFoundError: a blob is at no source.
        RemoteError: the sources failed again and again.
    """
    unique = {each.digest: each for each in descriptors}
    items = [blob_item(store, descriptor, whole=whole, follower=follower) for descriptor in unique.values()]
    transfer((remote, *mirrors), store, items, progress, label, tuning=tuning or tunings.DEFAULT, follower=follower)


def transfer(
    remotes: Sequence[Remote],
    store: Store,
    items: Sequence[Item],
    progress: Progress,
    label: str,
    *,
    tuning: Tuning,
    follower: Follower | None = None,
) -> None:
    """Make items; see :func:`fetch`. The follower is asked whether it gives up; items tell it what arrives, or not."""
    total = sum(item.size for item in items)
    with _partials(store) as partials:
        kept = sum(partials.kept(item.key, item.size, tuning.segment) for item in items)
        check_room(store.layout.root, total - kept, "fetch the model")
        with progress.stage(label, total) as advance:
            sources, settle = Sources(flattened(remotes), tuning), store.blobs.settle
            engine = Engine(sources, partials, items, advance=advance, settle=settle, tuning=tuning)
            engine.run(follower.given_up if follower is not None else lambda: False)


def blob_item(store: Store, descriptor: Descriptor, *, whole: bool = False, follower: Follower | None = None) -> Item:
    """A blob, to be placed under its digest; with ``whole``, a table that stands in for it does not count."""

    def check(finished: Finished) -> None:
        descriptor.digest.check(finished.digest, f"blob {descriptor.digest}")

    def place(finished: Finished) -> None:
        store.blobs.adopt(finished.path, descriptor.digest)

    def arrived(path: Path | None) -> None:
        if follower is not None:
            follower.arrived(descriptor.digest, path)

    return Item(
        key=descriptor.digest,
        ranges=(Range(descriptor, 0, descriptor.size),) if descriptor.size else (),
        present=lambda: store.holds([descriptor]) if whole else _here(store, descriptor),
        place=place,
        check=check,
        arrived=arrived,
    )


@contextmanager
def _partials(store: Store) -> Iterator[Partials]:
    with present(store.layout) as owner:
        yield Partials(store.layout, owner)


def _here(store: Store, descriptor: Descriptor) -> bool:
    if store.blobs.hold(descriptor.digest):
        return store.blobs.size(descriptor.digest) == descriptor.size
    return hold_substitute(store.layout, store.blobs, descriptor.digest)
