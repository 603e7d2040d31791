"""What tests run in other processes: top-level functions, so that ``multiprocessing``'s spawn can find them."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path


def together(function, arguments, timeout=60):
    """Run ``function(*each)`` for each of ``arguments``, a process each, at once; their results in order."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(len(arguments), initializer=_ready, initargs=(context.Barrier(len(arguments)),)) as pool:
        return pool.starmap_async(function, arguments, chunksize=1).get(timeout)


_barrier = None


def _ready(barrier):
    global _barrier  # noqa: PLW0603 - one value a process, set by the pool
    _barrier = barrier


def _meet():
    if _barrier is not None:
        _barrier.wait(30)


def put_blob(root, data, times):
    """Store the same bytes again and again."""
    from wszoo.store.store import Store

    store = Store(Path(root))
    _meet()
    return {str(store.blobs.put(data)) for _ in range(times)}


def append_plans(root, tag, worker, times):
    """Add digests to what a ref holds, one at a time; how often another process was first."""
    from wszoo.digest import Digest
    from wszoo.names import Ref
    from wszoo.schema.oci import INDEX, Descriptor
    from wszoo.store.store import Store

    store, ref, lost = Store(Path(root)), Ref.parse(tag), 0
    descriptor = Descriptor(media_type=INDEX, digest=Digest.of(b"index"), size=5)
    _meet()
    for number in range(times):
        mine = Digest.of(f"{worker} {number}".encode())
        while True:
            entry = store.refs.find(ref)
            held = {mine, *(entry.held or ())} if entry else {mine}
            if store.refs.swap(ref, descriptor, held=tuple(sorted(held)), expected=entry):
                break
            lost += 1
    return lost


def publish_tags(root, worker, times):
    """Make refs of this worker's own, so that only ``index.json`` is contended."""
    from wszoo.digest import Digest
    from wszoo.names import Ref
    from wszoo.schema.oci import INDEX, Descriptor
    from wszoo.store.store import Store

    store = Store(Path(root))
    _meet()
    for number in range(times):
        descriptor = Descriptor(media_type=INDEX, digest=Digest.of(f"{worker}{number}".encode()), size=1)
        assert store.refs.swap(Ref.parse(f"m:{worker}-{number}"), descriptor, held=None, expected=None)


def publish_target(root, tag, target):
    """Publish one more plan of the same model."""
    from builders import publish_model

    from wszoo.store.store import Store

    store = Store(Path(root))
    _meet()
    return str(publish_model(store, tag, targets=(target,), portable=False).digest)


def pull_model(root, origin, tag, gpu, times=1):
    """Pull, delete the ref, pull again; each time assemble and check. The engines' digests."""
    from builders import SimulatedRemote, around

    from wszoo.assemble import assemble
    from wszoo.digest import Digest
    from wszoo.distribution.pull import pull
    from wszoo.names import Ref
    from wszoo.progress import Silent
    from wszoo.store.store import Store

    store, ref, found = Store(Path(root)), Ref.parse(tag), set()
    _meet()
    for _ in range(times):
        # A lease over both, as a program that pulls and then runs holds: gc in between would be within its rights.
        with store.lease():
            selection = pull(store, SimulatedRemote(Store(Path(origin))), ref, around(gpu)).selection
            engine = assemble(store, selection.model, selection.plans["net"], "cuda", Silent()).engine
            found.add(str(Digest.of_file(engine)))
            if times > 1:
                store.refs.swap(ref, None, held=None, expected=store.refs.find(ref))
    return found


def collect_until(root, stop):
    """Run gc without any grace until a file appears; how many blobs went."""
    from wszoo.store.gc import collect
    from wszoo.store.store import Store

    store, gone = Store(Path(root)), 0
    _meet()
    while not Path(stop).exists():
        gone += len(collect(store, grace=0).deleted)
    return gone


