"""Looking after a local store: what needs neither a GPU nor a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wszoo.names import Ref
from wszoo.progress import Progress, Silent
from wszoo.store.store import Store, default_root

if TYPE_CHECKING:
    from wszoo.distribution.repair import RepairReport
    from wszoo.schema.runtime_cache import RuntimeCacheFacts
    from wszoo.store.cache import CachedEngine, CacheReport
    from wszoo.store.gc import GcReport
    from wszoo.store.verify import VerifyReport


class Upkeep:
    """A local store, verified, mended and cleared of what nobody needs; :class:`wszoo.Zoo` is one.

    Args:
        store: its folder; the one that ``WSZOO_STORE`` names, or the user's data folder, when None.
        progress: gets told about work that takes long; nobody when None.
    """

    # What does the work is imported where it is used: a pull needs none of it, and pays for every module.

    def __init__(self, store: str | Path | None = None, *, progress: Progress | None = None) -> None:
        self.store = Store(Path(store) if store is not None else default_root())
        self.progress: Progress = progress or Silent()

    def verify(self, *, quarantine: bool = False, fresh: bool = False) -> VerifyReport:
        """Hash everything again; see :func:`wszoo.store.verify.verify`."""
        from wszoo.store.verify import verify

        self.store.require()
        return verify(self.store, self.progress, quarantine=quarantine, fresh=fresh)

    def repair(self, *, source: str | None = None, fresh: bool = False) -> RepairReport:
        """Hash everything again and fetch what is damaged or missing; see :func:`wszoo.distribution.repair.repair`.

        Args:
            source: a folder, URL or configured name to fetch from; None asks where each model came from, and then the
                configured remotes.
            fresh: hash also what an interrupted verify has hashed.

        Raises:
            NotFoundError: there is no store, or nothing at ``source``.
            StorageError: the disk is full or refuses.
        """
        from wszoo.distribution.repair import repair
        from wszoo.places import open_remote, origins

        self.store.require()
        named = [open_remote(source)] if source else None
        return repair(self.store, lambda entry: named or origins(entry.source), self.progress, fresh=fresh)

    def cached(self) -> list[CachedEngine]:
        """The assembled plans that are kept, the last used first."""
        from wszoo.store.cache import cached_engines

        return cached_engines(self.store)

    def shrink_cache(self, limit: int) -> CacheReport:
        """Let go of assembled plans; see :func:`wszoo.store.cache.shrink_cache`."""
        from wszoo.store.cache import shrink_cache

        self.store.require()
        return shrink_cache(self.store, limit)

    def ship_caches(self, ref: str) -> tuple[RuntimeCacheFacts, ...]:
        """Add the kernels that TensorRT-RTX compiled on this machine's GPUs to a model.

        See :func:`wszoo.distribution.runtime_caches.ship`.

        Raises:
            NotFoundError: no such ref, not all of it is here, or no plan of it has run here.
            UsageError: this machine has no GPU.
        """
        from wszoo.distribution.runtime_caches import ship
        from wszoo.surroundings import machine

        return ship(self.store, Ref.parse(ref), machine())

    def gc(self, *, dry_run: bool = False, grace: float | None = None) -> GcReport:
        """Delete what no ref reaches; see :func:`wszoo.store.gc.collect`.

        Args:
            dry_run: only report.
            grace: age in seconds below which nothing is deleted; None for an hour.
        """
        from wszoo.store.gc import GRACE, collect

        self.store.require()
        return collect(self.store, dry_run=dry_run, grace=GRACE if grace is None else grace)

    def tag(self, ref: str, new: str) -> Ref:
        """Give a model a second name; what ``new`` pointed to before is forgotten.

        Raises:
            NotFoundError: no such ref.
            UsageError: ``new`` is not a name.
        """
        target = Ref.parse(new)
        entry = self.store.refs.get(Ref.parse(ref))
        while not self.store.refs.swap(
            target,
            entry.descriptor,
            held=entry.held,
            expected=self.store.refs.find(target.unpinned),
            source=entry.source,
        ):
            pass
        return target.pinned(entry.descriptor.digest)

    def remove(self, ref: str) -> None:
        """Forget a ref; ``gc`` then deletes what only it needed.

        Raises:
            NotFoundError: no such ref.
        """
        parsed = Ref.parse(ref)
        while not self.store.refs.swap(parsed, None, held=None, expected=self.store.refs.get(parsed)):
            pass
