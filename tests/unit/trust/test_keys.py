"""Keys: files for their owner alone, one spelling of a public key, and errors that say what to do."""

from __future__ import annotations

import os
import stat

import pytest

from wszoo.errors import MalformedError, NotFoundError, StorageError, UsageError
from wszoo.trust.keys import PublicKey, is_encrypted, load_key, new_key, parse_public, public_of

GOOD = "ed25519:hG2aJkO4JDY4cYK9JuucrnfUNvAI4MayhncorZ2cDeI="


def test_a_new_key_is_read_again_and_its_owners_alone(tmp_path):
    path = tmp_path / "deep" / "a.key"
    public = new_key(path)
    assert public_of(load_key(path)) == public
    assert not is_encrypted(path)
    if os.name != "nt":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_encrypted_key_needs_its_passphrase(tmp_path):
    public = new_key(tmp_path / "a.key", "open sesame")
    assert is_encrypted(tmp_path / "a.key")
    assert public_of(load_key(tmp_path / "a.key", "open sesame")) == public
    with pytest.raises(UsageError, match="is encrypted") as caught:
        load_key(tmp_path / "a.key")
    assert "WSZOO_KEY_PASSPHRASE" in caught.value.hint
    with pytest.raises(UsageError, match="does not open"):
        load_key(tmp_path / "a.key", "open barley")


def test_a_passphrase_for_a_plain_key_is_passed_over(tmp_path):
    public = new_key(tmp_path / "a.key")
    assert public_of(load_key(tmp_path / "a.key", "anything")) == public


def test_a_key_is_never_overwritten(tmp_path):
    new_key(tmp_path / "a.key")
    before = (tmp_path / "a.key").read_bytes()
    with pytest.raises(UsageError, match="exists"):
        new_key(tmp_path / "a.key")
    assert (tmp_path / "a.key").read_bytes() == before


def test_what_is_no_key_is_told(tmp_path):
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    with pytest.raises(NotFoundError, match="no key in"):
        load_key(tmp_path / "none")
    with pytest.raises(StorageError):
        load_key(tmp_path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(MalformedError, match="no private key"):
        load_key(tmp_path / "text")
    other = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "other").write_bytes(other)
    with pytest.raises(MalformedError, match="no Ed25519 key"):
        load_key(tmp_path / "other")


def test_two_keys_are_two_keys(tmp_path):
    first, second = new_key(tmp_path / "a"), new_key(tmp_path / "b")
    assert first != second
    assert first.id != second.id
    assert len(first.id) == 32
    assert first.id.startswith(first.short)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ed25519:",
        GOOD[:-1],
        GOOD + "=",
        " " + GOOD,
        GOOD + "\n",
        GOOD.replace("ed25519", "ed448"),
        GOOD.replace("I=", "J="),  # the same bytes in another spelling
        "-----BEGIN PUBLIC KEY-----",
    ],
)
def test_a_public_key_has_one_spelling(text):
    with pytest.raises(UsageError, match="not a public key"):
        PublicKey(text)
    assert PublicKey(GOOD) == GOOD


def test_a_public_key_is_given_as_text_or_as_a_file(tmp_path):
    (tmp_path / "pub").write_text(GOOD + "\n")
    assert parse_public(GOOD) == parse_public(str(tmp_path / "pub")) == GOOD
    (tmp_path / "key").write_text("-----BEGIN")
    for text in (str(tmp_path / "key"), str(tmp_path / "none"), str(tmp_path), "a\0b"):
        with pytest.raises(UsageError, match="not a public key"):
            parse_public(text)
