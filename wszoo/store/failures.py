"""Why builds failed: one record each, kept until the build succeeds, the newest hundred of them.

``wszoo/failed/<key>.json``, with the key of :mod:`wszoo.store.built`. It may be deleted at any time.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from wszoo.errors import IntegrityError
from wszoo.schema.decode import decode, encode
from wszoo.store.built import build_key
from wszoo.store.files import delete, read_regular, storage_errors, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.schema.plan import PlanConfig
    from wszoo.store.store import Store

KEPT = 100
MAX_LOG = 64 << 10  # characters; the end of a log says what went wrong
_MAX_RECORD = 1 << 20


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One build that failed.

    Attributes:
        model: ``name:tag`` that it was for.
        component: the network.
        target: what it was built for.
        where: the node.
        kind: the error's class.
        message: what happened.
        hint: what to do; may be empty.
        log: the end of what the builder said.
        wszoo: version.
    """

    model: str
    component: str
    target: str
    where: str
    kind: str
    message: str
    hint: str = ""
    log: str = ""
    wszoo: str = ""


def keep_failure(store: Store, wanted: PlanConfig, failure: Failure) -> Path:
    """Keep a record; the oldest go when there are too many.

    Raises:
        StorageError: the file system refuses.
    """
    folder = store.layout.failed
    with storage_errors("keep the log of a failed build in"):
        folder.mkdir(parents=True, exist_ok=True)
        path = failure_path(store, wanted)
        short = msgspec.structs.replace(failure, log=failure.log[-MAX_LOG:], message=failure.message[:MAX_LOG])
        write_atomic(path, encode(short), store.layout.tmp)
        for old in sorted(folder.glob("*.json"), key=lambda each: each.stat().st_mtime)[:-KEPT]:
            delete(old)
    return path


def failures_of(store: Store, model: str) -> list[Failure]:
    """Why builds for ``name:tag`` failed the last time, the newest first; a record that is damaged is left out."""
    found = []
    with suppress(OSError):
        for path in sorted(store.layout.failed.glob("*.json"), key=lambda each: -each.stat().st_mtime_ns):
            with suppress(OSError, IntegrityError):
                data = read_regular(path, _MAX_RECORD)
                found.append(decode(data, Failure, what="a record of a failed build", limit=_MAX_RECORD))
    return [each for each in found if each.model == model]


def forget_failure(store: Store, wanted: PlanConfig) -> None:
    """Drop the record of a build that has succeeded now."""
    with suppress(OSError):
        failure_path(store, wanted).unlink(missing_ok=True)


def failure_path(store: Store, wanted: PlanConfig) -> Path:
    """Where the record of a build stands, if there is one."""
    return store.layout.failed / f"{build_key(wanted).hex}.json"
