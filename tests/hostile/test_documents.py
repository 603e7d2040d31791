"""Documents by defect: lying, ambiguous, enormous, deep. Refused with the document's name, in bounds."""

from __future__ import annotations

import json
import time
import tracemalloc

import msgspec
import pytest
from builders import SimulatedRemote, around, plan_of, replace_in_index
from faults.tally import tally

from wszoo.describe import show
from wszoo.digest import Digest
from wszoo.distribution.pull import pull
from wszoo.errors import IntegrityError, LimitError, MalformedError, NotFoundError, WszooError
from wszoo.names import Ref
from wszoo.schema.decode import MAX_DOCUMENT, MAX_MANIFEST, decode
from wszoo.schema.facts import PREFIX, PlanFacts
from wszoo.schema.model import ModelConfig
from wszoo.schema.oci import INDEX, MANIFEST, Descriptor, Index, Manifest
from wszoo.schema.plan import PlanConfig
from wszoo.store.documents import model_descriptor, plan_facts, read_asset, read_indexed_model

REF = Ref.parse("net:1")
ZERO = "sha256:" + "0" * 64
KINDS = [Index, Manifest, ModelConfig, PlanConfig, PlanFacts]
HUGE = "9" * 100_000
PLANS = 150

DEFECTS = {
    "nothing": b"",
    "null": b"null",
    "a number": b"1",
    "a text": b'"{}"',
    "NaN": b"NaN",
    "a NaN inside": b'{"schemaVersion":NaN,"family":NaN,"component":NaN}',
    "an infinity inside": b'{"schemaVersion":Infinity,"x":-Infinity}',
    "a huge number": b'{"schemaVersion":' + HUGE.encode() + b',"engine_bytes":' + HUGE.encode() + b"}",
    "a huge exponent": b'{"schemaVersion":1e999999999,"engine_bytes":1e999999999}',
    "a lone surrogate": b'{"mediaType":"\\ud800","family":"\\udfff","component":"\\ud800"}',
    "a raw surrogate": b'{"mediaType":"\xed\xa0\x80","family":"\xed\xa0\x80","component":"\xed\xa0\x80"}',
    "an overlong slash": b'{"mediaType":"\xc0\xaf","family":"\xc0\xaf","component":"\xc0\xaf"}',
    "a zero byte": b'{"mediaType":"a\x00b","family":"a\x00b","component":"a\x00b"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"schemaVersion":2}'.encode("utf-16"),
    "a second document": b"{}{}",
    "a comment": b"{/**/}",
    "a trailing comma": b'{"schemaVersion":2,}',
    "single quotes": b"{'schemaVersion':2}",
    "deep arrays": b'{"x":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
    "deep objects": b'{"x":' * 500_000 + b"1" + b"}" * 500_000,
    "unfinished depth": b"[" * 4_000_000,
    "a digest of another kind": b"sha512:" + b"0" * 128,
    "a digest in capitals": b"SHA256:" + b"A" * 64,
    "a digest that climbs": b"sha256:../../../etc/passwd",
    "a digest with a line end": b"sha256:" + b"a" * 64 + b"\\n",
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_document_with_a_defect_is_refused_soon_and_with_its_name(kind, defect):
    began = time.monotonic()
    data = DEFECTS[defect]
    if defect.startswith("a digest"):
        data = b'{"manifests":[{"mediaType":"","size":1,"digest":"%s"}],"packs":["%s"],"engine_digest":"%s"}' % (
            (data,) * 3
        )
    with pytest.raises(IntegrityError) as caught:
        decode(data, kind, what="the document")
    assert time.monotonic() - began < 5
    assert caught.value.message.startswith("the document")
    assert len(caught.value.message) < 1000
    assert not any(ord(letter) < 32 for letter in caught.value.message.replace("\n", ""))
    tally("hostile inputs: documents")


def served(origin, document, **changes):
    """A remote whose ref points to this index; the document is hashed as it is."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    entry = origin.refs.get(REF)
    descriptor = Descriptor(media_type=INDEX, digest=origin.blobs.put(data), size=len(data))
    assert origin.refs.swap(REF, descriptor, held=None, expected=entry)
    return SimulatedRemote(origin)


def index_of(origin):
    return json.loads(origin.blobs.read(origin.refs.get(REF).descriptor.digest, limit=MAX_MANIFEST))


@pytest.mark.parametrize("version", [0, 1, 3, -2, True, "2", None, 2.5, [2]])
@pytest.mark.parametrize("what", ["index", "model manifest"])
def test_a_document_of_another_schema_version_is_refused(store, origin, what, version):
    document = index_of(origin)
    if what == "index":
        document["schemaVersion"] = version
    else:
        entry = next(each for each in document["manifests"] if each["artifactType"].endswith("model.v1"))
        manifest = json.loads(origin.blobs.read(Digest(entry["digest"]), limit=MAX_MANIFEST))
        data = json.dumps({**manifest, "schemaVersion": version}).encode()
        entry.update(digest=origin.blobs.put(data), size=len(data))
    with pytest.raises(MalformedError, match="schemaVersion"):
        pull(store, served(origin, document), REF, around())
    assert store.refs.all() == []
    tally("hostile inputs: documents")


LIES = {
    "component": "other",
    "kind": "portable",
    "profiles": ["p"],
    "engine_digest": ZERO,
    "engine_bytes": 1,
    "plan_bytes": 1,
    "shared_bytes": 1,
    "plan_digest": ZERO,
    "shared_digest": None,
}


@pytest.mark.parametrize("field", LIES)
def test_annotations_that_say_other_things_than_the_plan_are_refused(store, origin, field):
    document = index_of(origin)
    for each in document["manifests"]:
        if (text := each.get("annotations", {}).get(PREFIX + "plan")) is not None:
            each["annotations"][PREFIX + "plan"] = json.dumps({**json.loads(text), field: LIES[field]})
    with pytest.raises(WszooError):
        pull(store, served(origin, document), REF, around())
    assert store.refs.all() == []
    tally("hostile inputs: documents")


@pytest.mark.parametrize(
    "change",
    [
        {"compute_capabilities": ["8.9", "../../x"]},
        {"compute_capabilities": ["9" * 5000]},
        {"compute_capabilities": ["8.x"]},
        {"compute_capabilities": [""]},
        {"compute_capabilities": ["8.9"] * 1000},
        {"version": "9" * 10_000},
        {"version": "..."},
        {"version": "\u0661.\u0662"},
        {"name": "\x1b[2J"},
        {"backend": "../../x"},
        {"hardware_compatibility": "\u202e"},
    ],
)
def test_a_target_of_nonsense_is_an_error_of_ours_or_just_does_not_fit(store, origin, change):
    def target(config):
        return msgspec.structs.replace(config, target=msgspec.structs.replace(config.target, **change))

    replace_in_index(origin, "net:1", plan_config=lambda c: target(c) if c.kind == "splice" else c)
    try:
        pull(store, SimulatedRemote(origin), REF, around())
    except WszooError as error:
        said = error.message
    else:
        said = ""
    assert "\x1b" not in said
    tally("hostile inputs: documents")


ASSETS = ["../x", "/etc/passwd", "C:\\x", "con", "a\x00b", "\x1b[2J", "\u202etxt.exe", "", ".", "..", "a" * 5000]


@pytest.mark.parametrize("name", ASSETS)
def test_an_asset_under_any_name_is_bytes_and_no_file(store, origin, name):
    def renamed(config):
        return msgspec.structs.replace(config, assets={name: next(iter(config.assets.values()))})

    replace_in_index(origin, "net:1", model_config=renamed)
    pull(store, SimulatedRemote(origin), REF, around())
    model = read_indexed_model(store, store.refs.get(REF).descriptor)
    assert read_asset(store, model, name) == b"cat\ndog\n"
    with pytest.raises(NotFoundError):
        read_asset(store, model, "no such")
    inside = {part for path in store.layout.root.rglob("*") for part in path.relative_to(store.layout.root).parts}
    assert name not in inside
    tally("hostile inputs: documents")


def bounded(seconds, mib, do):
    """Run something; its time and the memory that Python took at most."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        return do()
    finally:
        took, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert took < seconds
        assert peak < mib << 20
        tally("hostile inputs: documents")


def test_an_index_of_as_many_entries_as_fit_is_read_in_bounds():
    entry = json.dumps({"mediaType": "", "digest": ZERO, "size": 0}, separators=(",", ":"))
    count = (MAX_MANIFEST - 100) // (len(entry) + 1)
    data = ('{"schemaVersion":2,"manifests":[' + ",".join([entry] * count) + "]}").encode()
    index = bounded(20, 200, lambda: decode(data, Index, what="i", limit=MAX_MANIFEST))
    with pytest.raises(MalformedError, match="0 model manifests"):
        bounded(5, 50, lambda: model_descriptor(index))


def test_a_table_of_a_million_tensors_is_refused_by_its_size_before_it_is_parsed():
    frames = ",".join(f'"sha256:{number:064x}":[[0,0,1,1,"raw"]]' for number in range(1_000_000))
    data = ('{"family":"f","components":{},"packs":[],"frames":{' + frames + "}}").encode()
    assert len(data) > MAX_DOCUMENT
    with pytest.raises(LimitError, match="more than"):
        bounded(1, 1, lambda: decode(data, ModelConfig, what="c"))


def test_a_table_of_200_000_frames_is_read_in_bounds():
    frames = ",".join(['[0,0,1,1,"raw"]'] * 200_000)
    data = ('{"family":"f","components":{},"packs":[],"frames":{"' + ZERO + '":[' + frames + "]}}").encode()
    config = bounded(20, 120, lambda: decode(data, ModelConfig, what="c"))
    assert len(config.frames[Digest(ZERO)]) == 200_000


def test_a_million_annotations_and_keys_that_share_hashes_are_read_in_bounds():
    annotations = ",".join(f'"{number:x}":""' for number in range(400_000))
    data = ('{"schemaVersion":2,"manifests":[],"annotations":{' + annotations + "}}").encode()
    bounded(20, 300, lambda: decode(data, Index, what="i", limit=MAX_DOCUMENT))


def test_half_a_million_keys_that_nobody_reads_are_skipped_in_bounds():
    data = ("{" + ",".join(f'"{number}":[[],{{}}]' for number in range(500_000)) + "}").encode()
    bounded(20, 50, lambda: decode(data, Index, what="i", limit=MAX_DOCUMENT))


def test_duplicate_keys_do_not_smuggle_a_second_meaning_past_the_digest(store, origin):
    """The last one counts everywhere in wszoo; the digest is over both."""
    honest = json.dumps(index_of(origin))
    data = honest.replace('{"schemaVersion"', '{"manifests": [], "schemaVersion"', 1).encode()
    pull(store, served(origin, data), REF, around())
    assert store.refs.get(REF).descriptor.digest == Digest.of(data)
    data = (honest[:-1] + ', "manifests": []}').encode()
    with pytest.raises(MalformedError, match="0 model manifests"):
        pull(store, served(origin, data), REF, around())
    tally("hostile inputs: documents", 2)


def test_many_plans_without_annotations_are_described_one_at_a_time(store):
    """Each plan's documents are read, and let go, to list a model whose annotations another tool has dropped."""
    from builders import publish_model

    from wszoo.schema.decode import encode

    publish_model(store, "net:1", targets=("rtx-sm89",), width=16)
    plan = plan_of(store, "net:1", "rtx-sm89")
    entry, made = store.refs.get(REF), []
    for number in range(PLANS):
        options = {"provenance": {"number": str(number), "padding": "x" * 50_000}}
        data = encode(msgspec.structs.replace(plan.config, **options))
        config = Descriptor(media_type=plan.manifest.config.media_type, digest=store.blobs.put(data), size=len(data))
        data = encode(msgspec.structs.replace(plan.manifest, config=config))
        made.append(
            Descriptor(
                media_type=MANIFEST,
                digest=store.blobs.put(data),
                size=len(data),
                artifact_type=plan.descriptor.artifact_type,
            )
        )
    model = model_descriptor(decode(store.blobs.read(entry.descriptor.digest, limit=1 << 20), Index, what="i"))
    data = encode(Index(manifests=(model, *made)))
    descriptor = Descriptor(media_type=INDEX, digest=store.blobs.put(data), size=len(data))
    store.refs.swap(REF, descriptor, held=None, expected=entry)
    view = bounded(60, 3, lambda: show(store, REF))
    assert len(view.plans) == PLANS
    assert plan_facts(store, made[0]).component == "net"
