"""Asking a remote for what the decision needs, and no more; see :mod:`wszoo.trust.decision` for the decision itself."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from wszoo.errors import IntegrityError, LimitError, MalformedError, NotFoundError, RemoteError, UsageError, WszooError
from wszoo.schema.trust import MAX_ENVELOPE, MAX_RELEASE, Release
from wszoo.settings import settings_path, trust_of
from wszoo.text import printable
from wszoo.trust.decision import IndexCheck, Situation
from wszoo.trust.envelope import sign_statement
from wszoo.trust.keys import PublicKey, public_of, signer_of
from wszoo.trust.record import newest_seen, note_release, remember
from wszoo.trust.signatures import StoredSignature, last_release, list_signatures, signatures_there, write_signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from wszoo.digest import Digest
    from wszoo.names import Ref
    from wszoo.remotes.protocol import Remote
    from wszoo.schema.oci import Descriptor
    from wszoo.schema.trust import Decision
    from wszoo.store.documents import DocumentSource
    from wszoo.store.store import Store

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Vouched:
    """An index that may be read.

    Attributes:
        ref: what was asked for.
        decision: why.
        signatures: those that the remote has and that are whole, also where something else vouches.
    """

    ref: Ref
    decision: Decision
    signatures: tuple[StoredSignature, ...]

    def note(self, store: Store) -> None:
        """Note the decision; before a ref points to the index, so that no crash leaves one without its reason.

        Raises:
            StorageError: the file system refuses.
        """
        remember(store.layout, self.decision)

    def note_release(self, store: Store) -> None:
        """Note which release was seen, for who takes nothing into the store: older ones are refused from then on.

        Raises:
            StorageError: the file system refuses.
        """
        note_release(store.layout, self.decision)

    def keep_signatures(self, store: Store) -> None:
        """List the signatures, whose blobs are in the store, for who pulls from here; after a ref points to the index.

        Raises:
            StorageError: the file system refuses.
        """
        if self.signatures:
            store.blobs.put(b"{}")
            with suppress(LimitError):  # somebody stuffed the list; what vouches was found without it
                list_signatures(store, self.ref, self.decision.index, [each.manifest for each in self.signatures])


def vouch(
    store: Store,
    remote: Remote,
    documents: DocumentSource,
    ref: Ref,
    index: Descriptor,
    *,
    allow_unsigned: bool = False,
) -> Vouched:
    """Find out whether an index may be taken from a remote, before anything of it is read.

    Args:
        store: knows which releases were seen.
        remote: has the index.
        documents: reads from the remote.
        ref: what was asked for.
        index: what the remote says it is.
        allow_unsigned: take it also if nothing vouches for it.

    Raises:
        TrustError: nothing vouches for it.
        NotFoundError: it is pinned to another index, or its signatures are not there.
        IntegrityError: its signatures are damaged, all of them, or their list is.
        RemoteError: the remote cannot be reached.
    """
    situation = Situation(
        ref=ref,
        remote=remote.url,
        folder=remote.trusted,
        keys=trusted_keys(remote.url),
        now=datetime.now(UTC),
        seen=newest_seen(store.layout, remote.url, ref),
        allow_unsigned=allow_unsigned,
    )
    check = IndexCheck(situation)
    check.resolved(index.digest)
    if not check.may_look:
        check.decide()  # raises
    envelopes, defects = _signatures(remote, documents, ref, index.digest, needed=check.needs_signature)
    if check.needs_signature:
        for each, envelope in envelopes:
            check.consider(envelope, f"the signature {each.envelope.digest} of {ref.tagged} at {remote.url}")
        for defect in defects:
            check.pass_over(defect)
    odd, decision = check.odd, check.decide()
    if odd:
        what = (
            f"signatures of {ref.tagged} at {remote.url} that were passed over: {len(odd)}, such as: {odd[0].message}"
        )
        _LOG.warning("%s", printable(what))
    return Vouched(ref, decision, tuple(each for each, _ in envelopes))


def _signatures(
    remote: Remote, documents: DocumentSource, ref: Ref, index: Digest, *, needed: bool
) -> tuple[list[tuple[StoredSignature, bytes]], list[WszooError]]:
    """What the remote has, with envelopes, and what is wrong with the rest.

    Where something else vouches, those without defects are carried along, and none if the remote cannot tell.
    """
    envelopes: list[tuple[StoredSignature, bytes]] = []
    defects: list[WszooError] = []
    try:
        there = signatures_there(remote, documents, ref, index)
        for each in there.whole:
            try:
                envelopes.append((each, documents.read(each.envelope, limit=MAX_ENVELOPE)))
            except (IntegrityError, NotFoundError) as error:
                defects.append(error)
    except (IntegrityError, NotFoundError, RemoteError):
        if needed:
            raise
        return [], []
    return envelopes, [*there.defects, *defects]


def trusted_keys(remote: str) -> tuple[PublicKey, ...]:
    """The keys that the user trusts for a remote.

    Raises:
        MalformedError: the settings hold something else than keys.
    """
    try:
        return tuple(PublicKey(text) for text in trust_of(remote))
    except UsageError as error:
        raise MalformedError(f"{settings_path()}: {error.message}", hint=error.hint) from error


def sign(
    store: Store, ref: Ref, key: Ed25519PrivateKey, *, expires: datetime, release: int | None = None
) -> tuple[StoredSignature, Release, PublicKey]:
    """Sign what a ref points to, and keep the signature in the store; pushing carries it along.

    Args:
        store: has the model.
        ref: which.
        key: the publisher's.
        expires: from then on clients refuse it.
        release: its number; None takes the time, as in 20270131235959, which grows on every machine, or the next one
            after what the key signed here before.

    Raises:
        NotFoundError: no such ref.
        UsageError: ``expires`` is past, or the number is too large.
        StorageError: the file system refuses.
    """
    now = datetime.now(UTC)
    if expires <= now:
        raise UsageError(f"the signature would have expired on {expires:%Y-%m-%d %H:%M %Z}", hint="give a later date")
    entry = store.refs.get(ref)
    number = (
        max(int(f"{now:%Y%m%d%H%M%S}"), last_release(store, ref, public_of(key)) + 1) if release is None else release
    )
    if number > MAX_RELEASE:
        raise UsageError(f"release numbers end at {MAX_RELEASE}, and this one is {number}", hint="sign another tag")
    said = Release(name=ref.name, tag=ref.tag, release=number, expires=expires.replace(microsecond=0))
    envelope = sign_statement(said, entry.descriptor.digest, signer_of(key))
    return write_signature(store, ref, entry.descriptor, envelope), said, public_of(key)
