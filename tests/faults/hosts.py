"""A process on another host of a network file system: no locks, another host's name, and answers that get lost."""

from __future__ import annotations

import errno
import os
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def become(host, seed, loss=0.03):
    """Make this process one on ``host``; for the rest of its life.

    A client of a network file system that gets no answer asks again, and the server then does not find what it has
    renamed or deleted at the first time.
    """
    from wszoo.store import leases, presence

    for module in (leases, presence):
        module.process_space = lambda: host
    try:
        import fcntl
    except ImportError:
        pass
    else:

        def refuse(*_):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        fcntl.flock = fcntl.lockf = refuse
    rng = random.Random(seed)
    for name in ("rename", "replace", "unlink"):
        setattr(os, name, _losing(getattr(os, name), rng, loss))


def _losing(true, rng, loss):
    def call(path, *args, **kwargs):
        true(path, *args, **kwargs)
        if rng.random() < loss:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))

    return call


def live(host, seed, root, away, rounds):
    """Publish, pull, forget, verify and collect in one store, as one of several; the tags that it made."""
    from builders import SimulatedRemote, around

    from wszoo.distribution.pull import pull, select_local
    from wszoo.errors import StorageError
    from wszoo.names import Ref
    from wszoo.publish import publish, read_published
    from wszoo.store.gc import collect
    from wszoo.store.store import Store

    become(host, seed)
    store, remote = Store(Path(root)), SimulatedRemote(Store(Path(away)))
    mine = []
    for number in range(rounds):
        ref = Ref.parse(f"net:{host}-{number}")
        with store.lease():
            pull(store, remote, Ref.parse("net:1"), around("sm89"))
            found = read_published(store, Ref.parse("net:1"))
            publish(store, ref, found.model, [plan for plan in found.plans if plan.config.kind == "splice"])
        mine.append(ref.tagged)
        assert select_local(store, ref, around("sm89")).plans
        if number % 2:
            mine.remove(ref.tagged)
            while not store.refs.swap(ref, None, held=None, expected=store.refs.find(ref)):
                pass
        try:
            collect(store, grace=0)
        except StorageError as error:
            assert "No such file" in str(error)  # noqa: PT017 - a lost answer, told; nothing is lost
    return mine
