"""Where signatures are kept: listed by an index of their own under OCI's tag for what refers to a manifest.

The signatures of the index ``sha256:<hex>`` of ``net`` are listed by the index that ``net:sha256-<hex>`` points to. So
every remote that has refs has signatures, and they are copied, served and collected like everything else. Registries
with the referrers API are asked by it first.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.errors import (
    IntegrityError,
    LimitError,
    MalformedError,
    NotFoundError,
    RemoteError,
    StorageError,
    TrustError,
)
from wszoo.remotes.protocol import ReferringRemote
from wszoo.schema.decode import MAX_MANIFEST, decode, encode
from wszoo.schema.oci import INDEX, MANIFEST, Descriptor, Index
from wszoo.schema.trust import (
    ARTIFACT,
    EMPTY,
    ENVELOPE,
    MAX_ENVELOPE,
    MAX_REFERRERS,
    SignatureManifest,
    decode_signature_manifest,
    decode_statement,
)
from wszoo.trust.envelope import verified_payload

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wszoo.errors import WszooError
    from wszoo.names import Ref
    from wszoo.remotes.protocol import Remote, WritableRemote
    from wszoo.store.documents import DocumentSource
    from wszoo.store.store import Store
    from wszoo.trust.keys import PublicKey

_RACES = 50  # writers of one list that may win in a row before we give up


@dataclass(frozen=True, slots=True)
class StoredSignature:
    """A signature as it is kept.

    Attributes:
        manifest: descriptor of its manifest.
        envelope: descriptor of the one layer.
    """

    manifest: Descriptor
    envelope: Descriptor


@dataclass(frozen=True, slots=True)
class FoundSignatures:
    """The signatures of an index that a remote lists.

    Attributes:
        whole: those whose manifests are as they should be.
        defects: what is wrong with the others. They mask no good one: who may only add to the list must not be able
            to keep a model from its users.
    """

    whole: tuple[StoredSignature, ...] = ()
    defects: tuple[WszooError, ...] = ()


def write_signature(store: Store, ref: Ref, index: Descriptor, envelope: bytes) -> StoredSignature:
    """Keep an envelope in a store, and list it with the signatures of its index.

    Args:
        store: which.
        ref: the signed model's.
        index: what was signed.
        envelope: the signature.

    Raises:
        StorageError: the file system refuses.
    """
    with store.lease():
        store.blobs.put(b"{}")
        layer = Descriptor(media_type=ENVELOPE, digest=store.blobs.put(envelope), size=len(envelope))
        subject = Descriptor(media_type=INDEX, digest=index.digest, size=index.size)
        data = encode(SignatureManifest(artifact_type=ARTIFACT, config=EMPTY, layers=(layer,), subject=subject))
        made = Descriptor(media_type=MANIFEST, digest=store.blobs.put(data), size=len(data), artifact_type=ARTIFACT)
        list_signatures(store, ref, index.digest, [made])
    return StoredSignature(made, layer)


def list_signatures(store: Store, ref: Ref, index: Digest, manifests: Iterable[Descriptor]) -> None:
    """Add manifests of signatures, which are in the store, to the list of an index.

    Raises:
        LimitError: there would be more than anyone looks at.
        StorageError: the file system refuses, or other processes keep changing the list.
    """
    added, place = list(manifests), ref.referrers(index)
    for _ in range(_RACES):
        entry = store.refs.find(place)
        before = _decoded(store, entry.descriptor, place) if entry else Index()
        merged = _merged(before, added)
        if merged == before:
            return
        _ours(merged, index)
        data = encode(merged)
        descriptor = Descriptor(media_type=INDEX, digest=store.blobs.put(data), size=len(data))
        if store.refs.swap(place, descriptor, held=None, expected=entry):
            return
    raise StorageError(f"other processes keep changing {place.tagged}", hint="try again when they are done")


def signatures_here(store: Store, ref: Ref, index: Digest) -> list[StoredSignature]:
    """The signatures of an index that are in a store.

    Raises:
        IntegrityError: one is damaged.
        NotFoundError: one is listed and not here.
    """
    entry = store.refs.find(ref.referrers(index))
    return _signatures(store, _decoded(store, entry.descriptor, ref.referrers(index)), index) if entry else []


def last_release(store: Store, ref: Ref, key: PublicKey) -> int:
    """The highest number under which a key has signed a ref, as far as the store still has the signatures; else 0."""
    numbers = [0]
    for entry in store.refs.survey()[0]:
        if entry.ref.name != ref.name or not entry.ref.is_referrers:
            continue
        with suppress(IntegrityError, NotFoundError):  # a damaged list is for verify to tell about
            listed = _ours(_decoded(store, entry.descriptor, entry.ref), entry.descriptor.digest)
            numbers += [_release(store, each, ref, key) for each in listed]
    return max(numbers)


def _release(store: Store, descriptor: Descriptor, ref: Ref, key: PublicKey) -> int:
    what = f"signature manifest {descriptor.digest}"
    with suppress(IntegrityError, NotFoundError, TrustError):  # others' are here too
        (layer,) = decode_signature_manifest(store.read(descriptor, limit=MAX_ENVELOPE), what).layers
        payload, _ = verified_payload(store.read(layer, limit=MAX_ENVELOPE), (key,), what)
        said = decode_statement(payload, what).predicate
        return said.release if (said.name, said.tag) == (ref.name, ref.tag) else 0
    return 0


def signatures_there(remote: Remote, documents: DocumentSource, ref: Ref, index: Digest) -> FoundSignatures:
    """The signatures of an index that a remote has.

    Args:
        remote: what is asked where they are.
        documents: reads from it.
        ref: of the model.
        index: its index.

    Raises:
        IntegrityError: the list is damaged, or too long.
        RemoteError: it cannot be reached.
    """
    listed = remote.referrers(ref, index) if isinstance(remote, ReferringRemote) else None
    if listed is not None:
        return _sorted_out(documents, Index(manifests=tuple(listed)), index)
    place = ref.referrers(index)
    try:
        found = remote.resolve(place)
    except NotFoundError:
        return FoundSignatures()
    return _sorted_out(documents, _decoded(documents, found, place), index)


def push_signatures(
    store: Store, remote: WritableRemote, ref: Ref, target: Ref, index: Digest, *, documents: DocumentSource
) -> int:
    """Send the signatures of an index that a remote lacks; others that it has stay. How many were sent.

    Args:
        store: where they are.
        remote: where to.
        ref: the model's name here.
        target: its name there.
        index: its index.
        documents: reads from the remote.

    Raises:
        RemoteError: it cannot be reached or refuses, or others keep changing the list.
    """
    ours, place = signatures_here(store, ref, index), target.referrers(index)
    for _ in range(_RACES if ours else 0):
        before = _resolved(remote, place)
        theirs = _decoded(documents, before, place) if before else Index()
        merged = _merged(theirs, [each.manifest for each in ours])
        if merged == theirs:
            return 0
        for wave in ([EMPTY, *(each.envelope for each in ours)], [each.manifest for each in ours]):
            for each in remote.missing(target, wave):
                remote.put(target, each, store.blobs.path(each.digest))
        data = encode(merged)
        descriptor = Descriptor(media_type=INDEX, digest=Digest.of(data), size=len(data))
        if remote.tag(place, descriptor, data, before.digest if before else None):
            return len(merged.manifests) - len(theirs.manifests)
    if ours:
        raise RemoteError(f"other writers keep changing {place.tagged} at {remote.url}", hint="push again later")
    return 0


def _resolved(remote: Remote, place: Ref) -> Descriptor | None:
    try:
        return remote.resolve(place)
    except NotFoundError:
        return None


def _decoded(source: DocumentSource, descriptor: Descriptor, place: Ref) -> Index:
    bare = Descriptor(media_type=INDEX, digest=descriptor.digest, size=descriptor.size)
    data = source.read(bare, limit=MAX_MANIFEST)
    return decode(data, Index, what=f"the list of signatures {place.tagged}", limit=MAX_MANIFEST)


def _merged(before: Index, added: Sequence[Descriptor]) -> Index:
    known = {each.digest for each in before.manifests}
    return Index(manifests=(*before.manifests, *(each for each in added if each.digest not in known)))


def _signatures(source: DocumentSource, listed: Index, index: Digest) -> list[StoredSignature]:
    return [_signature(source, each, index) for each in _ours(listed, index)]


def _sorted_out(source: DocumentSource, listed: Index, index: Digest) -> FoundSignatures:
    whole: list[StoredSignature] = []
    defects: list[WszooError] = []
    for each in _ours(listed, index):
        try:
            whole.append(_signature(source, each, index))
        except (IntegrityError, NotFoundError) as error:
            defects.append(error)
    return FoundSignatures(tuple(whole), tuple(defects))


def _ours(listed: Index, index: Digest) -> list[Descriptor]:
    """Those of our kind; other tools' referrers are passed over."""
    ours = [each for each in listed.manifests if each.artifact_type == ARTIFACT and each.media_type == MANIFEST]
    if len(ours) > MAX_REFERRERS:
        raise LimitError(
            f"{index} has {len(ours)} signatures, more than the {MAX_REFERRERS} that wszoo looks at",
            hint="pin the index by its digest, and tell who keeps it there",
        )
    return ours


def _signature(source: DocumentSource, descriptor: Descriptor, index: Digest) -> StoredSignature:
    what = f"signature manifest {descriptor.digest}"
    found = decode_signature_manifest(source.read(descriptor, limit=MAX_ENVELOPE), what)
    exact = found.media_type == MANIFEST and found.artifact_type == ARTIFACT and found.config == EMPTY
    if not exact or [layer.media_type for layer in found.layers] != [ENVELOPE]:
        raise MalformedError(f"{what} is not built like one", hint="distrust its source, or pull it again")
    if found.subject.digest != index:
        raise MalformedError(f"{what} refers to {found.subject.digest}, and is listed for {index}")
    return StoredSignature(descriptor, found.layers[0])
