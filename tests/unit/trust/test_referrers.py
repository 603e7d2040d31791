"""Finding signatures by the referrers API, against a fake registry; a real one without that API is in tests/hostile."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from builders import around
from contract.servers import threaded
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wszoo.distribution.pull import pull
from wszoo.errors import TrustError
from wszoo.names import Ref
from wszoo.remotes.mirrors import MirroredRemote
from wszoo.remotes.registry import MAX_PAGES, RegistryType
from wszoo.schema.oci import INDEX, MANIFEST
from wszoo.schema.trust import How
from wszoo.settings import add_trust
from wszoo.store.documents import reachable
from wszoo.trust.keys import public_of
from wszoo.trust.vouching import sign

sys.path.insert(0, str(Path(__file__).parent))

from fake_referrers_registry import FakeReferrersRegistry

REF = Ref.parse("net:1")
KEY = Ed25519PrivateKey.generate()


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("WSZOO_CONFIG", str(tmp_path / "wszoo.toml"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker"))


@pytest.fixture
def fake(origin):
    """The origin as the fake has it: the model, and the signature only as a manifest that refers to it."""
    made, _, _ = sign(origin, REF, KEY, expires=datetime.now(UTC) + timedelta(days=1))
    with threaded(FakeReferrersRegistry()) as server:
        entry = origin.refs.get(REF)
        for each in (*reachable(origin, entry.descriptor, None), made.manifest, made.envelope):
            data = origin.blobs.read(each.digest, limit=1 << 30)
            if each.media_type in {INDEX, MANIFEST}:
                server.manifests["net", str(each.digest)] = data
            else:
                server.blobs[str(each.digest)] = data
        server.manifests["net", "1"] = server.manifests["net", str(entry.descriptor.digest)]
        yield server


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_fake_registrys_referrers_are_asked_and_no_tag_is_needed(store, fake, mirrored):
    remote = RegistryType().open(fake.location)
    remote = MirroredRemote([remote]) if mirrored else remote
    with pytest.raises(TrustError, match="nothing vouches"):
        pull(store, remote, REF, around("sm89"))
    add_trust(remote.url, public_of(KEY))
    assert pull(store, remote, REF, around("sm89")).trust.how is How.SIGNED
    assert any("/referrers/" in path for path in fake.asked)
    assert not any("/manifests/sha256-" in path for path in fake.asked)


def test_a_fake_registry_without_signatures_is_asked_for_the_tag_too(store, fake, origin):
    fake.manifests = {key: data for key, data in fake.manifests.items() if b'"subject"' not in data}
    remote = RegistryType().open(fake.location)
    add_trust(remote.url, public_of(KEY))
    with pytest.raises(TrustError, match="is not signed"):
        pull(store, remote, REF, around("sm89"))
    digest = origin.refs.get(REF).descriptor.digest
    assert f"/v2/net/manifests/sha256-{digest.hex}" in fake.asked


def test_a_fake_registry_with_many_pages_of_others_referrers_is_read_on(store, fake):
    fake.pages = 5
    remote = RegistryType().open(fake.location)
    add_trust(remote.url, public_of(KEY))
    assert pull(store, remote, REF, around("sm89")).trust.how is How.SIGNED
    assert sum("/referrers/" in path for path in fake.asked) == 6


def test_a_fake_registry_whose_referrers_never_end_is_left(store, fake):
    fake.pages = 1 << 30
    remote = RegistryType().open(fake.location)
    add_trust(remote.url, public_of(KEY))
    with pytest.raises(TrustError, match="is not signed"):
        pull(store, remote, REF, around("sm89"))
    assert sum("/referrers/" in path for path in fake.asked) == MAX_PAGES


@pytest.mark.parametrize("elsewhere", ["http://127.0.0.1:1/v2/more", "//localhost/more"])
def test_a_fake_registry_whose_referrers_go_on_at_another_host_is_not_followed(store, fake, elsewhere):
    fake.pages, fake.elsewhere = 1, elsewhere
    remote = RegistryType().open(fake.location)
    add_trust(remote.url, public_of(KEY))
    with pytest.raises(TrustError, match="is not signed"):
        pull(store, remote, REF, around("sm89"))
