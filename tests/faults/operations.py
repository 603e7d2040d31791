"""The operations of a store that must survive anything, each with the state that it starts from, and what must hold."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
from builders import SimulatedRemote, age, around, publish_model

from wszoo.assemble import Keep, assemble
from wszoo.digest import Digest
from wszoo.distribution.pull import pull, select_local
from wszoo.distribution.repair import repair
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.publish import publish, read_published, write_model, write_plan
from wszoo.schema.decode import MAX_DOCUMENT, decode
from wszoo.schema.oci import Index
from wszoo.store.cache import shrink_cache
from wszoo.store.engine_only import spare_packs
from wszoo.store.gc import collect
from wszoo.store.store import Store
from wszoo.store.verify import verify
from wszoo.transfer import Tuning

NET, OTHER, NEW = (Ref.parse(name) for name in ("net:1", "other:1", "new:1"))
PAYLOAD = bytes(range(256)) * 40


class Operation:
    """One operation. ``root`` is a store's folder, ``away`` that of another store, which has everything."""

    may_be_hurt = False  # it starts from damage

    def prepare(self, root, away):
        """Make the state that it starts from."""
        raise NotImplementedError

    def run(self, root, away):
        """Do it; doing it again finishes what was interrupted."""
        raise NotImplementedError

    def done(self, root):
        """What must hold when it has been done."""
        raise NotImplementedError


class Put(Operation):
    def prepare(self, root, away):
        publish_model(Store(root), "net:1", targets=("rtx-sm86",), width=16)

    def run(self, root, away):
        store = Store(root)
        with store.blobs.writer() as writer:
            for start in range(0, len(PAYLOAD), 4096):
                writer.write(PAYLOAD[start : start + 4096])
        store.blobs.put(b"small")

    def done(self, root):
        assert Store(root).blobs.read(Digest.of(PAYLOAD), limit=1 << 20) == PAYLOAD


class PutIntoNothing(Put):
    def prepare(self, root, away):
        root.mkdir()


class Pull(Operation):
    def prepare(self, root, away):
        pull(Store(root), SimulatedRemote(Store(away)), OTHER, around("none"))

    def run(self, root, away):
        tuning = Tuning(segment=4096, backoff=0.001, backoff_cap=0.01, poll=0.005)
        pull(Store(root), SimulatedRemote(Store(away)), NET, around("sm89"), tuning=tuning)

    def done(self, root):
        assert select_local(Store(root), NET, around("sm89")).plans


class Publish(Operation):
    """A model's documents and tag; the blobs are there."""

    def prepare(self, root, away):
        publish_model(Store(root), "net:1", targets=("rtx-sm86", "rtx-sm89"), width=16)

    def run(self, root, away):
        store = Store(root)
        before = read_published(store, NET)
        layers = [(layer.media_type, layer.digest) for layer in before.plans[0].manifest.layers]
        config = msgspec.structs.replace(before.model.config, licence="MIT")
        with store.lease():
            model = write_model(store, config)
            publish(store, NEW, model, [write_plan(store, before.plans[0].config, layers)])

    def done(self, root):
        assert read_published(Store(root), NEW).model.config.licence == "MIT"


class Retag(Operation):
    """A second name for a model, and the first one forgotten."""

    def prepare(self, root, away):
        publish_model(Store(root), "net:1", targets=(), width=16)

    def run(self, root, away):
        refs = Store(root).refs
        if (entry := refs.find(NET)) is not None:
            assert refs.swap(NEW, entry.descriptor, held=None, expected=refs.find(NEW))
            assert refs.swap(NET, None, held=None, expected=refs.find(NET))

    def done(self, root):
        assert [entry.ref for entry in Store(root).refs.all()] == [NEW]


class Collect(Operation):
    """Garbage, a forgotten model, what dead pulls left, an old build's record: and a model that stays."""

    def prepare(self, root, away):
        store = Store(root)
        shutil.copytree(away, root)
        for number in range(3):
            store.blobs.put(b"garbage %d" % number)
        store.refs.swap(OTHER, None, held=None, expected=store.refs.get(OTHER))
        (store.layout.tmp / "litter").write_bytes(b"x")
        (store.layout.tmp / "folder").mkdir()
        (store.layout.tmp / "folder" / "inner").write_bytes(b"x")
        (store.layout.built / f"{0:064x}.json").write_bytes(b"{}")
        store.blobs.put_aside(store.blobs.put(b"a gc was killed here"))
        age(store)
        for path in store.layout.private.rglob("*"):
            if "refs" not in path.parts:
                os.utime(path, (1, 1))

    def run(self, root, away):
        collect(Store(root), grace=-10)  # also what it takes back just before

    def done(self, root):
        store = Store(root)
        assert [entry.ref for entry in store.refs.all()] == [NET]


