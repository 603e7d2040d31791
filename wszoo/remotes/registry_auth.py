"""Logging in to registries: challenges, tokens, and the credentials that ``docker login`` keeps.

A request goes out without credentials first. A 401 names what the registry wants: ``Basic``, or a ``Bearer`` token for
a scope, which a token server gives. Source: the distribution project's token authentication specification.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import urllib3

from wszoo.errors import MalformedError, RemoteError
from wszoo.remotes.registry_documents import DockerConfig, HelperAnswer, Token
from wszoo.remotes.web import Web
from wszoo.schema.decode import MAX_MANIFEST, decode

if TYPE_CHECKING:
    from wszoo.remotes.web import Response

_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_REPOSITORY = re.compile(r"/v2/(.+)/(?:blobs|manifests|tags)/")
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_SECONDS = 30
_READING = frozenset({"GET", "HEAD"})
_TOKEN_USER = "<token>"  # noqa: S105 - how helpers mark an identity token
_HUB = "registry-1.docker.io"


class RegistryCredentials:
    """Answers the challenges of one registry; never sends anything to another host.

    Args:
        base: the registry's ``https://HOST``.
    """

    def __init__(self, base: str) -> None:
        self._base = urlsplit(base)
        self._lock = threading.Lock()
        self._web = Web()
        self._basic: str | None = None
        self._tokens: dict[tuple[str, bool], str] = {}

    def header(self, method: str, url: str) -> str | None:
        """See :class:`wszoo.remotes.web.Credentials`."""
        if urlsplit(url)[:2] != self._base[:2]:
            return None
        with self._lock:
            return self._tokens.get(_key(method, url)) or self._basic

    def challenged(self, response: Response, method: str, url: str) -> bool:
        """See :class:`wszoo.remotes.web.Credentials`."""
        if urlsplit(url)[:2] != self._base[:2]:
            return False
        challenge = response.headers.get("WWW-Authenticate", "")
        kind, found = challenge.partition(" ")[0].lower(), dict(_PARAMETER.findall(challenge))
        if kind == "bearer" and "realm" in found:
            token = self._token(found, method, url)
            with self._lock:
                self._tokens[_key(method, url)] = f"Bearer {token}"
            return True
        login = stored_login(self._base.netloc) if kind == "basic" else None
        if login is None or self._basic is not None:
            return False
        with self._lock:
            self._basic = _basic(*login)
        return True

    def _token(self, challenge: dict[str, str], method: str, url: str) -> str:
        realm, login = challenge["realm"], stored_login(self._base.netloc)
        if urlsplit(realm).scheme != "https" and self._base.scheme == "https":
            raise RemoteError(f"{self._base.netloc} wants passwords sent to {realm}, unencrypted", permanent=True)
        query: list[tuple[str, str]] = [("service", challenge["service"])] if "service" in challenge else []
        # Mounting a blob takes two scopes, in one string with a space between them.
        query += [("scope", each) for each in (challenge.get("scope") or _scope(method, url)).split()]
        if login is not None and login[0] == _TOKEN_USER:
            secret = [("grant_type", "refresh_token"), ("refresh_token", login[1])]
            data = self._exchange(realm, [*_joined(query), *secret])
        else:
            headers = {"Authorization": _basic(*login)} if login else {}
            joined = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
            data, _ = self._web.read(joined, limit=MAX_MANIFEST, headers=headers)
        answer = decode(data, Token, what=f"token from {realm}")
        token = answer.token or answer.access_token
        if not token or not token.isprintable():
            raise RemoteError(f"{realm} gives no token", permanent=True)
        return token

    def _exchange(self, realm: str, form: list[tuple[str, str]]) -> bytes:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        data = urlencode([*form, ("client_id", "wszoo")]).encode()
        response = self._web.request("POST", realm, headers=headers, body=lambda: data)
        answer = response.read(MAX_MANIFEST)
        response.close()
        return answer


def stored_login(host: str) -> tuple[str, str] | None:
    """User and password for a registry, from where ``docker login`` (or skopeo, or podman) keeps them.

    Raises:
        MalformedError: the file is no JSON, or an entry of it is none.
        RemoteError: a credential helper fails.
    """
    for path in _config_paths():
        try:
            config = decode(path.read_bytes(), DockerConfig, what=str(path))
        except OSError:
            continue
        for name in _names(host):
            if (login := _login(config, name, path)) is not None:
                return login
    return None


def _login(config: DockerConfig, name: str, path: Path) -> tuple[str, str] | None:
    helper = config.cred_helpers.get(name) or config.creds_store
    if helper and (answer := _ask_helper(helper, name)) is not None:
        return answer
    entry = config.auths.get(name)
    if entry is None:
        return None
    if entry.identity_token:
        return _TOKEN_USER, entry.identity_token
    try:
        user, colon, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise MalformedError(f"{path}: the entry for {name} is damaged", hint="run 'docker login' again") from error
    return (user, password) if colon else None


def _ask_helper(helper: str, name: str) -> tuple[str, str] | None:
    if not _HELPER.fullmatch(helper):
        raise MalformedError(f"not a credential helper: {helper!r}", hint="correct docker's config.json")
    words = [f"docker-credential-{helper}", "get"]
    try:
        done = subprocess.run(  # noqa: S603 - the user's own configuration names it
            words, input=name.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RemoteError(
            f"{words[0]} does not work: {error}", hint="docker's config.json names it", permanent=True
        ) from error
    if done.returncode:  # how helpers say that they know nothing of a host
        return None
    answer = decode(done.stdout, HelperAnswer, what=f"answer of {words[0]}")
    return answer.username, answer.secret


def _config_paths() -> list[Path]:
    named = os.environ.get("REGISTRY_AUTH_FILE")
    docker = os.environ.get("DOCKER_CONFIG")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    found = [Path(named)] if named else []
    found.append((Path(docker) if docker else Path.home() / ".docker") / "config.json")
    return [*found, Path(runtime, "containers", "auth.json")] if runtime else found


def _names(host: str) -> list[str]:
    """How configuration files spell a host."""
    names = [host, f"https://{host}", f"http://{host}"]
    return [*names, "https://index.docker.io/v1/", "docker.io", "index.docker.io"] if host == _HUB else names


def _key(method: str, url: str) -> tuple[str, bool]:
    match = _REPOSITORY.match(urlsplit(url).path)
    return match[1] if match else "", method in _READING


def _scope(method: str, url: str) -> str:
    repository, reading = _key(method, url)
    return f"repository:{repository}:{'pull' if reading else 'pull,push'}" if repository else ""


def _joined(query: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same with one scope field: a form's scopes are separated by spaces."""
    scopes = " ".join(value for name, value in query if name == "scope")
    others = [each for each in query if each[0] != "scope"]
    return [*others, ("scope", scopes)] if scopes else others


def _basic(user: str, password: str) -> str:
    return urllib3.make_headers(basic_auth=f"{user}:{password}")["authorization"]
