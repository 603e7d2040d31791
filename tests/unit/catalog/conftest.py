from __future__ import annotations

import msgspec
import pytest

from wszoo.names import Ref
from wszoo.publish import publish, write_model, write_plan
from wszoo.schema.plan import SPLICE
from wszoo.store.documents import read_indexed_model, read_plan

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202e\x1b[31m{{7*7}}</script>"


@pytest.fixture
def evil_store(origin):
    """A store in which ``evil:1`` has hostile text wherever a model may have text."""
    model = read_indexed_model(origin, origin.refs.get(Ref.parse("net:1")).descriptor)
    config = model.config
    (name,) = config.components
    part = config.components[name]
    named = msgspec.structs.replace(
        part,
        inputs=tuple(msgspec.structs.replace(each, name=EVIL, shape=(EVIL, 3)) for each in part.inputs),
        outputs=tuple(msgspec.structs.replace(each, name=EVIL) for each in part.outputs),
    )
    hostile = msgspec.structs.replace(
        config,
        family=EVIL,
        licence=EVIL,
        components={EVIL: named},
        assets={"card.md": origin.blobs.put(f"# {EVIL}\nsecond line".encode()), EVIL: origin.blobs.put(b"x")},
        options={EVIL: EVIL},
        provenance={EVIL: EVIL},
    )
    document = write_model(origin, hostile)
    publish(origin, Ref.parse("evil:1"), document, [plan(origin)])
    return origin


def plan(store):
    """One of the plans of ``net:1``, with hostile words in it."""
    from wszoo.store.documents import plan_descriptors, read_index

    index = read_index(store, store.refs.get(Ref.parse("net:1")).descriptor)
    found = read_plan(store, plan_descriptors(index)[-1])
    target = msgspec.structs.replace(found.config.target, name=EVIL, backend=EVIL, version=EVIL)
    config = msgspec.structs.replace(found.config, component=EVIL, target=target, kind=EVIL)
    return write_plan(store, config, [(SPLICE, found.manifest.layers[-1].digest)])
