"""The Python interface: a zoo, the models in it, and their components as callables."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wszoo.assemble import assemble
from wszoo.build import BuildReport, BuildRequest, build
from wszoo.errors import NotFoundError, RemoteError, UsageError
from wszoo.gpu.nvml import detect
from wszoo.gpu.request import parse_gpu
from wszoo.names import Ref, TargetSpec
from wszoo.plugins import registry
from wszoo.progress import Progress, Silent
from wszoo.pull import PullReport, Selection, Surroundings, pull, select_local
from wszoo.push import PushReport, push
from wszoo.remotes.mirrors import MirroredRemote
from wszoo.remotes.protocol import writable
from wszoo.settings import remotes
from wszoo.sources import fetch_source
from wszoo.store.documents import model_descriptor, read_asset, read_index, read_model
from wszoo.store.gc import GRACE, GcReport, collect
from wszoo.store.store import Store, default_root
from wszoo.store.verify import VerifyReport, verify

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wszoo.backends.protocol import Assembled, Engine
    from wszoo.families.protocol import DemoResult
    from wszoo.gpu.machine import Machine, Runtime
    from wszoo.remotes.protocol import Remote, WritableRemote
    from wszoo.resolver import Resolution
    from wszoo.schema.facts import PlanFacts
    from wszoo.store.documents import PlanDocument


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
            return Model(self, select_local(self.store, parsed, around))
        report = pull(self.store, remote, parsed, around, progress=self.progress)
        return Model(self, report.selection)

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
        return read_asset(
            self.store, read_model(self.store, model_descriptor(read_index(self.store, entry.descriptor))), name
        )

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


class Model:
    """A pulled model: ``model["unet"].load()``.

    Args:
        zoo: whose store holds it.
        selection: the plans that were chosen.
    """

    def __init__(self, zoo: Zoo, selection: Selection) -> None:
        self._zoo = zoo
        self.selection = selection
        self._components = {name: PulledComponent(zoo, selection, name) for name in selection.plans}

    @property
    def ref(self) -> Ref:
        """Its name, pinned to the index's digest."""
        return self.selection.ref

    @property
    def family(self) -> str:
        """The family that made it."""
        return self.selection.model.config.family

    @property
    def resolution(self) -> Resolution:
        """Why each plan was chosen."""
        return self.selection.resolution

    @property
    def components(self) -> Sequence[str]:
        """Names of the components that were pulled."""
        return tuple(self.selection.plans)

    @property
    def assets(self) -> Sequence[str]:
        """Names of the files that travel with the model."""
        return tuple(self.selection.model.config.assets)

    def asset(self, name: str) -> bytes:
        """A file that travels with the model.

        Raises:
            NotFoundError: there is none of that name.
        """
        return read_asset(self._zoo.store, self.selection.model, name)

    def __getitem__(self, component: str) -> PulledComponent:
        """One component.

        Raises:
            NotFoundError: it was not pulled, or does not exist.
        """
        if component not in self._components:
            raise NotFoundError(
                f"{self.ref.tagged} has no component {component!r} here", hint=f"there is: {', '.join(self.components)}"
            )
        return self._components[component]

    def demo(self, arguments: Sequence[str] = ()) -> DemoResult:
        """Run the family's own demo.

        Raises:
            UsageError: the family is not installed, or the arguments make no sense.
        """
        return registry().family(self.family).demo(self, arguments, self._zoo.progress)


class PulledComponent:
    """One network with the plan that was chosen for it.

    Args:
        zoo: whose store holds it.
        selection: the model's plans.
        name: of the component.
    """

    def __init__(self, zoo: Zoo, selection: Selection, name: str) -> None:
        self._zoo = zoo
        self._selection = selection
        self.name = name

    @property
    def plan(self) -> PlanDocument:
        """The chosen plan's manifest and config."""
        return self._selection.plans[self.name]

    @property
    def facts(self) -> PlanFacts:
        """The chosen plan in short."""
        return self._selection.resolution.choices[self.name].candidate.facts

    @cached_property
    def _assembled(self) -> Assembled:
        device = self._selection.resolution.choices[self.name].device
        return assemble(self._zoo.store, self._selection.model, self.plan, device, self._zoo.progress)

    def assemble(self) -> Path | None:
        """The full plan's file, verified; None for a portable plan, which has none.

        Raises:
            IntegrityError: bytes are not what their digest says.
            StorageError: the disk is full or refuses.
        """
        return self._assembled.engine

    def load(self) -> Engine:
        """Assemble and load it: a callable that takes and gives arrays by name.

        Raises:
            MissingExtraError: the runtime is not installed.
            IncompatibleError: the runtime or the GPU refuses the plan.
            IntegrityError: bytes are not what their digest says.
        """
        return registry().backend(self.plan.config.target.backend).load(self._assembled)


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


def open_remote(location: str, mirrors: Sequence[str] = ()) -> Remote:
    """Open what the user named with ``--from``.

    Args:
        location: a name from the settings, a folder, or a URL. A folder with the name of a remote is ``./NAME``.
        mirrors: more places with the same blobs, asked in order when it fails.

    Raises:
        UsageError: no plugin knows the scheme.
        NotFoundError: there is nothing of that kind there.
        RemoteError: it cannot be reached.
    """
    named = remotes().get(location)
    places = [named.url, *named.mirrors] if named else [location]
    opened = [_open_place(place) for place in (*places, *mirrors)]
    return opened[0] if len(opened) == 1 and not named else MirroredRemote(opened)


def open_for_push(location: str) -> WritableRemote:
    """Open what the user named as the place to push to: a name from the settings, a URL, or a folder, which may be new.

    Raises:
        UsageError: no plugin knows the scheme, or the remote can only be read.
        RemoteError: it cannot be reached.
    """
    named = remotes().get(location)
    place = (named.url if named else location).removeprefix("file://")
    if "://" not in place and not Path(place).exists():
        Store(Path(place)).layout.create()
    return writable(_open_place(place))


def _open_place(location: str) -> Remote:
    scheme, separator, _ = location.partition("://")
    wanted = scheme if separator else ""
    known: dict[str, Any] = {each: kind for kind in registry().remotes.values() for each in kind.schemes}
    if wanted not in known:
        raise UsageError(
            f"no remote type knows {wanted}:// in {location!r}",
            hint=f"known: a folder's path, {', '.join(f'{each}://' for each in sorted(known) if each)}",
        )
    remote: Remote = known[wanted].open(location)
    return remote
