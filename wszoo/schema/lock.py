"""The lock file: which bytes of which models an app wants, for which GPUs. Its page is docs/lock.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec

from wszoo.digest import Digest
from wszoo.errors import IncompatibleError, MalformedError, UsageError
from wszoo.names import Ref
from wszoo.schema.decode import decode_toml
from wszoo.schema.oci import Size

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION: Final = 1
MAX_LOCK = 4 << 20  # bytes; a model with 255 packs and ten plans takes 35 kB
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class LockedBlob(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A blob.

    Attributes:
        digest: of its bytes.
        size: how many they are.
    """

    digest: Digest
    size: Size


class LockedPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that some of the GPUs take.

    Attributes:
        component: the network it runs.
        target: what it was built for.
        gpus: those of the lock's that take it.
        manifest: of the plan.
        config: of the plan.
        layers: what is fetched for it.
        engine: ``engine_digest`` and ``engine_bytes`` of the config, for people: what ``sha256sum`` prints for the
            full plan, as its publisher says. Assembling checks what the config pins besides.
    """

    component: _Text
    target: _Text
    gpus: tuple[_Text, ...]
    manifest: LockedBlob
    config: LockedBlob
    layers: tuple[LockedBlob, ...]
    engine: LockedBlob

    def blobs(self) -> Iterator[LockedBlob]:
        """What is fetched for it."""
        yield from (self.manifest, self.config, *self.layers)


class LockedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model.

    Attributes:
        name: of the model.
        tag: that pointed to the index when it was locked.
        remotes: where to look for it; hints, since the digests decide.
        index: its index.
        manifest: of the model.
        config: of the model.
        graphs: its other layers: graphs, and files that travel with it.
        packs: its weights.
        plans: those that the GPUs take.
    """

    name: _Text
    tag: _Text
    remotes: tuple[_Text, ...] = ()
    index: LockedBlob
    manifest: LockedBlob
    config: LockedBlob
    graphs: tuple[LockedBlob, ...]
    packs: tuple[LockedBlob, ...]
    plans: tuple[LockedPlan, ...]

    @property
    def ref(self) -> Ref:
        """Its name, pinned."""
        return Ref(self.name, self.tag, self.index.digest)

    def blobs(self, *, weights: bool = True) -> dict[Digest, int]:
        """Everything that it needs, with sizes; without its packs on request."""
        found = [self.index, self.manifest, self.config, *self.graphs, *(self.packs if weights else ())]
        return {blob.digest: blob.size for blob in (*found, *(each for plan in self.plans for each in plan.blobs()))}


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """A lock file.

    Attributes:
        version: of the format.
        gpus: what it is for, as ``--gpu`` takes it.
        models: sorted by name and tag.
    """

    version: Literal[1] = VERSION
    gpus: Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1)]
    models: Annotated[tuple[LockedModel, ...], msgspec.Meta(min_length=1)]


class _Version(msgspec.Struct, frozen=True, kw_only=True):
    version: int


def decode_lock(data: bytes, what: str) -> Lock:
    """Decode a lock file.

    Raises:
        LimitError: too large, or nested too deep.
        MalformedError: not TOML, or not a lock file.
        IncompatibleError: of a version that this one does not know.
    """
    hint = "take it from version control again, or make it anew with 'wszoo lock'"
    version = decode_toml(data, _Version, what=what, limit=MAX_LOCK, hint=hint).version
    if version != VERSION:
        raise IncompatibleError(
            f"{what} is a lock file of version {version}; this wszoo knows version {VERSION}",
            hint="upgrade with 'pip install --upgrade wszoo'",
        )
    lock = decode_toml(data, Lock, what=what, limit=MAX_LOCK, hint=hint)
    for model in lock.models:
        try:
            same = Ref.parse(f"{model.name}:{model.tag}").unpinned == model.ref.unpinned
        except (MalformedError, UsageError) as error:
            raise MalformedError(f"{what}: {error.message}", hint=hint) from error
        if not same:
            raise MalformedError(f"{what}: not a model's name and tag: {model.name!r}, {model.tag!r}", hint=hint)
    if len({model.ref.tagged for model in lock.models}) != len(lock.models):
        raise MalformedError(f"{what} names a model twice", hint=hint)
    return lock
