"""The small JSON documents of a registry that are not part of the image specification."""

from __future__ import annotations

import msgspec

from wszoo.schema.decode import decode


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What a token server answers; it may use either name."""

    token: str = ""
    access_token: str = ""


class _Lists(msgspec.Struct, frozen=True, kw_only=True):
    repositories: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None


class DockerAuth(msgspec.Struct, frozen=True, kw_only=True, rename={"identity_token": "identitytoken"}):
    """Credentials for one host in docker's ``config.json``.

    Attributes:
        auth: base64 of ``user:password``.
        identity_token: instead of a password.
    """

    auth: str = ""
    identity_token: str = ""


class DockerConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What ``docker login`` writes.

    Attributes:
        auths: by host, or by URL as Docker Hub's.
        cred_helpers: by host, the helper that knows its credentials.
        creds_store: the helper that knows all others.
    """

    auths: dict[str, DockerAuth] = {}
    cred_helpers: dict[str, str] = {}
    creds_store: str = ""


class HelperAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What a credential helper prints."""

    username: str
    secret: str


def string_list(data: bytes, field: str, what: str) -> list[str]:
    """A list of names in a registry's answer; null counts as empty.

    Raises:
        MalformedError: it is none.
    """
    return list(getattr(decode(data, _Lists, what=what), field) or ())
