"""A remote that lies: every lie has a typed error, and nothing of it is kept."""

from __future__ import annotations

import json
import lzma

import msgspec
import numpy as np
import pytest
from builders import SimulatedRemote, around, leftovers, plan_of, replace_in_index

from wszoo.assemble import assemble
from wszoo.codecs import zstd
from wszoo.digest import Digest
from wszoo.distribution.pull import pull
from wszoo.errors import IncompatibleError, IntegrityError, LimitError, MalformedError, NotFoundError
from wszoo.names import Ref
from wszoo.plans import spliced
from wszoo.plans.spliced import read_base, read_body
from wszoo.progress import Silent
from wszoo.publish import read_published
from wszoo.schema.decode import MAX_MANIFEST, encode
from wszoo.schema.oci import INDEX, Descriptor, Index
from wszoo.schema.plan import SPLICE, SPLICE_BASE
from wszoo.store.engines import is_verified
from wszoo.tree import tree_of_file

REF = Ref.parse("net:1")
SM89 = ("net:1", "rtx-sm89")


def flipped(data):
    broken = bytearray(data)
    broken[len(broken) // 2] ^= 1
    yield bytes(broken)


def truncated(data):
    yield data[:-1]


def empty(_):
    yield from ()


def longer(data):
    yield data
    yield b"\0"


def endless(data):
    yield data
    while True:
        yield bytes(1 << 20)


LIES = {"flipped": flipped, "truncated": truncated, "empty": empty, "longer": longer, "endless": endless}


def blobs_of(origin):
    """A digest of each kind that a pull for sm89 fetches."""
    published = read_published(origin, REF)
    plan = plan_of(origin, *SM89)
    return {
        "index": published.entry.descriptor.digest,
        "model manifest": published.model.descriptor.digest,
        "model config": published.model.manifest.config.digest,
        "pack": published.model.config.packs[0],
        "asset": published.model.config.assets["labels.txt"],
        "plan manifest": plan.descriptor.digest,
        "plan config": plan.manifest.config.digest,
        "plan layer": plan.manifest.layers[-1].digest,
    }


KINDS = ["index", "model manifest", "model config", "pack", "asset", "plan manifest", "plan config", "plan layer"]


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_blob_with_other_bytes_is_refused_and_not_kept(store, origin, remote, kind, lie):
    digest = blobs_of(origin)[kind]
    remote.tamper[digest] = LIES[lie]
    with pytest.raises(IntegrityError) as caught:
        pull(store, remote, REF, around())
    assert digest in caught.value.message or digest[7:19] in caught.value.message
    assert digest not in set(store.blobs.all())
    assert store.refs.all() == []
    assert leftovers(store) == []
    assert list(store.layout.leases.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_blob_that_the_remote_lists_and_lacks_is_named(store, origin, kind):
    digest = blobs_of(origin)[kind]
    origin.blobs.path(digest).unlink()
    with pytest.raises(NotFoundError) as caught:
        pull(store, SimulatedRemote(origin), REF, around())
    assert digest in caught.value.message
    assert "incomplete" in caught.value.hint
    assert store.refs.all() == []


def relisted(origin, change):
    """Publish an index that was changed as JSON, consistently hashed."""
    entry = origin.refs.get(REF)
    document = json.loads(origin.blobs.read(entry.descriptor.digest, limit=MAX_MANIFEST))
    change(document)
    data = json.dumps(document).encode()
    descriptor = Descriptor(media_type=INDEX, digest=origin.blobs.put(data), size=len(data))
    assert origin.refs.swap(REF, descriptor, held=None, expected=entry)
    return SimulatedRemote(origin)


def model_entry(document):
    return next(each for each in document["manifests"] if each["artifactType"].endswith("model.v1"))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda d: d.update(mediaType="application/x"), IncompatibleError, "application/x"),
        (lambda d: d["manifests"].remove(model_entry(d)), MalformedError, "0 model manifests"),
        (lambda d: d["manifests"].append(model_entry(d)), MalformedError, "2 model manifests"),
        (lambda d: d.update(manifests=[]), MalformedError, "0 model manifests"),
        (lambda d: model_entry(d).update(size=model_entry(d)["size"] + 1), MalformedError, "its descriptor says"),
        (lambda d: model_entry(d).update(size=0), MalformedError, "its descriptor says"),
        (lambda d: model_entry(d).update(digest="sha256:../../etc/passwd"), MalformedError, "not a digest"),
        (lambda d: model_entry(d).update(digest=Digest.of(b"absent")), NotFoundError, Digest.of(b"absent")),
        (lambda d: d["manifests"][1]["annotations"].update({"org.wszoo.plan": "{}"}), MalformedError, "org.wszoo.plan"),
    ],
)
def test_an_index_that_lies_is_refused(store, origin, change, error, says):
    with pytest.raises(error, match=says):
        pull(store, relisted(origin, change), REF, around())
    assert store.refs.all() == []