class Repair(Operation):
    may_be_hurt = True

    def prepare(self, root, away):
        pull(Store(root), SimulatedRemote(Store(away)), NET, around("sm89"))
        for path in sorted(Store(root).layout.blobs.iterdir())[::2]:
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    def run(self, root, away):
        report = repair(Store(root), lambda _: [SimulatedRemote(Store(away))])
        assert report.left == ()

    def done(self, root):
        assert select_local(Store(root), NET, around("sm89")).plans


class Evict(Operation):
    """An assembled plan goes; the model stays."""

    def prepare(self, root, away):
        store = Store(root)
        chosen = pull(store, SimulatedRemote(Store(away)), NET, around("sm89")).selection
        engine = assemble(store, chosen.model, chosen.plans["net"], "cuda", Silent()).engine
        for path in (engine, *store.layout.verified.iterdir()):
            os.utime(path, (1, 1))

    def run(self, root, away):
        shrink_cache(Store(root), 0)

    def done(self, root):
        assert list(Store(root).layout.engines.iterdir()) == []


class KeepEngine(Operation):
    """The weights of a pulled model go, because its assembled plan stays."""

    def prepare(self, root, away):
        pull(Store(root), SimulatedRemote(Store(away)), NET, around("sm89"))

    def run(self, root, away):
        store = Store(root)
        chosen = pull(store, SimulatedRemote(Store(away)), NET, around("sm89"), engines_only=True).selection
        assemble(store, chosen.model, chosen.plans["net"], "cuda", Silent(), keep=Keep.ENGINE)
        collect(store, grace=-10)

    def done(self, root):
        store = Store(root)
        chosen = select_local(store, NET, around("sm89"))
        assert spare_packs(store, store.refs.get(NET)) == set(chosen.model.config.packs)
        assert assemble(store, chosen.model, chosen.plans["net"], "cuda", Silent()).engine.is_file()


OPERATIONS = {
    "put": Put(),
    "put into nothing": PutIntoNothing(),
    "pull": Pull(),
    "publish": Publish(),
    "retag": Retag(),
    "gc": Collect(),
    "repair": Repair(),
    "evict": Evict(),
    "keep engine": KeepEngine(),
}


def state(root):
    """What each ref points to; raises when one cannot be read."""
    return {entry.ref.tagged: entry.descriptor.digest for entry in Store(root).refs.all()}


def check(root, operation, before, *, index=True):
    """What must hold at any moment: every ref is complete and one of those that may be, every blob matches its name."""
    now = state(root)
    if not operation.may_be_hurt:
        assert verify(Store(root)).problems == ()
    may_change = {"new:1", "net:1"} if isinstance(operation, Retag) else {"new:1"} | ({"net:1"} - before.keys())
    assert {ref: digest for ref, digest in now.items() if ref not in may_change} == {
        ref: digest for ref, digest in before.items() if ref not in may_change
    }
    if isinstance(operation, Retag):
        assert now
    path = Path(root) / "index.json"
    if index and path.exists():
        decode(path.read_bytes(), Index, what="index.json", limit=MAX_DOCUMENT)


def finish(root, away, operation):
    """Do it again after a failure, then clean up: all is well and nothing is left over."""
    store = Store(root)
    for path in store.layout.partials.glob("*.alive"):
        os.utime(path, (1, 1))  # of this very process, which could not delete it: else it is waited for, 20 seconds
    operation.run(root, away)
    operation.done(root)
    assert verify(store).problems == ()
    for path in store.layout.private.rglob("*"):
        if "refs" not in path.parts:
            os.utime(path, (1, 1))
    collect(store, grace=0)
    assert verify(store).problems == ()
    operation.done(root) if not isinstance(operation, Put) else None
    for folder in (store.layout.tmp, store.layout.leases, store.layout.partials):
        assert list(folder.iterdir()) == [], folder
