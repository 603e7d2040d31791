"""Properties of names and documents: what is written can be read, and garbage gives typed errors."""

from __future__ import annotations

import re
import string
from contextlib import suppress
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from wszoo.digest import Digest
from wszoo.errors import IntegrityError, MalformedError, UsageError, WszooError
from wszoo.names import Ref, TargetSpec, is_portable_file_name
from wszoo.schema.decode import decode, encode
from wszoo.schema.facts import facts_of, from_annotations, to_annotations
from wszoo.schema.model import Component, Frame, Graph, ModelConfig, TensorInfo, Value
from wszoo.schema.oci import Descriptor, Index, Manifest
from wszoo.schema.plan import HardwareCompatibility, Kind, PlanConfig, Profile, ShapeRange, Target
from wszoo.store.layout import StoreLayout
from wszoo.store.refs import RefRecord

GOLDEN = Path(__file__).parents[1] / "golden" / "store-v1"

digests = st.binary(max_size=4).map(Digest.of)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
sizes = st.integers(0, (1 << 62) - 1)
dimensions = st.integers(0, (1 << 48) - 1)
component = st.from_regex(r"[a-z0-9]{1,3}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}", fullmatch=True)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,12}", fullmatch=True)
refs = st.builds(Ref, st.lists(component, min_size=1, max_size=3).map("/".join), tags, st.none() | digests)


@given(refs)
def test_a_ref_that_is_printed_parses_to_itself(ref):
    assert Ref.parse(str(ref)) == ref
    assert Ref.parse(ref.tagged) == ref.unpinned


@given(st.text(max_size=40) | st.text("ab.:/@-_ \n", max_size=12))
@example("a" * 50_000 + "!")
@example("a-" * 50_000)
def test_any_text_is_a_ref_that_prints_as_it_was_given_or_is_refused(text):
    try:
        ref = Ref.parse(text)
    except (UsageError, MalformedError):
        return
    assert str(ref) in {text, f"{text}:latest", text.replace("@", ":latest@")}
    assert is_portable_file_name(ref.tag) or ref.tag.endswith(".") or not ref.tag.isascii() or is_reserved(ref.tag)


def is_reserved(tag):
    return re.match(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\.|$)", tag) is not None


@given(
    st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
    st.sets(st.integers(10, 999), max_size=4),
    st.booleans(),
)
def test_a_target_that_is_printed_parses_to_itself(prefix, numbers, plus):
    text = "-".join([prefix, *(f"sm{number}" for number in sorted(numbers))]) + "+" * plus
    spec = TargetSpec.parse(text)
    assert str(spec) == text
    assert TargetSpec.parse(str(spec)) == spec
    assert len(spec.compute_capabilities) == len(numbers)


@given(st.text(string.ascii_lowercase + string.digits + "-+sm_\uff18", max_size=20))
def test_any_text_is_a_target_that_prints_the_same_or_is_refused(text):
    with suppress(UsageError):
        spec = TargetSpec.parse(text)
        assert TargetSpec.parse(str(spec)) == spec
        assert str(spec).isascii()


@given(st.text(max_size=300))
def test_portable_names_never_raise_and_never_leave_their_folder(name):
    if is_portable_file_name(name):
        assert (Path("/folder") / name).parent == Path("/folder")
        assert len(name.encode()) <= 255


@given(st.text(max_size=80) | st.text("sha256:/.0123456789abcdefABCDEF\n", max_size=80))
def test_any_text_is_a_digest_inside_the_blobs_or_refused(text):
    try:
        digest = Digest(text)
    except MalformedError:
        assert not (text.startswith("sha256:") and len(text) == 71 and set(text[7:]) <= set("0123456789abcdef"))
    else:
        assert StoreLayout(Path("/store")).blob(digest).parent == Path("/store/blobs/sha256")


