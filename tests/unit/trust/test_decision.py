"""The decision about an index: every reason to take it or not, and every order of questions that is not legal."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wszoo.digest import Digest
from wszoo.errors import IntegrityError, MalformedError, NotFoundError, TrustError
from wszoo.names import Ref
from wszoo.schema.decode import encode
from wszoo.schema.trust import How, Release, Seen, decode_envelope
from wszoo.trust.decision import IndexCheck, Situation
from wszoo.trust.envelope import sign_statement
from wszoo.trust.keys import public_of, signer_of

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
REF = Ref.parse("net:1")
INDEX, OTHER = Digest.of(b"index"), Digest.of(b"another index")
KEY, STRANGER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


def release(**changes):
    said = {"name": "net", "tag": "1", "release": 5, "expires": NOW + timedelta(days=1)}
    return Release(**{**said, **changes})


def signed(said=None, *, key=KEY, index=INDEX):
    return sign_statement(said or release(), index, signer_of(key))


def check(**known):
    situation = {"ref": REF, "remote": "https://zoo", "keys": (public_of(KEY),), "now": NOW}
    made = IndexCheck(Situation(**{**situation, **known}))
    made.resolved(INDEX)
    return made


def decide(*envelopes, **known):
    asked = check(**known)
    for number, envelope in enumerate(envelopes):
        asked.consider(envelope, f"signature {number}")
    return asked.decide()


ACCEPTED = {
    "signed by the trusted key": ([signed()], {}, How.SIGNED),
    "signed also by a stranger": ([signed(key=STRANGER), signed()], {}, How.SIGNED),
    "an expired signature beside a good one": ([signed(release(expires=NOW)), signed()], {}, How.SIGNED),
    "the release that was seen": ([signed()], {"seen": Seen(release=5, index=INDEX)}, How.SIGNED),
    "a newer release": ([signed()], {"seen": Seen(release=4, index=OTHER)}, How.SIGNED),
    "a folder": ([], {"folder": True}, How.FOLDER),
    "a pin": ([], {"ref": REF.pinned(INDEX)}, How.PINNED),
    "a pin, though nobody is trusted": ([], {"ref": REF.pinned(INDEX), "keys": ()}, How.PINNED),
    "unsigned and allowed": ([], {"allow_unsigned": True}, How.UNSIGNED),
    "signed by a stranger and allowed": ([signed(key=STRANGER)], {"allow_unsigned": True}, How.UNSIGNED),
    "signed and allowed": ([signed()], {"allow_unsigned": True}, How.SIGNED),
}

REFUSED = {
    "nobody is trusted": ([], {"keys": ()}, "nothing vouches for net:1 at https://zoo"),
    "not signed": ([], {}, "is not signed"),
    "not signed any more": ([], {"seen": Seen(release=4, index=OTHER)}, "Earlier releases of it were signed"),
    "signed by a stranger": ([signed(key=STRANGER)], {}, "a key that is not trusted"),
    "about another index": ([signed(index=OTHER)], {}, f"another index than {INDEX}"),
    "another model": ([signed(release(name="other"))], {}, "signed it as other:1"),
    "another tag": ([signed(release(tag="2"))], {}, "signed it as net:2"),
    "expired this moment": ([signed(release(expires=NOW))], {}, "expired on 2027-01-01"),
    "rolled back": ([signed()], {"seen": Seen(release=6, index=OTHER)}, "older than release 6"),
    "the same number again": ([signed()], {"seen": Seen(release=5, index=OTHER)}, "under the same number"),
}


@pytest.mark.parametrize(("envelopes", "known", "how"), ACCEPTED.values(), ids=ACCEPTED)
def test_is_taken(envelopes, known, how):
    found = decide(*envelopes, **known)
    assert (found.how, found.index, found.ref, found.remote) == (how, INDEX, "net:1", "https://zoo")
    assert (found.key, found.release) == ((public_of(KEY).id, 5) if how is How.SIGNED else ("", None))


@pytest.mark.parametrize(("envelopes", "known", "reason"), REFUSED.values(), ids=REFUSED)
def test_is_refused_with_the_reason(envelopes, known, reason):
    with pytest.raises(TrustError, match=reason) as caught:
        decide(*envelopes, **known)
    assert caught.value.hint


@pytest.mark.parametrize("reason", ["about another index", "another model", "expired this moment", "rolled back"])
def test_what_a_trusted_key_speaks_against_cannot_be_allowed(reason):
    envelopes, known, text = REFUSED[reason]
    with pytest.raises(TrustError, match=text):
        decide(*envelopes, **known, allow_unsigned=True)


def test_of_several_refusals_the_one_that_came_furthest_is_told():
    with pytest.raises(TrustError, match="expired on"):
        decide(signed(key=STRANGER), signed(release(expires=NOW)), b"{}", signed(index=OTHER))


def test_of_several_good_ones_the_newest_release_counts():
    assert decide(signed(), signed(release(release=9)), signed(release(release=7))).release == 9


def test_a_pin_to_another_index_is_not_found():
    made = IndexCheck(Situation(ref=REF.pinned(OTHER), remote="https://zoo", now=NOW))
    with pytest.raises(NotFoundError, match=INDEX) as caught:
        made.resolved(INDEX)
    assert OTHER in caught.value.message


def edited(**changes):
    envelope = decode_envelope(signed(), "ours")
    import msgspec

    return encode(msgspec.structs.replace(envelope, **changes))


def resigned(payload):
    """Anything, signed by the trusted key as if it were a statement."""
    import json

    kind = "application/vnd.in-toto+json"
    pae = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    sig = {"keyid": public_of(KEY).id, "sig": base64.b64encode(KEY.sign(pae)).decode()}
    shape = {"payload": base64.b64encode(payload).decode(), "payloadType": kind, "signatures": [sig]}
    return json.dumps(shape).encode()


MALFORMED = {
    "no JSON": b"\xff",
    "no envelope": b"{}",
    "another payload type": signed().replace(b"application/vnd.in-toto+json", b"application/vnd.in-toto+yaml"),
    "no signatures": edited(signatures=()),
    "a hundred signatures": edited(signatures=decode_envelope(signed(), "ours").signatures * 100),
    "the same key twice": edited(signatures=decode_envelope(signed(), "ours").signatures * 2),
    "larger than any": signed() + b" " * (64 << 10),
    "nested": b"[" * 60_000,
    "payload that is no base64": signed().replace(b'"payload":"', b'"payload":"*'),
    "a signed text that is no JSON": resigned(b"hello"),
    "a signed statement of another type": resigned(b'{"_type":"https://in-toto.io/Statement/v0.1"}'),
}


@pytest.mark.parametrize("envelope", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_envelope_is_told(envelope):
    with pytest.raises(IntegrityError, match="signature 0"):
        decide(envelope)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"release":5', b'"release":0'),
        (b'"release":5', b'"release":"5"'),
        (b'"release":5', b'"release":99999999999999999999'),
        (b"2027-01-02T12:00:00Z", b"2027-01-02T12:00:00"),
        (b"2027-01-02T12:00:00Z", b"never"),
        (b"urn:wszoo:release:v1", b"urn:wszoo:release:v2"),
        (b'"subject":[', b'"subject":[{"name":"a","digest":{}},'),
        (b'"name":"net"', b'"name":""'),
        (b'"name":"net"', b'"nome":"net"'),
    ],
)
def test_a_statement_that_a_trusted_key_signed_is_still_parsed_strictly(old, new):
    payload = decode_envelope(signed(), "ours").payload
    assert old in payload
    with pytest.raises(MalformedError, match="signature 0"):
        decide(resigned(payload.replace(old, new)))
    assert decide(resigned(payload)).how is How.SIGNED


@pytest.mark.parametrize("at", range(0, len(decode_envelope(signed(), "ours").payload), 13))
def test_a_changed_byte_of_the_payload_does_not_fit_the_signature(at):
    payload = bytearray(decode_envelope(signed(), "ours").payload)
    payload[at] ^= 1
    with pytest.raises(TrustError, match="does not fit its key"):
        decide(edited(payload=bytes(payload)))


def test_a_changed_byte_of_the_signature_does_not_fit():
    (one,) = decode_envelope(signed(), "ours").signatures
    for sig in (bytes([one.sig[0] ^ 1]) + one.sig[1:], one.sig[:-1], b"", one.sig + b"\0"):
        with pytest.raises(TrustError, match="does not fit its key"):
            decide(edited(signatures=(type(one)(keyid=one.keyid, sig=sig),)))


def test_a_strangers_signature_under_the_trusted_keys_id_does_not_fit():
    (one,) = decode_envelope(signed(key=STRANGER), "theirs").signatures
    forged = encode(
        type(decode_envelope(signed(), "ours"))(
            payload=decode_envelope(signed(), "ours").payload,
            payload_type="application/vnd.in-toto+json",
            signatures=(type(one)(keyid=public_of(KEY).id, sig=one.sig),),
        )
    )
    with pytest.raises(TrustError, match="does not fit its key"):
        decide(forged)


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("sig", [b"", b"x" * 64, b"x" * 4096], ids=["empty", "wrong", "long"])
@pytest.mark.parametrize("trusted", [True, False], ids=["another trusted key", "a key nobody knows"])
def test_in_one_envelope_too_a_bad_signature_masks_no_good_one(first, sig, trusted):
    (good,) = decode_envelope(signed(), "ours").signatures
    bad = type(good)(keyid=public_of(STRANGER).id, sig=sig)
    keys = (public_of(STRANGER), public_of(KEY)) if trusted else (public_of(KEY),)
    decision = decide(edited(signatures=(bad, good) if first else (good, bad)), keys=keys)
    assert (decision.how, decision.key) == (How.SIGNED, public_of(KEY).id)


# What each call makes of the check; a call that is not there is not legal.
LEGAL = {
    "new": {"resolved": "resolved"},
    "resolved": {"consider": "resolved", "pass_over": "resolved", "decide": "decided"},
    "decided": {},
}
CALLS = {
    "resolved": lambda made: made.resolved(INDEX),
    "consider": lambda made: made.consider(signed(), "signature"),
    "pass_over": lambda made: made.pass_over(MalformedError("no manifest")),
    "decide": lambda made: made.decide(),
}
REACHED = {"new": [], "resolved": ["resolved", "consider"], "decided": ["resolved", "consider", "decide"]}


@pytest.mark.parametrize("state", LEGAL)
@pytest.mark.parametrize("call", CALLS)
def test_calls_in_an_illegal_order_are_a_defect(state, call):
    made = IndexCheck(Situation(ref=REF, remote="https://zoo", keys=(public_of(KEY),), now=NOW))
    for before in REACHED[state]:
        CALLS[before](made)
    if call in LEGAL[state]:
        CALLS[call](made)
    else:
        with pytest.raises(RuntimeError, match=state.upper()):
            CALLS[call](made)


@pytest.mark.parametrize(
    ("known", "look", "needs"),
    [
        ({}, True, True),
        ({"keys": ()}, False, False),
        ({"keys": (), "allow_unsigned": True}, True, False),
        ({"folder": True}, True, False),
        ({"ref": REF.pinned(INDEX), "keys": ()}, True, False),
    ],
)
def test_nothing_is_fetched_that_cannot_help(known, look, needs):
    made = check(**known)
    assert (made.may_look, made.needs_signature) == (look, needs)
