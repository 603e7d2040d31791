"""Signatures: an in-toto statement about an index, in a DSSE envelope, as the layer of an OCI manifest.

Sources: DSSE 1.0 (envelope), in-toto attestation framework 1.0 (statement), OCI image specification 1.1 (``subject``).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec

from wszoo.digest import Digest
from wszoo.schema.decode import decode
from wszoo.schema.oci import Descriptor, Manifest

ARTIFACT = "application/vnd.wszoo.signature.v1"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
PAYLOAD: Final = "application/vnd.in-toto+json"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "urn:wszoo:release:v1"
EMPTY = Descriptor(media_type="application/vnd.oci.empty.v1+json", digest=Digest.of(b"{}"), size=2)

MAX_ENVELOPE = 64 << 10  # bytes; one of ours has about 600
MAX_SIGNATURES = 16  # in an envelope
MAX_REFERRERS = 64  # signatures of one index that are looked at
MAX_RELEASE = (1 << 63) - 1

ReleaseNumber = Annotated[int, msgspec.Meta(ge=1, le=MAX_RELEASE)]
_KeyId = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class EnvelopeSignature(msgspec.Struct, frozen=True, kw_only=True):
    """One signature of an envelope.

    Attributes:
        keyid: which key made it; only a hint until it is verified.
        sig: its bytes.
    """

    keyid: _KeyId
    sig: Annotated[bytes, msgspec.Meta(max_length=4096)]


class Envelope(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A DSSE envelope whose payload is an in-toto statement; nothing else is one.

    Attributes:
        payload: the statement as it was signed.
        payload_type: says so.
        signatures: at least one.
    """

    payload: bytes
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: Annotated[tuple[EnvelopeSignature, ...], msgspec.Meta(min_length=1, max_length=MAX_SIGNATURES)]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement is about.

    Attributes:
        name: ``name:tag``, for people; the predicate has it for the check.
        digest: by algorithm.
    """

    name: _Name
    digest: dict[str, str]


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What a publisher says about an index.

    Attributes:
        name: the model's name.
        tag: the tag that may point to the index.
        release: grows with every index that the tag is moved to.
        expires: from then on nobody should take it from a remote any more.
    """

    name: _Name
    tag: _Name
    release: ReleaseNumber
    expires: Annotated[datetime, msgspec.Meta(tz=True)]


class Statement(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={"type": "_type", "predicate_type": "predicateType"},
):
    """An in-toto statement with a release as its predicate."""

    type: Literal["https://in-toto.io/Statement/v1"] = STATEMENT
    subject: Annotated[tuple[Subject, ...], msgspec.Meta(min_length=1, max_length=1)]
    predicate_type: Literal["urn:wszoo:release:v1"] = PREDICATE
    predicate: Release


class SignatureManifest(Manifest, frozen=True, kw_only=True, rename="camel"):
    """A manifest that refers to the index it signs; its one layer is the envelope."""

    subject: Descriptor


def decode_envelope(data: bytes, what: str) -> Envelope:
    """Decode an envelope; nothing in it is believed yet.

    Raises:
        LimitError: larger than any signature.
        MalformedError: it is none.
    """
    return decode(data, Envelope, what=what, limit=MAX_ENVELOPE)


def decode_statement(payload: bytes, what: str) -> Statement:
    """Decode the payload of an envelope whose signature was verified.

    Raises:
        MalformedError: it is no statement about a release.
    """
    return decode(payload, Statement, what=what, limit=MAX_ENVELOPE)


def decode_signature_manifest(data: bytes, what: str) -> SignatureManifest:
    """Decode the manifest of a signature.

    Raises:
        LimitError: larger than any.
        MalformedError: it is none.
    """
    return decode(data, SignatureManifest, what=what, limit=MAX_ENVELOPE)


class How(StrEnum):
    """What an index was taken on, from the strongest to the weakest."""

    SIGNED = "signed"
    LOCKED = "locked"
    PINNED = "pinned"
    FOLDER = "folder"
    UNSIGNED = "unsigned"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Why an index was taken from a remote.

    Attributes:
        how: what vouches for it.
        ref: ``name:tag`` that was asked for.
        index: its digest.
        remote: where it came from.
        key: id of the key that signed it; empty when that is not why.
        release: of the signature.
        expires: of the signature.
    """

    how: How
    ref: str
    index: Digest
    remote: str
    key: str = ""
    release: ReleaseNumber | None = None
    expires: datetime | None = None


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The newest release of a ref that was taken from a remote.

    Attributes:
        release: its number.
        index: its index.
    """

    release: ReleaseNumber
    index: Digest
