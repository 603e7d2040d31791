"""A changed byte anywhere on a remote stops the pull and is named; so does a model that was put together anew."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from builders import around, plan_of, publish_model, replace_in_index
from contract.servers import program, serving
from contract.test_registry import no_login, registry  # noqa: F401 - fixtures
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wszoo.assemble import assemble
from wszoo.digest import Digest
from wszoo.distribution.pull import pull
from wszoo.distribution.push import push
from wszoo.errors import IntegrityError, RemoteError, TrustError
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.remotes.http import HttpType
from wszoo.remotes.registry import RegistryType
from wszoo.schema.model import GRAPH, PACK
from wszoo.schema.trust import How
from wszoo.settings import add_trust
from wszoo.store.store import Store
from wszoo.trust.keys import public_of
from wszoo.trust.signatures import list_signatures, signatures_here
from wszoo.trust.vouching import sign

REF = Ref.parse("net:1")
KEY = Ed25519PrivateKey.generate()


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("WSZOO_CONFIG", str(tmp_path / "wszoo.toml"))


@pytest.fixture
def signed(origin):
    sign(origin, REF, KEY, expires=datetime.now(UTC) + timedelta(days=1), release=1)
    return origin


@pytest.fixture
def http(signed):
    with serving(signed) as server:
        remote = HttpType().open(server.url)
        add_trust(remote.url, public_of(KEY))
        yield remote


def parts(store):
    """Every kind of blob that a pull for sm89 fetches, by what it is."""
    index = store.refs.get(REF).descriptor.digest
    (made,) = signatures_here(store, REF, index)
    plan = plan_of(store, "net:1", "rtx-sm89")
    from wszoo.publish import read_published

    model = read_published(store, REF).model
    layers = {layer.media_type: layer.digest for layer in model.manifest.layers}
    return {
        "list of signatures": store.refs.get(REF.referrers(index)).descriptor.digest,
        "signature's manifest": made.manifest.digest,
        "signature": made.envelope.digest,
        "index": index,
        "model manifest": model.descriptor.digest,
        "model config": model.manifest.config.digest,
        "graph": layers[GRAPH],
        "pack": layers[PACK],
        "asset": model.config.assets["labels.txt"],
        "plan manifest": plan.descriptor.digest,
        "plan config": plan.manifest.config.digest,
        "plan's shared base": plan.manifest.layers[0].digest,
        "plan": plan.manifest.layers[-1].digest,
    }


KINDS = [
    "list of signatures",
    "signature's manifest",
    "signature",
    "index",
    "model manifest",
    "model config",
    "graph",
    "pack",
    "asset",
    "plan manifest",
    "plan config",
    "plan's shared base",
    "plan",
]


def flip(path, where):
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] ^= 1
    path.unlink()  # a copy, not the file that others may have open
    path.write_bytes(data)


def test_the_kinds_are_all_that_a_pull_fetches(store, signed, http):
    report = pull(store, http, REF, around("sm89"))
    assert report.trust.how is How.SIGNED
    assert list(parts(signed)) == KINDS
    assert set(store.blobs.all()) == {*parts(signed).values(), Digest.of(b"{}")}


@pytest.mark.parametrize("where", [0.0, 0.5, 1.0], ids=["first", "middle", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_byte_over_http_stops_the_pull_and_is_named(store, signed, http, kind, where):
    digest = parts(signed)[kind]
    flip(signed.blobs.path(digest), where)
    with pytest.raises(IntegrityError, match=digest):
        pull(store, http, REF, around("sm89"))
    assert store.refs.all() == []
    assert digest not in set(store.blobs.all())


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_blob_over_http_stops_the_pull_and_is_named(store, signed, http, kind):
    digest = parts(signed)[kind]
    path = signed.blobs.path(digest)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises((IntegrityError, RemoteError), match=digest.hex):
        pull(store, http, REF, around("sm89"))
    assert store.refs.all() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_byte_in_a_registry_stops_the_pull_and_is_named(store, signed, registry, tmp_path, kind):  # noqa: F811
    remote = RegistryType().open(f"oci://{registry}/zoo")
    assert push(signed, remote, REF).signatures == 1
    add_trust(remote.url, public_of(KEY))
    digest = parts(signed)[kind]
    hex_ = digest.hex
    data = tmp_path / "registry" / "docker/registry/v2/blobs/sha256" / hex_[:2] / hex_ / "data"
    flip(data, 0.5)
    # The registry looks into manifests itself, and answers with an error of its own for one that is no JSON.
    with pytest.raises((IntegrityError, RemoteError), match=f"{hex_}|/zoo/net/manifests/"):
        pull(store, RegistryType().open(f"oci://{registry}/zoo"), REF, around("sm89"))
    assert store.refs.all() == []


def test_a_registry_gives_the_signature_back(store, signed, registry):  # noqa: F811
    remote = RegistryType().open(f"oci://{registry}/zoo")
    push(signed, remote, REF)
    fresh = RegistryType().open(f"oci://{registry}/zoo")
    with pytest.raises(TrustError, match="nothing vouches"):
        pull(store, fresh, REF, around("sm89"))
    add_trust(fresh.url, public_of(KEY))
    assert pull(store, fresh, REF, around("sm89")).trust.how is How.SIGNED
    assert fresh.refs() == [REF]


def test_an_index_that_skopeo_has_rewritten_is_not_signed(store, signed, registry):  # noqa: F811
    skopeo = program("skopeo", "apt-get install skopeo")
    push(signed, RegistryType().open(f"oci://{registry}/zoo"), REF)
    index = signed.refs.get(REF).descriptor.digest
    for tag in ("1", REF.referrers(index).tag):
        words = [skopeo, "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"]
        places = [f"docker://{registry}/{where}/net:{tag}" for where in ("zoo", "copy")]
        subprocess.run([*words, *places], check=True, capture_output=True)
    remote = RegistryType().open(f"oci://{registry}/copy")
    if remote.resolve(REF).digest == index:
        pytest.skip("this skopeo keeps the index as it is")
    add_trust(remote.url, public_of(KEY))
    with pytest.raises(TrustError, match="is not signed"):
        pull(store, remote, REF, around("sm89"))


def test_a_lock_is_taken_from_a_registry_after_the_tag_has_moved(store, signed, registry):  # noqa: F811
    from wszoo.lock.making import lock_model
    from wszoo.lock.pulling import pull_locked

    where = f"oci://{registry}/zoo"
    push(signed, RegistryType().open(where), REF)
    model = lock_model(signed, REF, signed.refs.get(REF).descriptor, around, ["sm89"])
    publish_model(signed, "net:1", seed=5)
    push(signed, RegistryType().open(where), REF, replace=True)
    report = pull_locked(store, model, [RegistryType().open(where)], around("sm89"))
    assert report.selection.index.digest == model.index.digest


def rebuilt(store, **changes):
    """The model put together anew around a change, every digest right, with the old signature listed for it."""
    old = store.refs.get(REF).descriptor.digest
    (made,) = signatures_here(store, REF, old)
    descriptor = replace_in_index(store, "net:1", **changes)
    list_signatures(store, REF, descriptor.digest, [made.manifest])
    return descriptor


def swapped_plan(media_type, data):
    return data + b"\0" if "splice.v1" in media_type else data


CHANGES = {
    "a plan's layer": {"layers": swapped_plan},
    "a plan's config": {"plan_config": lambda config: _with(config, provenance={"by": "mallory"})},
    "the model's config": {"model_config": lambda config: _with(config, licence="mine")},
    "the index": {"index": lambda index: _with(index, annotations={"by": "mallory"})},
}


def _with(struct, **changes):
    import msgspec

    return msgspec.structs.replace(struct, **changes)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_model_put_together_anew_is_not_signed(store, signed, http, change):
    descriptor = rebuilt(signed, **change)
    with pytest.raises((TrustError, IntegrityError), match=descriptor.digest):
        pull(store, http, REF, around("sm89"))
    assert store.refs.all() == []
    assert descriptor.digest not in set(store.blobs.all())


def test_a_model_put_together_anew_without_a_signature_is_not_signed(store, signed, http):
    publish_model(signed, "net:1", seed=5)
    with pytest.raises(TrustError, match="is not signed"):
        pull(store, http, REF, around("sm89"))


def test_files_of_yesterday_served_again_are_a_rollback(store, signed, http, tmp_path):
    yesterday = shutil.copytree(signed.layout.root, tmp_path / "yesterday")
    publish_model(signed, "net:1", seed=5)
    sign(signed, REF, KEY, expires=datetime.now(UTC) + timedelta(days=1), release=2)
    pull(store, http, REF, around("sm89"))
    shutil.rmtree(signed.layout.root)
    shutil.copytree(yesterday, signed.layout.root)
    with pytest.raises(TrustError, match="release 1 of net:1, older than release 2"):
        pull(store, http, REF, around("sm89"))


def test_what_was_taken_runs_offline_after_the_key_is_gone_and_the_signature_has_expired(store, signed, http):
    from wszoo.distribution.pull import select_local
    from wszoo.settings import remove_trust

    report = pull(store, http, REF, around("sm89"))
    remove_trust(http.url)
    shutil.rmtree(signed.layout.root)
    selection = select_local(store, REF, around("sm89"))
    made = assemble(store, selection.model, selection.plans["net"], "cuda", Silent())
    assert Digest.of_file(made.engine) == selection.plans["net"].config.engine_digest
    assert selection.index.digest == report.trust.index


def test_a_mirror_cannot_roll_back_or_forge_either(signed, http, tmp_path):
    from wszoo.remotes.mirrors import MirroredRemote

    forged = Store(shutil.copytree(signed.layout.root, tmp_path / "forged"))
    rebuilt(forged, layers=swapped_plan)
    with serving(forged) as server:
        down = HttpType().open("http://127.0.0.1:1/zoo")
        remote = MirroredRemote([down, HttpType().open(server.url)])
        add_trust(remote.url, public_of(KEY))
        with pytest.raises((TrustError, IntegrityError)):
            pull(Store(tmp_path / "new"), remote, REF, around("sm89"))


def test_a_manifest_that_claims_to_be_huge_is_refused_before_it_is_read(store, signed, http):
    import json

    index = json.loads(signed.layout.index.read_text())
    for each in index["manifests"]:
        each["size"] = 1 << 40
    signed.layout.index.write_text(json.dumps(index))
    with pytest.raises(IntegrityError, match="claims 1099511627776 bytes"):
        pull(store, http, REF, around("sm89"))
