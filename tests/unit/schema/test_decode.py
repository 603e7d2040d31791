"""The boundary where JSON becomes typed objects: bounded, and errors that name the field."""

from __future__ import annotations

import json

import pytest

from wszoo.digest import Digest
from wszoo.errors import LimitError, MalformedError
from wszoo.schema.decode import MAX_MANIFEST, decode, encode, to_builtins
from wszoo.schema.model import ModelConfig
from wszoo.schema.oci import Descriptor, Index, Manifest
from wszoo.schema.plan import PlanConfig

D = "sha256:" + "0" * 64
DESCRIPTOR = {"mediaType": "a/b", "digest": D, "size": 1}
PLAN = {
    "component": "net",
    "target": {"name": "t", "backend": "b"},
    "kind": "splice",
    "engine_digest": D,
    "engine_bytes": 1,
    "graph": D,
    "weights": D,
}
MODEL = {"family": "f", "components": {}, "packs": [], "frames": {}}


def raw(document, **changes):
    return json.dumps({**document, **changes}).encode()


def test_a_document_over_its_limit_is_refused_before_it_is_parsed():
    with pytest.raises(LimitError, match=r"the index has 4194305 bytes, more than the 4194304"):
        decode(b"[" * (MAX_MANIFEST + 1), Index, what="the index", limit=MAX_MANIFEST)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'], ids=["arrays", "objects"])
@pytest.mark.parametrize("field", [b"x", b"manifests", b"annotations"])
def test_deep_nesting_is_refused_also_in_fields_that_nobody_reads(opening, field):
    closing = b"]" if opening == b"[" else b"}"
    deep = b'{"' + field + b'":' + opening * 200_000 + b"1" + closing * 200_000 + b"}"
    with pytest.raises((LimitError, MalformedError)) as caught:
        decode(deep, Index, what="the index")
    assert "the index" in caught.value.message
    if field == b"x":
        assert isinstance(caught.value, LimitError)


@pytest.mark.parametrize(
    ("kind", "data", "where"),
    [
        (Index, raw({}, schemaVersion="2"), "$.schemaVersion"),
        (Index, raw({}, schemaVersion=1), "$.schemaVersion"),
        (Manifest, raw({"artifactType": "a", "config": DESCRIPTOR, "layers": []}, schemaVersion=3), "$.schemaVersion"),
        (Index, raw({}, schemaVersion=2.0), "$.schemaVersion"),
        (Index, raw({}, manifests=[DESCRIPTOR, {**DESCRIPTOR, "size": -1}]), "$.manifests[1].size"),
        (Index, raw({}, manifests=[{**DESCRIPTOR, "size": 1 << 62}]), "$.manifests[0].size"),
        (Index, raw({}, manifests=[{**DESCRIPTOR, "digest": "sha256:../../x"}]), "$.manifests[0].digest"),
        (Index, raw({}, manifests=[{"mediaType": "a", "size": 1}]), "`digest` - at `$.manifests[0]`"),
        (Index, raw({}, annotations={"a": 1}), "$.annotations"),
        (Manifest, raw({"artifactType": "a", "config": DESCRIPTOR, "layers": [1]}), "$.layers[0]"),
        (Manifest, raw({"config": DESCRIPTOR, "layers": []}), "artifactType"),
        (PlanConfig, raw(PLAN, kind=7), "$.kind"),
        (PlanConfig, raw(PLAN, engine_bytes=True), "$.engine_bytes"),
        (PlanConfig, raw(PLAN, profiles=[{"name": "p", "inputs": {"x": {"min": [1]}}}]), "$.profiles[0].inputs"),
        (ModelConfig, raw(MODEL, packs=["x"]), "$.packs[0]"),
        (ModelConfig, raw(MODEL, frames={"sha256:../x": []}), "`key` in `$.frames`"),
        (ModelConfig, raw(MODEL, frames={D: [[0, 0, 1, -1, "raw"]]}), "$.frames[...][0][3]"),
        (ModelConfig, raw(MODEL, frames={D: [[0, 0, 1]]}), "$.frames[...][0]"),
        (
            ModelConfig,
            b'{"family":"f","components":{},"packs":[],"frames":{},"options":{"a":NaN}}',
            "invalid character",
        ),
        (Index, b'{"schemaVersion":' + b"9" * 5000 + b"}", "$.schemaVersion"),
        (Index, b'{"schemaVersion":1e400}', "$.schemaVersion"),
        (Index, b'{"mediaType":"\xff"}', "utf-8"),
        (Index, b'{"annotations":{"\xff":""}}', "utf-8"),
        (Index, b'{"mediaType":"\\ud800"}', "truncated"),
        (Index, b"\xef\xbb\xbf{}", "byte 0"),
        (Index, b"{} {}", "trailing"),
        (Index, b"", "truncated"),
        (Index, b"null", "`object`"),
        (Index, b"[]", "`object`"),
    ],
)
def test_a_malformed_document_is_refused_with_the_place(kind, data, where):
    with pytest.raises(MalformedError) as caught:
        decode(data, kind, what="the thing")
    assert caught.value.message.startswith("the thing is malformed: ")
    assert where in caught.value.message
    assert caught.value.hint


def test_a_huge_value_does_not_make_a_huge_message():
    with pytest.raises(MalformedError) as caught:
        decode(raw(PLAN, engine_digest="\x1b[31m" * 100_000), PlanConfig, what="the config")
    assert len(caught.value.message) < 1000
    assert "\x1b" not in caught.value.message


def test_unknown_fields_are_ignored_whatever_they_hold():
    index = decode(raw({}, manifests=[{**DESCRIPTOR, "platform": {"os": [1, 2.5, None]}}], x=1e5), Index, what="i")
    assert index.manifests == (Descriptor(media_type="a/b", digest=Digest(D), size=1),)


def test_of_duplicate_keys_the_last_counts_in_fields_and_in_maps():
    assert decode(b'{"mediaType":"a","mediaType":"b"}', Index, what="i").media_type == "b"
    assert decode(b'{"annotations":{"a":"1","a":"2"}}', Index, what="i").annotations == {"a": "2"}


def test_decoded_digests_are_digests_also_as_keys():
    config = decode(raw(MODEL, packs=[D], frames={D: [[0, 0, 1, 1, "raw"]]}), ModelConfig, what="m")
    assert type(config.packs[0]) is Digest
    assert [type(key) for key in config.frames] == [Digest]


def test_encoding_does_not_depend_on_the_order_of_insertion():
    one = Index(annotations={"b": "1", "a": "2"})
    two = Index(annotations={"a": "2", "b": "1"})
    assert encode(one) == encode(two)
    assert encode(one).index(b'"a"') < encode(one).index(b'"b"')


def test_default_fields_of_descriptors_are_left_out():
    assert json.loads(encode(Descriptor(media_type="a", digest=Digest(D), size=0))) == {
        "mediaType": "a",
        "digest": D,
        "size": 0,
    }


def test_builtins_for_json_output_hold_plain_strings():
    plain = to_builtins({"digest": Digest(D)})
    assert type(plain["digest"]) is str


def test_bytes_that_are_mapped_can_be_decoded():
    assert decode(memoryview(b"{}"), Index, what="i") == Index()