def test_a_plan_that_poses_as_the_model_is_refused(store, origin):
    def pose(document):
        model, plan = document["manifests"][:2]
        model["artifactType"], plan["artifactType"] = plan["artifactType"], model["artifactType"]

    with pytest.raises(IncompatibleError, match=r"vnd\.wszoo\.plan\.v1.*expected.*vnd\.wszoo\.model\.v1"):
        pull(store, relisted(origin, pose), REF, around())


def remanifested(origin, change):
    """Rebuild the model's manifest after changing its JSON, and relist it."""

    def relist(document):
        entry = model_entry(document)
        manifest = json.loads(origin.blobs.read(Digest(entry["digest"]), limit=MAX_MANIFEST))
        change(manifest)
        data = json.dumps(manifest).encode()
        entry.update(digest=origin.blobs.put(data), size=len(data))

    return relisted(origin, relist)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda m: m.update(mediaType="application/x"), IncompatibleError, "application/x"),
        (lambda m: m.update(artifactType="application/vnd.wszoo.model.v2"), IncompatibleError, r"model\.v2"),
        (lambda m: m.pop("artifactType"), MalformedError, "artifactType"),
        (lambda m: m["config"].update(mediaType="application/vnd.wszoo.model.config.v2+json"), IncompatibleError, "v2"),
        (lambda m: m["config"].update(size=m["config"]["size"] - 1), MalformedError, "its descriptor says"),
        (lambda m: m["layers"][1].update(size=m["layers"][1]["size"] - 1), LimitError, "larger than the"),
        (lambda m: m["layers"][1].update(size=m["layers"][1]["size"] + 1), IntegrityError, "ends after"),
    ],
)
def test_a_manifest_that_lies_is_refused(store, origin, change, error, says):
    with pytest.raises(error, match=says) as caught:
        pull(store, remanifested(origin, change), REF, around())
    if error is IncompatibleError:
        assert "later wszoo" in caught.value.hint
    assert store.refs.all() == []
    assert leftovers(store) == []


def test_a_descriptor_of_petabytes_is_refused_before_anything_is_fetched(store, origin):
    def grow(manifest):
        manifest["layers"][1]["size"] = 1 << 60

    from wszoo.errors import StorageError

    pack = blobs_of(origin)["pack"]
    remote = remanifested(origin, grow)
    with pytest.raises(StorageError, match="bytes are needed"):
        pull(store, remote, REF, around())
    assert pack not in remote.opened


def test_a_deeply_nested_index_is_refused(store, origin):
    data = b'{"schemaVersion":2,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    entry = origin.refs.get(REF)
    descriptor = Descriptor(media_type=INDEX, digest=origin.blobs.put(data), size=len(data))
    origin.refs.swap(REF, descriptor, held=None, expected=entry)
    with pytest.raises(LimitError, match="nested too deep"):
        pull(store, SimulatedRemote(origin), REF, around())


def test_an_empty_index_is_refused(store, origin):
    data = encode(Index())
    entry = origin.refs.get(REF)
    descriptor = Descriptor(media_type=INDEX, digest=origin.blobs.put(data), size=len(data))
    origin.refs.swap(REF, descriptor, held=None, expected=entry)
    with pytest.raises(MalformedError, match="no wszoo model"):
        pull(store, SimulatedRemote(origin), REF, around())


def attacked(store, origin, **changes):
    """Pull from an attacker who rebuilt all documents consistently; assemble what came."""
    replace_in_index(origin, "net:1", **changes)
    selection = pull(store, SimulatedRemote(origin), REF, around()).selection
    return assemble(store, selection.model, selection.plans["net"], "cuda", Silent())


def test_honest_documents_survive_being_rebuilt(store, origin):
    assert attacked(store, origin).engine.exists()


def swap_weights(config):
    frames = dict(config.frames)
    first, *rest = config.components["net"].tensors
    other = next(each for each in rest if each.digest != first.digest)
    renamed = msgspec.structs.replace(first, digest=other.digest, shape=other.shape)
    component = msgspec.structs.replace(config.components["net"], tensors=(renamed, *rest))
    return msgspec.structs.replace(config, components={"net": component}, frames=frames)


def move_frames(config):
    """The table says the same digests, and points them to other bytes."""
    frames = dict(config.frames)
    large = [digest for digest, at in frames.items() if at[0].codec.startswith("zstd")]
    at = frames[large[0]]
    frames[large[0]] = (msgspec.structs.replace(at[0], offset=0, stored=at[0].raw, codec="raw"), *at[1:])
    return msgspec.structs.replace(config, frames=frames)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"model_config": swap_weights}, IncompatibleError, "other weights"),
        ({"model_config": move_frames}, IntegrityError, "they overlap"),
        ({"plan_config": lambda c: msgspec.structs.replace(c, weights=Digest.of(b""))}, IncompatibleError, "weights"),
        (
            {"plan_config": lambda c: msgspec.structs.replace(c, engine_bytes=c.engine_bytes - 1)},
            IntegrityError,
            "program",
        ),
        ({"plan_config": lambda c: msgspec.structs.replace(c, engine_bytes=0)}, IntegrityError, "program"),
        (
            {"plan_config": lambda c: msgspec.structs.replace(c, engine_tree=Digest.of(b"evil"))},
            IntegrityError,
            "is damaged",
        ),
        ({"plan_config": lambda c: msgspec.structs.replace(c, component="other")}, IncompatibleError, "net"),
    ],
    ids=["tensors swapped", "frames moved", "weights", "shorter", "empty", "engine", "component"],
)
def test_configs_that_lie_are_refused_and_no_engine_is_kept(store, origin, changes, error, says):
    with pytest.raises(error, match=says):
        attacked(store, origin, **changes)
    assert leftovers(store) == []


