"""What a store remembers about trust: why each index was taken, and the newest release seen from each remote.

::

    wszoo/accepted/<hex of the index>.json         a Decision
    wszoo/releases/<key>/<release>-<hex of index>   one file for the newest release of a ref at a remote

``<key>`` hashes the remote's URL and the ref. The number is in the name, so that of two writers at once the higher one
counts whoever comes last, without a lock.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.errors import MalformedError
from wszoo.schema.decode import decode, encode
from wszoo.schema.trust import MAX_ENVELOPE, Decision, How, Seen
from wszoo.store.files import make_folder, storage_errors, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.names import Ref
    from wszoo.store.layout import StoreLayout

_RELEASE = re.compile(r"(\d{19})-([0-9a-f]{64})")
_STRENGTH = list(How)


def remember(layout: StoreLayout, decision: Decision) -> None:
    """Note why an index was taken; a stronger reason that is known already stays, an expired one does not matter here.

    Raises:
        StorageError: the file system refuses.
    """
    note_release(layout, decision)
    before = decision_about(layout, decision.index)
    if before is not None and _STRENGTH.index(before.how) < _STRENGTH.index(decision.how):
        return
    with storage_errors("note what vouches for a model in", layout.accepted):
        make_folder(layout.accepted)
        write_atomic(layout.accepted / f"{decision.index.hex}.json", encode(decision), layout.tmp)


def decision_about(layout: StoreLayout, index: Digest) -> Decision | None:
    """Why an index was taken; None for what was made here."""
    with suppress(OSError, MalformedError):
        path = layout.accepted / f"{index.hex}.json"
        found = decode(path.read_bytes(), Decision, what=str(path), limit=MAX_ENVELOPE)
        return found if found.index == index else None
    return None


def newest_seen(layout: StoreLayout, remote: str, ref: Ref) -> Seen | None:
    """The newest release of a ref that was taken from a remote.

    Raises:
        StorageError: it cannot be read.
    """
    with storage_errors("read which releases were seen in"):
        names = _names(_folder(layout, remote, ref.tagged))
    if not names:
        return None
    release, index = max(names)
    return Seen(release=release, index=Digest(f"sha256:{index}"))


def note_release(layout: StoreLayout, decision: Decision) -> None:
    """Note the release that a decision is about, if it is about one: older ones are refused from then on.

    Raises:
        StorageError: the file system refuses.
    """
    release = decision.release
    if release is None:
        return
    folder = _folder(layout, decision.remote, decision.ref)
    with storage_errors("note which release was seen in", folder):
        make_folder(folder)
        write_atomic(folder / f"{release:019d}-{decision.index.hex}", encode(decision), layout.tmp)
        for older, index in _names(folder):
            if older < release:
                (folder / f"{older:019d}-{index}").unlink(missing_ok=True)


def _folder(layout: StoreLayout, remote: str, ref: str) -> Path:
    return layout.releases / hashlib.sha256(f"{remote}\0{ref}".encode()).hexdigest()[:32]


def _names(folder: Path) -> list[tuple[int, str]]:
    if not folder.is_dir():
        return []
    found = (_RELEASE.fullmatch(path.name) for path in folder.iterdir())
    return [(int(match[1]), match[2]) for match in found if match]
