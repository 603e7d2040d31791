"""Signing statements and finding out who signed one, through securesystemslib."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.errors import MalformedError, TrustError
from wszoo.schema.decode import encode
from wszoo.schema.trust import PAYLOAD, Envelope, EnvelopeSignature, Statement, Subject, decode_envelope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securesystemslib.signer import Signer

    from wszoo.digest import Digest
    from wszoo.schema.trust import Release
    from wszoo.trust.keys import PublicKey


def sign_statement(release: Release, index: Digest, signer: Signer) -> bytes:
    """An envelope in which a publisher says that an index is a release.

    Args:
        release: what is said.
        index: about which index.
        signer: with the publisher's key.
    """
    from securesystemslib.dsse import Envelope as Signable

    subject = Subject(name=f"{release.name}:{release.tag}", digest={"sha256": index.hex})
    payload = encode(Statement(subject=(subject,), predicate=release))
    made = Signable(payload, PAYLOAD, {}).sign(signer)
    signature = EnvelopeSignature(keyid=made.keyid, sig=bytes.fromhex(made.signature))
    return encode(Envelope(payload=payload, payload_type=PAYLOAD, signatures=(signature,)))


def verified_payload(data: bytes, keys: Iterable[PublicKey], what: str) -> tuple[bytes, PublicKey]:
    """The payload of an envelope that one of the keys signed, and that key.

    Nothing of the payload is looked at before.

    Args:
        data: the envelope, hostile.
        keys: those that are trusted here.
        what: for messages.

    Raises:
        LimitError: too large.
        MalformedError: no envelope of a statement.
        TrustError: none of the keys signed it, or a signature does not fit the payload.
    """
    from securesystemslib.dsse import Envelope as Verifiable
    from securesystemslib.exceptions import Error
    from securesystemslib.signer import Signature

    found = decode_envelope(data, what)
    signatures = {each.keyid: Signature(each.keyid, each.sig.hex()) for each in found.signatures}
    if len(signatures) != len(found.signatures):
        raise MalformedError(f"{what} has two signatures of one key")
    known = {key.id: key for key in keys if key.id in signatures}
    if not known:
        made_by = ", ".join(keyid[:16] for keyid in signatures)
        raise TrustError(
            f"{what} was made by a key that is not trusted for this remote: {made_by}",
            hint="if the publisher confirms that key, add it with 'wszoo trust add'",
        )
    try:
        accepted = Verifiable(found.payload, found.payload_type, signatures).verify(
            [key.verifier() for key in known.values()], 1
        )
    except (Error, ValueError) as error:
        raise TrustError(
            f"{what} does not fit its key {', '.join(key.short for key in known.values())}: it was changed",
            hint="someone tampered with it, or it was damaged on the way: tell the publisher",
        ) from error
    return found.payload, known[next(iter(accepted))]
