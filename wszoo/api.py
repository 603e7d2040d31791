"""The Python interface: a zoo, and what can be done with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wszoo.build import BuildReport, BuildRequest, build
from wszoo.errors import NotFoundError, RemoteError
from wszoo.gpu.nvml import detect
from wszoo.gpu.request import parse_gpu
from wszoo.model import Model
from wszoo.names import Ref, TargetSpec
from wszoo.places import open_for_push, open_remote
from wszoo.plugins import registry
from wszoo.progress import Progress, Silent
from wszoo.pull import PullReport, Surroundings, pull, select_local
from wszoo.push import PushReport, push
from wszoo.settings import remotes
from wszoo.sources import fetch_source
from wszoo.store.documents import read_asset, read_indexed_model
from wszoo.store.gc import GRACE, GcReport, collect
from wszoo.store.store import Store, default_root
from wszoo.store.verify import VerifyReport, verify

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wszoo.gpu.machine import Machine, Runtime
    from wszoo.remotes.protocol import Remote


class Zoo:
    """A local store and everything that can be done with it.

    Args:
        store: its folder; the one that ``WSZOO_STORE`` names, or the user's data folder, when None.
        progress: gets told about work that takes long; nobody when None.
    """

    def __init__(self, store: str | Path | None = None, *, progress: Progress | None = None) -> None:
        self.store = Store(Path(store) if store is not None else default_root())
        self.progress: Progress = progress or Silent()

    def pull(
        self,
        ref: str,
        *,
        gpu: str = "auto",
        source: str | None = None,
        components: Sequence[str] | None = None,
        offline: bool = False,
        mirrors: Sequence[str] = (),
    ) -> Model:
        """Fetch what is missing of a model, for one GPU.

        Args:
            ref: ``name[:tag][@digest]``.
            gpu: ``auto``, ``none``, ``sm89``, or a product as in ``RTX 4090``.
            source: a folder, URL or configured name to fetch from; None uses what is in the store, or else the
                configured remotes.
            components: those wanted; None for all.
            offline: use what is in the store, whatever is configured.
            mirrors: with ``source``: more places with the same blobs, asked in order when it fails. Who names some
                must pin ``ref``, since any of them may tell what the tag is.

        Raises:
            NotFoundError: no such ref.
            IncompatibleError: a component has no plan that fits; lists every plan with the reason.
            IntegrityError: bytes are not what their digest says.
            TrustError: nothing vouches for the source.
            StorageError: the disk is full or refuses.
        """
        parsed, around = Ref.parse(ref), surroundings(gpu, components)
        remote = open_remote(source, mirrors) if source else None if offline else self._configured(parsed)
        if remote is None:
            return Model(self.store, select_local(self.store, parsed, around), self.progress)
        report = pull(self.store, remote, parsed, around, progress=self.progress)
        return Model(self.store, report.selection, self.progress)

    def _configured(self, ref: Ref) -> Remote | None:
        """The first configured remote that has a ref which is not in the store; None when it is, or none has it."""
        if self.store.refs.find(ref) is not None:
            return None
        failure: RemoteError | None = None
        for name in remotes():
            try:
                remote = open_remote(name)
                remote.resolve(ref)
            except NotFoundError:
                continue
            except RemoteError as error:
                failure = failure or error
            else:
                return remote
        if failure is not None:
            raise failure
        return None

    def plan_pull(
        self,
        ref: str,
        *,
        gpu: str = "auto",
        source: str,
        components: Sequence[str] | None = None,
        mirrors: Sequence[str] = (),
    ) -> PullReport:
        """What :meth:`pull` would fetch; changes nothing. Arguments and errors as there."""
        around = surroundings(gpu, components)
        return pull(self.store, open_remote(source, mirrors), Ref.parse(ref), around, dry_run=True)

    def build(
        self,
        family: str,
        source: str | Path,
        *,
        tag: str,
        targets: Sequence[str],
        profiles: Sequence[str] = (),
        precision: str = "",
        options: Mapping[str, str] | None = None,
    ) -> BuildReport:
        """Export a model, build its plans and publish them in this store.

        Args:
            family: ``onnx``, or one that a plugin provides.
            source: a file or folder, or ``hf:ORG/REPO``.
            tag: ``name:tag`` to publish under.
            targets: such as ``portable`` and ``rtx-sm89``.
            profiles: presets or ``input=min:opt:max`` specs, one for each optimization profile.
            precision: ``fp32``, ``fp16``, ...; empty for the source's own.
            options: the family's own.

        Raises:
            UsageError: an unknown family, target, option or profile.
            MissingExtraError: a builder or exporter is not installed.
            BuildError: the export, the parser or the builder refused.
            StorageError: the disk is full or refuses.
        """
        request = BuildRequest(
            family=family,
            source=fetch_source(str(source), self.progress),
            ref=Ref.parse(tag),
            targets=tuple(TargetSpec.parse(target) for target in targets),
            profiles=tuple(profiles),
            precision=precision,
            options=dict(options or {}),
        )
        return build(self.store, registry(), request, self.progress)

    def asset(self, ref: str, name: str) -> bytes:
        """A file that travels with a model.

        Raises:
            NotFoundError: no such ref, or no such file.
        """
        entry = self.store.refs.get(Ref.parse(ref))
        return read_asset(self.store, read_indexed_model(self.store, entry.descriptor), name)

    def push(
        self, ref: str, remote: str, *, name: str | None = None, replace: bool = False, dry_run: bool = False
    ) -> PushReport:
        """Copy a model with all of its plans to a remote; see :func:`wszoo.push.push`.

        Args:
            ref: what is in this store.
            remote: a folder, URL or configured name.
            name: the ``name:tag`` to give it there; None for the same.
            replace: move a tag also if it loses plans by that.
            dry_run: only report.

        Raises:
            NotFoundError: no such ref, or not all of its plans are here.
            UsageError: the tag has something else there, or the remote can only be read.
            RemoteError: it cannot be reached or refuses.
        """
        return push(
            self.store,
            open_for_push(remote),
            Ref.parse(ref),
            target=Ref.parse(name) if name else None,
            replace=replace,
            dry_run=dry_run,
            progress=self.progress,
        )

    def verify(self, *, quarantine: bool = False) -> VerifyReport:
        """Hash everything again; see :func:`wszoo.store.verify.verify`."""
        self.store.require()
        return verify(self.store, self.progress, quarantine=quarantine)

    def gc(self, *, dry_run: bool = False, grace: float = GRACE) -> GcReport:
        """Delete what no ref reaches; see :func:`wszoo.store.gc.collect`."""
        self.store.require()
        return collect(self.store, dry_run=dry_run, grace=grace)

    def tag(self, ref: str, new: str) -> Ref:
        """Give a model a second name; what ``new`` pointed to before is forgotten.

        Raises:
            NotFoundError: no such ref.
            UsageError: ``new`` is not a name.
        """
        target = Ref.parse(new)
        entry = self.store.refs.get(Ref.parse(ref))
        while not self.store.refs.swap(
            target, entry.descriptor, held=entry.held, expected=self.store.refs.find(target.unpinned)
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


def surroundings(gpu: str, components: Sequence[str] | None = None) -> Surroundings:
    """This machine, what is installed on it, and the GPU that was asked for.

    Raises:
        UsageError: ``gpu`` is none of the forms it can have.
    """
    return Surroundings(machine=machine(), runtimes=runtimes(), request=parse_gpu(gpu), components=components)


def machine() -> Machine:
    """This machine's facts, from NVML."""
    return detect()


def runtimes() -> tuple[Runtime, ...]:
    """The installed runtimes, without importing them."""
    found = (backend.runtime() for backend in registry().backends.values())
    return tuple(runtime for runtime in found if runtime is not None)
