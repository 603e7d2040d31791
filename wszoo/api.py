"""The Python interface: a zoo, and what can be done with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wszoo.assemble import Keep, parse_keep
from wszoo.distribution.pull import PullReport, pull, select_local
from wszoo.errors import NotFoundError, RemoteError, UsageError
from wszoo.model import Model
from wszoo.names import Ref, TargetSpec
from wszoo.places import open_for_push, open_remote
from wszoo.plugins import registry
from wszoo.settings import remotes
from wszoo.store.documents import read_index
from wszoo.store.engine_only import keep_engines_only
from wszoo.store.shipped_caches import cache_descriptors
from wszoo.surroundings import surroundings
from wszoo.transfer import RemoteDocuments
from wszoo.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from wszoo import export as exports
    from wszoo.building.build import BuildReport
    from wszoo.distribution.pull import PullFollower
    from wszoo.distribution.push import PushReport
    from wszoo.refit import RefitReport
    from wszoo.remotes.protocol import Remote
    from wszoo.schema.oci import Descriptor
    from wszoo.schema.trust import Release
    from wszoo.stream import TensorStream
    from wszoo.trust.keys import PublicKey
    from wszoo.trust.signatures import StoredSignature


class Zoo(Upkeep):
    """A local store and everything that can be done with it.

    Args:
        store: its folder; the one that ``WSZOO_STORE`` names, or the user's data folder, when None.
        progress: gets told about work that takes long; nobody when None.
    """

    # What a pull does not need is imported where it is used: building, exporting and pushing are half of all modules.

    def pull(
        self,
        ref: str,
        *,
        gpu: str = "auto",
        source: str | None = None,
        components: Sequence[str] | None = None,
        offline: bool = False,
        mirrors: Sequence[str] = (),
        allow_unsigned: bool = False,
        avoid: Sequence[str] = (),
        keep: str = Keep.BOTH.value,
        follower: PullFollower | None = None,
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
            allow_unsigned: take it also if nothing vouches for it; see docs/trust.md. ``model.trust`` tells.
            avoid: digests or target names of plans not to take.
            keep: ``both`` keeps assembled plans beside the weights, ``weights`` reads them out of the store each time,
                ``engine`` lets :meth:`gc` delete the weights of plans that are kept; where a plan is lost, a pull
                fetches them again.
            follower: is told what is chosen, and of each blob that arrives; :meth:`stream` is made of one.

        Raises:
            UsageError: ``gpu``, ``keep`` or ``avoid`` names nothing that there is; or ``engine`` alone is to be kept of
                a model that was built here.
            NotFoundError: no such ref.
            IncompatibleError: a component has no plan that fits; lists every plan with the reason.
            IntegrityError: bytes are not what their digest says.
            TrustError: nothing vouches for the source.
            StorageError: the disk is full or refuses.
        """
        parsed, around = Ref.parse(ref), surroundings(gpu, components, avoid)
        kept = parse_keep(keep)
        remote = open_remote(source, mirrors) if source else None if offline else self._configured(parsed)
        if remote is None:
            selection = select_local(self.store, parsed, around)
            if kept is Keep.ENGINE:
                keep_engines_only(self.store, self.store.refs.get(parsed))
            if follower is not None:
                follower.chosen(selection, ())
            return Model(self.store, selection, self.progress, keep=kept)
        report = pull(
            self.store,
            remote,
            parsed,
            around,
            progress=self.progress,
            allow_unsigned=allow_unsigned,
            engines_only=kept is Keep.ENGINE,
            follower=follower,
        )
        if cache_descriptors(read_index(self.store, report.selection.index)):  # most models have none
            from wszoo.distribution.runtime_caches import take_fitting

            take_fitting(self.store, RemoteDocuments(remote), report.selection, around.machine)
        return Model(self.store, report.selection, self.progress, keep=kept)

    def stream(
        self,
        ref: str,
        *,
        gpu: str = "auto",
        source: str | None = None,
        components: Sequence[str] | None = None,
        offline: bool = False,
        mirrors: Sequence[str] = (),
        allow_unsigned: bool = False,
        avoid: Sequence[str] = (),
    ) -> TensorStream:
        """Pull a model, and get its tensors as they arrive, verified and decoded, while others are on their way.

        Arguments as for :meth:`pull`, whose errors are raised by the iteration.

        Returns:
            An iterator over :class:`wszoo.stream.StreamedTensor`, and a context manager that ends the pull with its
            block; its ``model`` is what :meth:`pull` would have returned.
        """
        from wszoo.stream import TensorStream

        def pulling(follower: PullFollower) -> Model:
            return self.pull(
                ref,
                gpu=gpu,
                source=source,
                components=components,
                offline=offline,
                mirrors=mirrors,
                allow_unsigned=allow_unsigned,
                avoid=avoid,
                follower=follower,
            )

        return TensorStream(self.store, pulling)

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
        allow_unsigned: bool = False,
        avoid: Sequence[str] = (),
        keep: str = Keep.BOTH.value,
    ) -> PullReport:
        """What :meth:`pull` would fetch; changes nothing. Arguments and errors as there."""
        around, remote = surroundings(gpu, components, avoid), open_remote(source, mirrors)
        return pull(
            self.store,
            remote,
            Ref.parse(ref),
            around,
            dry_run=True,
            allow_unsigned=allow_unsigned,
            engines_only=parse_keep(keep) is Keep.ENGINE,
        )

    def complete(self, ref: str, *, source: str | None = None, mirrors: Sequence[str] = ()) -> tuple[Descriptor, ...]:
        """Fetch what this store lacks of a model that it has: plans for other GPUs, packs that are here only in part.

        After that it can be pushed and served. See :func:`wszoo.distribution.complete.complete`.

        Args:
            ref: what is in this store.
            source: a folder, URL or configured name; None for where it was pulled from.
            mirrors: more places with the same blobs.

        Returns:
            The blobs that were fetched.

        Raises:
            NotFoundError: no such ref, or the remote does not have all of the model.
            UsageError: it is not known where the model came from, and no source was named.
            RemoteError: the remote failed.
            StorageError: the disk is full or refuses.
        """
        from wszoo.distribution.complete import complete

        entry = self.store.refs.get(Ref.parse(ref))
        if not (source or entry.source):
            raise UsageError(f"{entry.ref.tagged} was not pulled from anywhere", hint="name a source with --from")
        documents = RemoteDocuments(open_remote(source or entry.source, mirrors))
        return complete(self.store, documents, entry.ref, progress=self.progress)

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
        weights_of: str | None = None,
    ) -> BuildReport:
        """Export a model, build its plans and publish them in this store.

        Args:
            family: ``onnx``, or one that a plugin provides.
            source: a file or folder, or ``hf:ORG/REPO``.
            tag: ``name:tag`` to publish under.
            targets: such as ``portable`` and ``rtx-sm89``; may be empty with ``weights_of``.
            profiles: presets or ``input=min:opt:max`` specs, one for each optimization profile.
            precision: ``fp32``, ``fp16``, ...; empty for the source's own.
            options: the family's own.
            weights_of: a version in the store of which only weights changed: its targets and profiles are followed, and
                :attr:`BuildReport.changes` says what became of each plan.

        Raises:
            UsageError: an unknown family, target, option or profile.
            MissingExtraError: a builder or exporter is not installed.
            BuildError: the export, the parser or the builder refused.
            StorageError: the disk is full or refuses.
        """
        from wszoo.building.build import BuildRequest, build
        from wszoo.building.sources import chooser, fetch_source
        from wszoo.families.protocol import SourceRequest

        specs, given = tuple(TargetSpec.parse(target) for target in targets), dict(options or {})
        wanted = SourceRequest(precision=precision, targets=specs, options=given)
        request = BuildRequest(
            family=family,
            source=fetch_source(str(source), self.progress, chooser(registry().family(family), wanted)),
            ref=Ref.parse(tag),
            targets=specs,
            profiles=tuple(profiles),
            precision=precision,
            options=given,
            weights_of=Ref.parse(weights_of) if weights_of else None,
        )
        return build(self.store, registry(), request, self.progress)

    def refit(self, ref: str, *, weights: str) -> RefitReport:
        """Give a model's stripped plans the weights of another version, without building; see :mod:`wszoo.refit`.

        Args:
            ref: has plans built to be refitted (``trt-sm89.refit``).
            weights: ``name:tag`` of the version whose index gets them.

        Raises:
            NotFoundError: no such ref.
            IncompatibleError: no plan takes other weights, or the networks differ in more than those.
        """
        from wszoo.refit import refit

        return refit(self.store, Ref.parse(ref), Ref.parse(weights))

    def asset(self, ref: str, name: str) -> bytes:
        """A file that travels with a model.

        Raises:
            NotFoundError: no such ref, or no such file.
        """
        from wszoo.store.documents import read_asset, read_indexed_model

        entry = self.store.refs.get(Ref.parse(ref))
        return read_asset(self.store, read_indexed_model(self.store, entry.descriptor), name)

    def push(
        self, ref: str, remote: str, *, name: str | None = None, replace: bool = False, dry_run: bool = False
    ) -> PushReport:
        """Copy a model with all of its plans to a remote; see :func:`wszoo.distribution.push.push`.

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
        from wszoo.distribution.push import push

        return push(
            self.store,
            open_for_push(remote),
            Ref.parse(ref),
            target=Ref.parse(name) if name else None,
            replace=replace,
            dry_run=dry_run,
            progress=self.progress,
        )

    def sign(
        self, ref: str, key: Ed25519PrivateKey, *, expires: datetime, release: int | None = None
    ) -> tuple[StoredSignature, Release, PublicKey]:
        """Sign what a ref of this store points to; see :func:`wszoo.trust.vouching.sign`."""
        from wszoo.trust.vouching import sign

        return sign(self.store, Ref.parse(ref), key, expires=expires, release=release)

    def export(
        self,
        ref: str,
        out: str | Path,
        *,
        to: str,
        gpu: str | None = None,
        targets: Sequence[str] = (),
        components: Sequence[str] | None = None,
        options: exports.Options | None = None,
        force: bool = False,
    ) -> exports.Exported:
        """Write a model that is in this store as files for another runtime; see ``docs/export.md``.

        Args:
            ref: what is in this store.
            out: the folder to write: new, empty, or with ``force`` a former export.
            to: ``onnx``, ``engine``, ``ort-epcontext``, ``ortpackage`` or ``triton``.
            gpu: take the plans that fit it, as for :meth:`pull`.
            targets: take the plans for these instead. With neither, the format decides.
            components: those wanted; None for all.
            options: for the format.
            force: replace a former export.

        Raises:
            UsageError: the folder holds something else, or the format cannot do what was asked.
            NotFoundError: no such ref, component or target, or the plan was not pulled.
            IncompatibleError: no plan fits, or the format cannot express the model.
            IntegrityError: bytes are not what their digest says.
            StorageError: too little space, or the file system refuses.
        """
        from wszoo import export as exports

        parsed, options = Ref.parse(ref), options or exports.Options()
        wanted = exports.Wanted(to=to, gpu=gpu, targets=tuple(targets), components=components)
        chosen = exports.choose(
            self.store, parsed, wanted, lambda gpu: select_local(self.store, parsed, surroundings(gpu, components))
        )
        return exports.export(
            self.store, chosen, Path(out), to=to, options=options, force=force, progress=self.progress
        )
