"""The user's settings: one TOML file, which they may edit.

::

    [remotes.acme]
    url = "oci://registry.example/acme"
    mirrors = ["https://mirror.example/acme"]

    [trust."oci://registry.example/acme"]
    keys = ["ed25519:..."]

    [cache]
    limit = 20_000_000_000  # bytes of assembled plans to keep

It stands in the user's configuration folder; ``WSZOO_CONFIG`` names another file. What wszoo does not know in it stays
as it is, comments too.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import platformdirs

from wszoo.errors import NotFoundError, StorageError, UsageError
from wszoo.schema.decode import decode_toml
from wszoo.text import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tomlkit

VARIABLE = "WSZOO_CONFIG"
MAX_SETTINGS = 1 << 20  # bytes
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\x00-\x1f\x7f]+")


class RemoteSetting(msgspec.Struct, frozen=True, kw_only=True):
    """A remote that has a name.

    Attributes:
        url: what ``--from`` would be given.
        mirrors: other places with the same blobs, tried in order when it fails.
    """

    url: str
    mirrors: tuple[str, ...] = ()


class TrustSetting(msgspec.Struct, frozen=True, kw_only=True):
    """Whose signatures count for a remote.

    Attributes:
        keys: public keys, as ``wszoo key show`` prints them.
    """

    keys: tuple[str, ...] = ()


class CacheSetting(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept of what can be made again.

    Attributes:
        limit: bytes of assembled plans; None for any number.
    """

    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Settings(msgspec.Struct, frozen=True, kw_only=True):
    remotes: dict[str, RemoteSetting] = {}
    trust: dict[str, TrustSetting] = {}
    cache: CacheSetting = CacheSetting()


def settings_path() -> Path:
    """The file that ``WSZOO_CONFIG`` names, or else ``config.toml`` in the user's configuration folder."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(platformdirs.user_config_dir("wszoo", appauthor=False)) / "config.toml"


def remotes() -> dict[str, RemoteSetting]:
    """The configured remotes, in the file's order.

    Raises:
        MalformedError: the file is no TOML, or a remote in it has no URL.
        LimitError: it is too large, or nested too deep.
        StorageError: it cannot be read.
    """
    return _settings().remotes


def trust() -> dict[str, TrustSetting]:
    """The keys trusted for each remote, by the remote's URL. Errors as for :func:`remotes`."""
    return _settings().trust


def trust_of(url: str) -> tuple[str, ...]:
    """The keys trusted for one remote; none for one that nobody named. Errors as for :func:`remotes`."""
    found = trust().get(url)
    return found.keys if found else ()


def add_trust(url: str, key: str) -> None:
    """Trust a key for a remote; trusting it again changes nothing.

    Raises:
        StorageError: the file cannot be written.
    """
    keys = trust_of(url)
    if key not in keys:
        _set_keys(url, (*keys, key))


def remove_trust(url: str, key: str | None = None) -> tuple[str, ...]:
    """Trust a key for a remote no longer, or none of its keys; those that were trusted.

    Raises:
        NotFoundError: it was not trusted.
        StorageError: the file cannot be written.
    """
    keys = trust_of(url)
    gone = tuple(each for each in keys if key in {None, each})
    if not gone:
        raise NotFoundError(
            f"no such key is trusted for {url}", hint="'wszoo trust list' shows the keys and their remotes"
        )
    _set_keys(url, tuple(each for each in keys if each not in gone))
    return gone


def _set_keys(url: str, keys: Sequence[str]) -> None:
    document = _document()
    table = document.setdefault("trust", {})
    if keys:
        table[url] = {"keys": list(keys)}
    else:
        del table[url]
    _write(document)


def cache_limit() -> int | None:
    """How many bytes of assembled plans to keep; None for any number. Errors as for :func:`remotes`."""
    return _settings().cache.limit


def set_cache_limit(limit: int | None) -> None:
    """Change how many bytes of assembled plans are kept; None for any number.

    Raises:
        StorageError: the file cannot be written.
    """
    document = _document()
    if limit is not None:
        document.setdefault("cache", {})["limit"] = limit
    elif "cache" in document:
        del document["cache"]
    _write(document)


def _settings() -> _Settings:
    path = settings_path()
    hint = "correct the file, or move it away"
    return decode_toml(_read(path), _Settings, what=str(path), limit=MAX_SETTINGS, hint=hint)


def add_remote(name: str, url: str, mirrors: Sequence[str] = ()) -> None:
    """Give a remote a name, or change what the name stands for.

    Raises:
        UsageError: the name or a URL is none.
        StorageError: the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"not a name for a remote: {name!r}", hint="use letters, digits, '.', '_' and '-', for example 'acme'"
        )
    for each in (url, *mirrors):
        if not _URL.fullmatch(each):
            raise UsageError(
                f"not a remote's URL: {each!r}", hint="such as https://HOST/PATH, oci://HOST/PATH or file:///FOLDER"
            )
    document = _document()
    table = document.setdefault("remotes", {})
    table[name] = {"url": url, **({"mirrors": list(mirrors)} if mirrors else {})}
    _write(document)


def remove_remote(name: str) -> None:
    """Forget a remote's name.

    Raises:
        NotFoundError: there is none of that name.
        StorageError: the file cannot be written.
    """
    known = remotes()
    if name not in known:
        hint = f"{nearest(name, known)} there is: {', '.join(known) or 'none'}".lstrip()
        raise NotFoundError(f"no remote {name!r} in {settings_path()}", hint=hint)
    document = _document()
    del document["remotes"][name]
    _write(document)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SETTINGS + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StorageError(
            f"cannot read the settings {path}: {error.strerror or error}", hint=f"set {VARIABLE} to another file"
        ) from error


def _document() -> tomlkit.TOMLDocument:
    import tomlkit

    remotes()  # refuse to rewrite what cannot be understood
    return tomlkit.parse(_read(settings_path()))


def _write(document: tomlkit.TOMLDocument) -> None:
    import tomlkit

    from wszoo.store.files import make_folder, storage_errors, write_atomic

    path = settings_path()
    with storage_errors("write the settings to", path):
        make_folder(path.parent)
        write_atomic(path, tomlkit.dumps(document).encode(), path.parent)
