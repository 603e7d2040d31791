"""What is fuzzed: every parser that reads bytes from a remote, as a function of bytes.

Each returns, or raises a :class:`wszoo.errors.WszooError`; anything else is a finding. Where bytes are pinned by a
digest, each also asserts that no other bytes are taken for them.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

MAX_TENSOR = 1 << 20  # bytes: larger ones are refused or read alike, and take time
MAX_PLAN = 1 << 20


def decoded(data, kind, **options):
    """Decode, and look that encoding and decoding again gives the same."""
    from wszoo.schema.decode import decode, encode

    found = decode(data, kind, what="the input", **options)
    assert decode(encode(found), kind, what="again") == found
    return found


def index(data):
    from wszoo.schema.decode import MAX_MANIFEST
    from wszoo.schema.facts import from_annotations
    from wszoo.schema.oci import Index
    from wszoo.store.documents import model_descriptor, plan_descriptors

    found = decoded(data, Index, limit=MAX_MANIFEST)
    for each in plan_descriptors(found):
        from_annotations(each)
    model_descriptor(found)


def layout_index(data):
    from wszoo.names import Ref
    from wszoo.remotes.layout_index import decode_layout_index, find, refs_of

    found = decode_layout_index(data, "x")
    for ref in refs_of(found):
        find(found, ref, "x")
    find(found, Ref.parse("net:1"), "x")


def manifest(data):
    from wszoo.schema.decode import MAX_MANIFEST
    from wszoo.schema.oci import Manifest

    decoded(data, Manifest, limit=MAX_MANIFEST)


def record(data):
    from wszoo.store.refs import RefRecord

    decoded(data, RefRecord)


def substitute(data):
    from wszoo.store.substitutes import Substitute

    decoded(data, Substitute).blobs()


def plan_config(data):
    from wszoo.names import capability_key
    from wszoo.schema.plan import PlanConfig

    found = decoded(data, PlanConfig)
    for each in found.target.compute_capabilities:
        if all(part.isdecimal() for part in each.split(".")):
            capability_key(each)


def model_config(data):
    """Also reads its tensors, from a pack that is really there."""
    from wszoo.schema.model import ModelConfig
    from wszoo.weights.located import known_tensors
    from wszoo.weights.packs import PackReader, weights_digest

    found = decoded(data, ModelConfig)
    store, pack = _store()
    here = msgspec.structs.replace(found, packs=(pack,) * len(found.packs))
    known_tensors([here])
    for name, component in here.components.items():
        weights_digest(component.tensors)
        for info, tensor in zip(
            component.tensors, PackReader(store.blobs, here, verify=True).component(name), strict=True
        ):
            if tensor.nbytes <= MAX_TENSOR and sum(f.raw for f in here.frames[info.digest]) <= MAX_TENSOR:
                assert tensor.load().size == tensor.nbytes


def frame(data):
    """A frame of a pack: the first byte is the codec, the next three the size that is declared."""
    from wszoo.codecs import frames

    codec = ["raw", "zstd", "zstd+bytes2", "zstd+bytes4", "zstd+bytes8", "zip"][data[0] % 6] if data else "raw"
    frames.decode(codec, np.frombuffer(data[4:], np.uint8), np.empty(int.from_bytes(data[1:4], "little"), np.uint8))


def splice_container(data):
    """The first byte: with a base or without; the rest is the blob, or the base."""
    from wszoo.plans.splice import unpack, unpack_base

    _, _, body = _splice()
    if data[:1] == b"b":
        assert len(unpack_base(data[1:], max_size=MAX_PLAN)) <= MAX_PLAN
    else:
        assert len(unpack(data[1:], max_size=MAX_PLAN, base=body if data[:1] == b"d" else None)) <= MAX_PLAN


def splice_lines(data):
    """The first byte: a renaming or lines, without the compression around them; what is accepted survives both ways."""
    from wszoo.plans.splice.columns import Cursor
    from wszoo.plans.splice.lines import Lines
    from wszoo.plans.splice.renaming import Renaming

    cursor = Cursor(data[1:])
    if data[:1] == b"r":
        renaming = Renaming.read(cursor)
        assert len(renaming.of(Lines.of(_splice()[2])).numbers)
        return
    body = Lines.read(cursor, max_size=MAX_PLAN).body(max_size=MAX_PLAN)
    assert len(body) <= MAX_PLAN
    assert Lines.of(body).body(max_size=len(body)) == body


def splice_program(data):
    """Parses a program and runs it; only the honest plan has the honest digest."""
    from wszoo.plans.splice import Program, apply
    from wszoo.tree import leaf, tree_digest

    tensors, plan, _ = _splice()
    program = Program.from_bytes(data, tensors, plan_size=len(plan))
    made = []
    found = apply(program, tensors, lambda window: made.append(bytes(window)))
    out = b"".join(made)
    assert len(out) == len(plan)
    assert (found == tree_digest([leaf(plan)])) == (out == plan.tobytes())


def graph(data):
    """A graph that came with a model: what a client does with it before a runtime sees it."""
    import onnx

    from wszoo.backends.initializers import split
    from wszoo.weights.apart import Graph
    from wszoo.weights.foreign import parse_model
    from wszoo.weights.graph import attach, graph_from_model, scalars
    from wszoo.weights.tensor import DTYPES, Tensor

    flat = np.zeros(64 * 64 * 4, np.uint8)
    tensors = {name: Tensor(name, DTYPES["float32"], (64, 64), lambda: flat) for name in ("w", "v")}
    model = parse_model(data)
    for use in (
        lambda: split(Graph(data, tuple(tensors.values()), (), ())),
        lambda: attach(data, tensors),
        lambda: scalars(data),
        lambda: graph_from_model(onnx.ModelProto.FromString(model.SerializeToString())),
    ):
        _tried(use)


def names(data):
    from wszoo.digest import Digest
    from wszoo.names import Ref, TargetSpec, is_portable_file_name

    text = data.decode("utf-8", "surrogateescape")
    _tried(lambda: Ref.parse(text))
    _tried(lambda: TargetSpec.parse(text))
    is_portable_file_name(text)
    digest = Digest(text)
    assert len(digest.hex) == 64
    assert set(digest.hex) <= set("0123456789abcdef")


def refit_map(data):
    """What tells which tensor goes where in a native plan."""
    from wszoo.plans.native import check_map
    from wszoo.schema.refit import RefitMap

    check_map(decoded(data, RefitMap), _splice()[0])


def envelope(data):
    """A signature: no payload but the signed one is handed on."""
    from wszoo.schema.trust import decode_statement
    from wszoo.trust.envelope import verified_payload

    key, signed = _signed()
    payload, by = verified_payload(data, [key], "the input")
    assert by == key
    assert payload == signed
    decode_statement(payload, "the input")


def statement(data):
    from wszoo.schema.trust import Statement, decode_statement

    decode_statement(data, "the input")
    decoded(data, Statement)


def signature_manifest(data):
    from wszoo.schema.trust import decode_signature_manifest

    decode_signature_manifest(data, "the input")


def runtime_cache(data):
    """What a runtime cache that travels with a model says of itself."""
    from wszoo.schema.runtime_cache import RuntimeCacheFacts

    assert len(decoded(data, RuntimeCacheFacts).slot) == 4


def registry(data):
    """What a registry and its token server answer besides manifests."""
    from wszoo.remotes.registry_documents import Token, string_list

    decoded(data, Token)
    for field in ("tags", "repositories"):
        assert all(isinstance(each, str) for each in string_list(data, field, "the input"))


def lock(data):
    from wszoo.schema.lock import decode_lock

    for model in decode_lock(data, "the input").models:
        for plan in model.plans:
            list(plan.blobs())


def seed_envelope():
    """The envelope that :func:`envelope` knows the key of."""
    from datetime import UTC, datetime

    from securesystemslib.signer import CryptoSigner

    from wszoo.digest import Digest
    from wszoo.schema.trust import Release
    from wszoo.trust.envelope import sign_statement
    from wszoo.trust.keys import public_of

    release = Release(name="net", tag="1", release=1, expires=datetime(2040, 1, 1, tzinfo=UTC))
    key = public_of(_private())
    return sign_statement(release, Digest.of(b"index"), CryptoSigner(_private(), key.verifier()))


def _private():
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(bytes(32))


@functools.cache
def _signed():
    from wszoo.schema.trust import decode_envelope
    from wszoo.trust.keys import public_of

    return public_of(_private()), decode_envelope(seed_envelope(), "the seed").payload


def _tried(use):
    from wszoo.errors import WszooError

    with suppress(WszooError):
        use()


@functools.cache
def _store():
    """A store with the model that the seeds are made of, and its pack."""
    from builders import publish_model

    from wszoo.store.documents import read_indexed_model
    from wszoo.store.store import Store

    folder = Path(tempfile.mkdtemp(prefix="wszoo-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    store = Store(folder)
    return store, read_indexed_model(store, publish_model(store, "net:1", width=16)).config.packs[0]


@functools.cache
def _splice():
    """Tensors, a plan that holds them, and its program."""
    from wszoo.plans.splice.encode import encode
    from wszoo.weights.tensor import DTYPES, Tensor

    rng, tensors = np.random.default_rng(0), []
    for number, (dtype, shape) in enumerate([("float16", (16, 32)), ("float16", (16, 32)), ("float32", (8, 3, 3, 3))]):
        raw = rng.normal(0, 0.05, shape).astype(DTYPES[dtype].numpy).reshape(-1).view(np.uint8)
        tensors.append(Tensor(f"t{number}", DTYPES[dtype], shape, lambda raw=raw: raw))
    a, b, c = (tensor.load() for tensor in tensors)
    joined = np.concatenate([a.reshape(16, -1), b.reshape(16, -1)], axis=1).tobytes()
    plan = np.frombuffer(b"head" * 10 + joined + b"middle" + c.tobytes() + a[100:900].tobytes() + b"tail", np.uint8)
    return tensors, plan, encode(plan, tensors).to_bytes()


TARGETS = {
    each.__name__: each
    for each in (
        index,
        layout_index,
        manifest,
        record,
        substitute,
        plan_config,
        model_config,
        frame,
        splice_container,
        splice_lines,
        splice_program,
        graph,
        names,
        refit_map,
        envelope,
        statement,
        signature_manifest,
        runtime_cache,
        registry,
        lock,
    )
}


def run(name, data):
    """Run a target; True when the input was accepted."""
    from wszoo.errors import WszooError

    try:
        TARGETS[name](data)
    except WszooError:
        return False
    return True
