"""Ed25519 keys: private ones as PKCS #8 files, public ones as one word, ``ed25519:`` and the base64 of 32 bytes."""

from __future__ import annotations

import base64
import binascii
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from wszoo.errors import MalformedError, NotFoundError, StorageError, UsageError
from wszoo.store.files import make_folder, storage_errors, sync_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from securesystemslib.signer import CryptoSigner, SSlibKey

PASSPHRASE = "WSZOO_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable
_TEXT = re.compile(r"ed25519:[A-Za-z0-9+/]{43}=")
_PREFIX = "ed25519:"
_MAX_FILE = 64 << 10


class PublicKey(str):
    """A validated public key; compares and prints as its text."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Validate ``text``.

        Raises:
            UsageError: it is no public key.
        """
        if _TEXT.fullmatch(text):
            with suppress(binascii.Error, ValueError):
                raw = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
                if text == f"{_PREFIX}{base64.b64encode(raw).decode()}":  # one spelling a key
                    return super().__new__(cls, text)
        raise UsageError(
            f"not a public key: {text[:100]!r}", hint="it looks like 'ed25519:...=', as 'wszoo key show FILE' prints it"
        )

    @property
    def id(self) -> str:
        """Names the key in envelopes: the first half of the sha256 of its 32 bytes, in hexadecimal."""
        import hashlib

        return hashlib.sha256(self.raw).hexdigest()[:32]

    @property
    def short(self) -> str:
        """The first 16 characters of the id, for people."""
        return self.id[:16]

    @property
    def raw(self) -> bytes:
        """The 32 bytes."""
        return base64.b64decode(self.removeprefix(_PREFIX))

    def verifier(self) -> SSlibKey:
        """The key as securesystemslib wants it."""
        from securesystemslib.signer import SSlibKey

        return SSlibKey(self.id, "ed25519", "ed25519", {"public": self.raw.hex()})


def parse_public(text: str) -> PublicKey:
    """A public key that a user gave as its text, or as a file that holds it.

    Raises:
        UsageError: neither.
    """
    if not text.startswith(_PREFIX):
        with suppress(OSError, UnicodeDecodeError, ValueError):
            path = Path(text)
            if path.stat().st_size <= _MAX_FILE:
                return PublicKey(path.read_text(encoding="utf-8").strip())
    return PublicKey(text)


def new_key(path: Path, passphrase: str = "") -> PublicKey:
    """Make a key pair and write the private key, readable by its owner alone where the system can say so.

    Args:
        path: a file that does not exist yet.
        passphrase: encrypts it; empty leaves it plain.

    Raises:
        UsageError: the file exists.
        StorageError: it cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    private = Ed25519PrivateKey.generate()
    hidden = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    data = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)
    try:
        with storage_errors("write the key"):
            make_folder(path.parent)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(path.parent)
    except StorageError as error:
        if isinstance(error.__cause__, FileExistsError):
            raise UsageError(f"{path} exists", hint="a key is never overwritten: name another file") from error
        raise
    return public_of(private)


def load_key(path: Path, passphrase: str = "") -> Ed25519PrivateKey:
    """Read a private key.

    Args:
        path: the file that :func:`new_key` wrote, or any PKCS #8 file with an Ed25519 key.
        passphrase: of an encrypted one.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it is encrypted and the passphrase is missing or wrong.
        MalformedError: it holds no Ed25519 key.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with storage_errors("read the key"), path.open("rb") as file:
            data = file.read(_MAX_FILE)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise NotFoundError(f"no key in {path}", hint="make one with 'wszoo key new'") from error
        raise
    encrypted = b"ENCRYPTED" in data
    if encrypted and not passphrase:
        raise UsageError(f"{path} is encrypted", hint=f"set {PASSPHRASE}, or type it when asked on a terminal")
    try:
        key = load_pem_private_key(data, passphrase.encode() if encrypted else None)
    except (ValueError, TypeError) as error:
        if encrypted:
            raise UsageError(f"the passphrase does not open {path}", hint="try again") from error
        raise MalformedError(f"{path} is no private key: {error}", hint="make one with 'wszoo key new'") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise MalformedError(f"{path} holds no Ed25519 key", hint="make one with 'wszoo key new'")
    return key


def is_encrypted(path: Path) -> bool:
    """True for a private key that needs a passphrase."""
    with suppress(OSError), path.open("rb") as file:
        return b"ENCRYPTED" in file.read(_MAX_FILE)
    return False


def public_of(private: Ed25519PrivateKey) -> PublicKey:
    """The public half of a key."""
    return PublicKey(_PREFIX + base64.b64encode(private.public_key().public_bytes_raw()).decode())


def signer_of(private: Ed25519PrivateKey) -> CryptoSigner:
    """The key as securesystemslib wants it."""
    from securesystemslib.signer import CryptoSigner

    return CryptoSigner(private, public_of(private).verifier())