def pull_or_collect(kind, *arguments):
    """Pulls and one gc in one pool."""
    return pull_model(*arguments) if kind == "pull" else collect_until(*arguments)


def hold_lease(root, ready):
    """Take a lease, write a blob, say so, and wait to be killed."""
    from wszoo.store.store import Store

    store = Store(Path(root))
    with store.lease():
        store.blobs.put(b"not reachable yet")
        Path(ready).touch()
        time.sleep(60)


def write_forever(root, ready):
    """Write a blob that never ends, and wait to be killed."""
    from wszoo.store.store import Store

    with Store(Path(root)).blobs.writer() as writer:
        writer.write(bytes(1 << 20))
        Path(ready).touch()
        time.sleep(60)


def pack_file(root, path, rows):
    """Pack a mapped file of float32 rows; by how many bytes the process grew at most."""
    import numpy as np

    from wszoo.progress import Silent
    from wszoo.store.store import Store
    from wszoo.weights.packs import Packer
    from wszoo.weights.tensor import DTYPES, Tensor

    def private():
        fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["RssAnon"].split()[0]) << 10

    def peak(part):
        seen.append(private())
        return part

    store, seen = Store(Path(root)), [private()]
    before = seen[0]
    mapped = np.memmap(path, np.uint8, "r")
    tensor = Tensor("w", DTYPES["float32"], (rows, 1024), lambda: mapped)

    class Watch(Silent):
        def stage(self, label, total=None, unit="B"):
            from contextlib import nullcontext

            return nullcontext(peak)

    packer = Packer(store.blobs, {})
    packer.add([tensor], Watch())
    return max(seen) - before, len(packer.table().packs)


def own_pid(_):
    """Which process runs this."""
    return os.getpid()


def divide(by):
    """Raise, when ``by`` is 0."""
    return 1 / by


def crash(text):
    """Print as native code does, and die."""
    os.write(2, text.encode())
    os.abort()


def sleep(path):
    """Say that it runs, and go on for a minute."""
    Path(path).touch()
    time.sleep(60)


def count_running(folder):
    """How many of its kind ran at the same time as this one."""
    Path(folder).mkdir(exist_ok=True)
    mine, most = Path(folder, str(os.getpid())), 0
    mine.touch()
    end = time.monotonic() + 2
    while time.monotonic() < end and most < 2:
        most = max(most, len(list(Path(folder).iterdir())))
        time.sleep(0.01)
    time.sleep(0.1)
    mine.unlink()
    return most


def drive(root, remote, source, target):
    """Build one target of a model and push it: one driver of several."""
    from zoos import job

    from wszoo.fleet.publishing import Settings
    from wszoo.fleet.run import build_matrix
    from wszoo.places import open_for_push
    from wszoo.plugins import registry
    from wszoo.progress import Silent
    from wszoo.store.store import Store

    settings = Settings(executor="inline", remote=open_for_push(remote))
    _meet()
    return build_matrix(Store(Path(root)), registry(), [job("one:1", Path(source), target)], settings, Silent()).failed


def build_on_gpu(root, remote, target):
    """Add a plan for a GPU that only this test has to what a remote has: one build farm of one, of several."""
    from wszoo.fleet import on_gpu
    from wszoo.fleet.publishing import Settings
    from wszoo.gpu.machine import Gpu, Machine
    from wszoo.names import Ref, TargetSpec
    from wszoo.places import open_for_push
    from wszoo.plugins import registry
    from wszoo.progress import Silent
    from wszoo.store.store import Store

    gpu = Gpu(name="a GPU that is not there", compute_capability="8.9")
    on_gpu.detect = lambda: Machine(os="linux", arch="x86_64", gpus=(gpu,))
    settings = Settings(executor="inline", remote=open_for_push(remote))
    specs = [TargetSpec.parse(target)]
    _meet()
    report = on_gpu.build_on_this_gpu(
        Store(Path(root)), registry(), Ref.parse("net:1"), settings, Silent(), targets=specs
    )
    return report.failed
