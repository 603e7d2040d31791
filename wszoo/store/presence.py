"""Who is pulling into a store now, known within seconds, so that others can go on where a dead one stopped.

Leases (``leases.py``) keep gc away and may be minutes old; here a pull that was killed should be continued at once. An
owner is a file ``wszoo/partials/<owner>.alive`` that is touched every other second. It is dead when the file is gone,
when its process is gone (looked up only where both run under one kernel and pid namespace), or when nobody has touched
the file for ``EXPIRE`` seconds. A wrong guess costs work and nothing else: nobody writes into another's file.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from enum import Enum
from typing import TYPE_CHECKING

from wszoo.errors import MalformedError
from wszoo.store.files import read_regular, storage_errors, unique_name
from wszoo.store.leases import file_system_time
from wszoo.store.processes import process_space, runs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wszoo.store.layout import StoreLayout

RENEW = 2.0  # seconds
EXPIRE = 20.0  # seconds; a process that swaps or sits on a slow network file system misses a few renewals


class State(Enum):
    """What is known about an owner."""

    ALIVE = "alive"
    SILENT = "silent"  # taken for dead, but may wake up and write into its own files
    GONE = "gone"  # will never write again


@contextmanager
def present(layout: StoreLayout) -> Iterator[str]:
    """Be an owner while the block runs; yields its name.

    Raises:
        StorageError: the file system refuses.
    """
    layout.create()
    name = unique_name()
    alive = layout.partials / f"{name}.alive"
    with storage_errors("start a pull in"):
        alive.write_text(process_space(), encoding="utf-8")
    done = threading.Event()
    renewer = threading.Thread(target=_renew, args=(alive, done), name="wszoo-present", daemon=True)
    renewer.start()
    try:
        yield name
    finally:
        done.set()
        renewer.join()
        with suppress(OSError):
            alive.unlink()


def state(layout: StoreLayout, owner: str) -> State:
    """Whether an owner is alive."""
    path = layout.partials / f"{owner}.alive"
    try:
        space, touched = read_regular(path, 200).decode(), path.stat().st_mtime
    except (OSError, UnicodeDecodeError, MalformedError):
        return State.GONE
    if runs(owner, space) is False:
        return State.GONE
    return State.SILENT if file_system_time(layout) - touched > EXPIRE else State.ALIVE


def _renew(alive: Path, done: threading.Event) -> None:
    while not done.wait(RENEW):
        with suppress(OSError):
            os.utime(alive)