annotations = st.dictionaries(texts, texts, max_size=3)
descriptors = st.builds(
    Descriptor, media_type=texts, digest=digests, size=sizes, annotations=annotations, artifact_type=texts
)
targets = st.builds(
    Target,
    name=texts,
    backend=texts,
    version=texts,
    compute_capabilities=st.lists(texts, max_size=2).map(tuple),
    hardware_compatibility=st.sampled_from(HardwareCompatibility),
    version_compatible=st.booleans(),
)
shapes = st.lists(dimensions, max_size=3).map(tuple)
profiles = st.builds(
    Profile,
    name=texts,
    inputs=st.dictionaries(texts, st.builds(ShapeRange, min=shapes, opt=shapes, max=shapes), max_size=2),
)
values = st.builds(Value, name=texts, dtype=texts, shape=st.lists(dimensions | texts, max_size=3).map(tuple))
frames = st.builds(Frame, pack=st.integers(0, 9), offset=sizes, stored=sizes, raw=sizes, codec=texts)
graphs = st.builds(Graph, digest=digests, size=sizes, layer=digests)
infos = st.builds(TensorInfo, name=texts, dtype=texts, shape=shapes, digest=digests)
components = st.builds(
    Component,
    graph=graphs,
    inputs=st.lists(values, max_size=2).map(tuple),
    outputs=st.lists(values, max_size=2).map(tuple),
    tensors=st.lists(infos, max_size=2).map(tuple),
)
plan_configs = st.builds(
    PlanConfig,
    component=texts,
    target=targets,
    kind=st.sampled_from(Kind),
    profiles=st.lists(profiles, max_size=2).map(tuple),
    engine_digest=digests,
    engine_bytes=sizes,
    graph=digests,
    weights=digests,
    provenance=annotations,
)
documents = st.one_of(
    st.builds(Index, manifests=st.lists(descriptors, max_size=3).map(tuple), annotations=annotations),
    st.builds(Manifest, artifact_type=texts, config=descriptors, layers=st.lists(descriptors, max_size=2).map(tuple)),
    plan_configs,
    st.builds(
        ModelConfig,
        family=texts,
        components=st.dictionaries(texts, components, max_size=2),
        packs=st.lists(digests, max_size=2).map(tuple),
        frames=st.dictionaries(digests, st.lists(frames, max_size=2).map(tuple), max_size=2),
        assets=st.dictionaries(texts, digests, max_size=2),
        options=annotations,
    ),
    st.builds(RefRecord, ref=texts, descriptor=st.none() | descriptors, held=st.none() | st.tuples(digests)),
)


@settings(max_examples=150, deadline=None)
@given(documents)
def test_every_document_is_read_back_as_it_was_and_written_to_the_same_bytes(document):
    data = encode(document)
    again = decode(data, type(document), what="it")
    assert again == document
    assert encode(again) == data


@settings(deadline=None)
@given(
    plan_configs,
    st.lists(st.builds(Descriptor, media_type=texts, digest=digests, size=dimensions), min_size=1, max_size=2),
)
def test_facts_of_any_plan_survive_annotations(config, layers):
    facts = facts_of(config, tuple(layers))
    described = Descriptor(media_type="m", digest=layers[0].digest, size=0, annotations=to_annotations(facts))
    assert from_annotations(described) == facts


GOLDEN_DOCUMENTS = [
    data
    for path in sorted(GOLDEN.rglob("*"))
    if path.is_file() and (data := path.read_bytes()).startswith(b"{") and data.endswith(b"}")
]


def test_there_are_golden_documents_to_damage():
    assert len(GOLDEN_DOCUMENTS) >= 11


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(GOLDEN_DOCUMENTS),
    st.sampled_from([Index, Manifest, ModelConfig, PlanConfig, RefRecord]),
    st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=3), st.integers(0, 4)), min_size=1, max_size=4),
)
def test_a_damaged_document_gives_a_document_or_a_typed_error(data, kind, changes):
    for number, put, cut in changes:
        at = number % (len(data) + 1)
        data = data[:at] + put + data[at + cut :]
    with suppress(IntegrityError):
        document = decode(data, kind, what="the document")
        assert decode(encode(document), kind, what="it") == document


@settings(deadline=None)
@given(texts)
def test_facts_that_are_any_text_give_facts_or_a_typed_error(text):
    described = Descriptor(media_type="m", digest=Digest.of(b""), size=0, annotations={"org.wszoo.plan": text})
    with suppress(WszooError):
        from_annotations(described)