def test_frames_that_were_moved_would_give_no_engine_either_if_they_did_not_overlap(store, origin, monkeypatch):
    monkeypatch.setattr("wszoo.weights.packs.PackReader._check_overlap", lambda *_: None)
    with pytest.raises(IntegrityError, match="the plan of net"):
        attacked(store, origin, model_config=move_frames)
    assert leftovers(store) == []


def test_a_plan_that_claims_anothers_sha256_is_never_kept_or_taken_under_its_name(store, origin):
    """The whole sha256 is only claimed; what a kept engine is named by was computed from its bytes."""
    victim = plan_of(origin, "net:1", "rtx-sm86").config
    engine = attacked(
        store,
        origin,
        plan_config=lambda c: msgspec.structs.replace(c, engine_digest=victim.engine_digest),
    ).engine
    assert engine.stem == tree_of_file(engine).hex != victim.engine_tree.hex
    assert not is_verified(store.layout, victim.engine_tree, Silent())


@pytest.mark.parametrize("tree", ["another plan's", "another plan's sha256", "none"])
def test_a_plan_that_claims_anothers_tree_digest_is_not_kept(store, origin, tree):
    victim = plan_of(origin, "net:1", "rtx-sm86").config
    claimed = {"another plan's": victim.engine_tree, "another plan's sha256": victim.engine_digest}.get(
        tree, msgspec.UNSET
    )
    with pytest.raises(IntegrityError, match="is damaged"):
        attacked(store, origin, plan_config=lambda c: msgspec.structs.replace(c, engine_tree=claimed))
    assert leftovers(store) == []


def edited(origin, edit):
    """Change the program of sm89's plan and compress it again, as an attacker with the tools would."""
    plan = plan_of(origin, *SM89)
    body = read_body(origin, plan.manifest, plan.config)
    changed = zstd.compress(edit(body), level=3, dictionary=read_base(origin, plan.manifest))
    return lambda media_type, data: changed if media_type == SPLICE else data


@pytest.mark.parametrize(
    "edit",
    [
        lambda body: body[:1],
        lambda body: body[:-1],
        lambda body: body + b"\0",
        lambda body: b"\x02" + body[1:],
        lambda body: b"\xff" * len(body),
        lambda body: body[:1] + b"\xff" * 10 + body[1:],
        lambda body: body[:-1] + bytes([body[-1] ^ 1]),
        lambda body: bytes(len(body)),
    ],
    ids=["one byte", "cut", "longer", "version", "all ones", "counts", "last byte", "zeros"],
)
def test_a_hostile_program_in_consistent_documents_is_refused(store, origin, edit):
    with pytest.raises(IntegrityError):
        attacked(store, origin, layers=edited(origin, edit))
    assert leftovers(store) == []


def test_a_program_with_a_random_byte_changed_never_gives_another_engine(store, origin):
    rng = np.random.default_rng(0)
    honest, refused = plan_of(origin, *SM89), 0

    def edit(body):
        broken = bytearray(body)
        broken[rng.integers(min(len(body), 100))] = rng.integers(256)
        return bytes(broken)

    attacks = [edited(origin, edit) for _ in range(60)]
    for attack in attacks:
        try:
            engine = attacked(store, origin, layers=attack).engine
        except IntegrityError:
            refused += 1
            assert leftovers(store) == []
        else:
            assert Digest.of_file(engine) == honest.config.engine_digest
            engine.unlink()
    assert refused > 40


@pytest.mark.parametrize("size", [1 << 20, 64 << 20])
def test_a_program_that_decodes_to_megabytes_is_refused(store, origin, size):
    bomb = b"\0" + zstd.compress(bytes(size + (4 << 20)), level=1)
    with pytest.raises(IntegrityError, match="allowed"):
        attacked(store, origin, layers=lambda kind, data: bomb if kind == SPLICE else data)
    assert leftovers(store) == []


def test_a_base_that_decodes_to_more_than_any_base_has_is_refused(store, origin, monkeypatch):
    monkeypatch.setattr(spliced, "MAX_BASE", 1 << 20)  # 256 MiB, which take xz three seconds
    bomb = b"\1" + lzma.compress(bytes(8 << 20), preset=0)
    with pytest.raises(LimitError, match="bytes"):
        attacked(store, origin, layers=lambda kind, data: bomb if kind == SPLICE_BASE else data)
    assert leftovers(store) == []


def test_garbage_in_place_of_a_layer_is_refused(store, origin):
    with pytest.raises(MalformedError, match=r"packed by method \d+"):
        attacked(store, origin, layers=lambda kind, data: b"MZ" + data)
    assert leftovers(store) == []
