"""Who is working on a store now, so that gc keeps what they have written and not yet made reachable.

A lease is a file whose modification time is renewed while the work goes on. Times are compared with each other only, as
the file system gives them, so that hosts whose clocks differ can share a store. A clock that jumps forward makes every
lease look old until it is renewed; so one is not taken for dead while its process runs, where that can be looked up.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from wszoo.errors import MalformedError
from wszoo.store.files import read_regular, storage_errors, unique_name
from wszoo.store.processes import process_space, runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wszoo.store.layout import StoreLayout

RENEW = 60.0  # seconds
EXPIRE = 900.0  # seconds without renewal after which its owner is taken for dead
EXPIRE_RUNNING = 7 * 86_400.0  # the same where a process of its number runs, which may be another by then


@contextmanager
def lease(layout: StoreLayout) -> Iterator[None]:
    """Hold a lease while the block runs.

    Raises:
        StorageError: the file system refuses.
    """
    layout.create()
    name = unique_name()
    started, alive = layout.leases / f"{name}.start", layout.leases / f"{name}.alive"
    with storage_errors("take a lease in", layout.leases):
        started.touch(exist_ok=False)
        with alive.open("x", encoding="utf-8") as file:
            file.write(process_space())
    done = threading.Event()
    renewer = threading.Thread(target=_renew, args=(alive, done), name="wszoo-lease", daemon=True)
    renewer.start()
    try:
        yield
    finally:
        done.set()
        renewer.join()
        for path in (alive, started):
            with suppress(OSError):
                path.unlink()


def oldest_start(layout: StoreLayout, *, dry_run: bool = False) -> float | None:
    """When the oldest work that still goes on began (file system time, seconds), or None.

    Leases of the dead are removed on the way, but in a dry run.
    """
    now, starts = file_system_time(layout, dry_run=dry_run), []
    for alive in layout.leases.glob("*.alive"):
        started = alive.with_suffix(".start")
        with suppress(FileNotFoundError):
            silent = now - alive.stat().st_mtime
            if silent <= EXPIRE or (silent <= EXPIRE_RUNNING and _runs(alive)):
                starts.append(started.stat().st_mtime)
            elif not dry_run:
                alive.unlink()
                started.unlink()
    for started in (
        layout.leases.glob("*.start") if not dry_run else ()
    ):  # its owner was killed between making or deleting the two files
        with suppress(FileNotFoundError):
            if not started.with_suffix(".alive").exists() and now - started.stat().st_mtime > EXPIRE:
                started.unlink()
    return min(starts, default=None)


def file_system_time(layout: StoreLayout, *, dry_run: bool = False) -> float:
    """The time by the clock that stamps the store's files, in seconds.

    In a dry run it is this machine's clock where the store cannot be written to.
    """
    probe = layout.tmp / unique_name()
    try:
        with probe.open("xb") as file:
            now = os.fstat(file.fileno()).st_mtime  # of the open file: another gc may take it for litter meanwhile
    except OSError:
        if dry_run:
            return time.time()
        raise
    probe.unlink(missing_ok=True)
    return now


def _runs(alive: Path) -> bool:
    try:
        return runs(alive.stem, read_regular(alive, 200).decode()) is True
    except (OSError, UnicodeDecodeError, MalformedError):
        return False


def _renew(alive: Path, done: threading.Event) -> None:
    while not done.wait(RENEW):
        with suppress(OSError):
            os.utime(alive)
