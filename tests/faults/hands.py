"""Processes that do to a store what they are told, one thing at a time each, for as long as the tests run."""

from __future__ import annotations

import multiprocessing
import traceback
from pathlib import Path

COUNT = 3


class Hands:
    """Several processes."""

    def __init__(self, count=COUNT):
        context = multiprocessing.get_context("spawn")
        self._pipes = []
        for _ in range(count):
            mine, theirs = context.Pipe()
            context.Process(target=_serve, args=(theirs,), daemon=True).start()
            self._pipes.append(mine)

    def start(self, hand, operation, root, *arguments):
        """Tell one to do something."""
        self._pipes[hand].send((operation, str(root), *arguments))

    def answer(self, hand):
        """What came of it."""
        assert self._pipes[hand].poll(60), "a process is stuck"
        failed, value = self._pipes[hand].recv()
        assert not failed, value
        return value

    def ask(self, hand, operation, root, *arguments):
        """Both."""
        self.start(hand, operation, root, *arguments)
        return self.answer(hand)


def _serve(pipe):
    while True:
        try:
            operation, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((False, OPERATIONS[operation](*arguments)))
        except Exception:  # noqa: BLE001 - told to who asked
            pipe.send((True, traceback.format_exc()))


def write(root, layers):
    """An index of one manifest with these layers: its descriptor, and the digests that it needs."""
    from wszoo.schema.decode import encode
    from wszoo.schema.oci import INDEX, MANIFEST, Descriptor, Index, Manifest
    from wszoo.store.store import Store

    store = Store(Path(root))

    def blob(data, media_type="m"):
        return Descriptor(media_type=media_type, digest=store.blobs.put(data), size=len(data))

    config, made = blob(b"{}"), tuple(map(blob, layers))
    manifest = blob(encode(Manifest(artifact_type="a", config=config, layers=made)), MANIFEST)
    index = blob(encode(Index(manifests=(manifest,))), INDEX)
    return index, {each.digest for each in (index, manifest, config, *made)}


def publish(root, tag, layers):
    """Point a tag at something new, whatever it pointed to."""
    from wszoo.names import Ref
    from wszoo.store.store import Store

    store, ref = Store(Path(root)), Ref.parse(tag)
    with store.lease():
        descriptor, needed = write(root, layers)
        while not store.refs.swap(ref, descriptor, held=None, expected=store.refs.find(ref)):
            pass
    return descriptor, needed


def delete(root, tag):
    """Forget a tag."""
    from wszoo.names import Ref
    from wszoo.store.store import Store

    refs, ref = Store(Path(root)).refs, Ref.parse(tag)
    while not refs.swap(ref, None, held=None, expected=refs.find(ref)):
        pass


def look(root, tag):
    """A tag's entry."""
    from wszoo.names import Ref
    from wszoo.store.store import Store

    return Store(Path(root)).refs.find(Ref.parse(tag))


def swap(root, tag, layers, entry):
    """Change a tag unless it has changed; whether it was, and what it should point to then."""
    from wszoo.names import Ref
    from wszoo.store.store import Store

    descriptor, needed = write(root, layers)
    done = Store(Path(root)).refs.swap(Ref.parse(tag), descriptor, held=None, expected=entry)
    return done, descriptor, needed


def litter(root, data):
    """A blob that nothing reaches."""
    from wszoo.store.store import Store

    return Store(Path(root)).blobs.put(data)


def gc(root, grace):
    """Collect; what went."""
    from wszoo.store.gc import collect
    from wszoo.store.store import Store

    return set(collect(Store(Path(root)), grace=grace).deleted)


def damage(root, digest):
    """Change a blob's bytes and nothing else."""
    import os

    from wszoo.store.store import Store

    path = Store(Path(root)).blobs.path(digest)
    status = path.stat()
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()) or b"x")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def problems(root, quarantine=False):
    """What verify finds: the names of the files."""
    from wszoo.store.store import Store
    from wszoo.store.verify import verify

    return {Path(each.path).name for each in verify(Store(Path(root)), quarantine=quarantine).problems}


OPERATIONS = {each.__name__: each for each in (write, publish, delete, look, swap, litter, gc, damage, problems)}
