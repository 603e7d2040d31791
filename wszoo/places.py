"""Opening the places that users name: folders, URLs, and names from the settings."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wszoo.errors import UsageError, WszooError
from wszoo.plugins import broken_plugins, registry
from wszoo.remotes.mirrors import MirroredRemote
from wszoo.remotes.protocol import writable
from wszoo.settings import remotes
from wszoo.store.store import Store
from wszoo.text import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.remotes.protocol import Remote, WritableRemote


def open_remote(location: str, mirrors: Sequence[str] = ()) -> Remote:
    """Open what the user named with ``--from``.

    Args:
        location: a name from the settings, a folder, or a URL. A folder with the name of a remote is ``./NAME``.
        mirrors: more places with the same blobs, asked in order when it fails.

    Raises:
        UsageError: no plugin knows the scheme.
        NotFoundError: there is nothing of that kind there.
        RemoteError: it cannot be reached.
    """
    named = remotes().get(location)
    places = [named.url, *named.mirrors] if named else [location]
    opened = [_open_place(place) for place in (*places, *mirrors)]
    return opened[0] if len(opened) == 1 and not named else MirroredRemote(opened)


def origins(source: str) -> list[Remote]:
    """Where a model may be had again: the place that it came from and the configured remotes, as far as they open.

    Args:
        source: as a ref's entry says it; empty for none.
    """
    found = []
    for place in dict.fromkeys([*filter(None, [source]), *remotes()]):
        with suppress(WszooError):  # another may have it
            found.append(open_remote(place))
    return found


def open_for_push(location: str) -> WritableRemote:
    """Open what the user named as the place to push to: a name from the settings, a URL, or a folder, which may be new.

    Raises:
        UsageError: no plugin knows the scheme, or the remote can only be read.
        RemoteError: it cannot be reached.
    """
    named = remotes().get(location)
    place = (named.url if named else location).removeprefix("file://")
    if "://" not in place and not Path(place).exists():
        Store(Path(place)).layout.create()
    return writable(_open_place(place))


def _open_place(location: str) -> Remote:
    scheme, separator, _ = location.partition("://")
    wanted = scheme if separator else ""
    known: dict[str, Any] = {each: kind for kind in registry().remotes.values() for each in kind.schemes}
    if wanted not in known:
        schemes = [f"{each}://" for each in sorted(known) if each]
        listed = f"{nearest(f'{wanted}://', schemes)} known: a folder's path, {', '.join(schemes)}".lstrip()
        hint = broken_plugins(registry().plugins) or listed
        what = f"no remote type knows {wanted}:// in {location!r}" if wanted else f"nothing opens folders: {location!r}"
        raise UsageError(what, hint=hint)
    remote: Remote = known[wanted].open(location)
    return remote
