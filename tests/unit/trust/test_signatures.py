"""Signatures in stores and on remotes: listed, merged, carried by pull and push, and looked at before anything else."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from builders import SimulatedRemote, age, around, publish_model, snapshot
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wszoo.digest import Digest
from wszoo.distribution.pull import pull
from wszoo.distribution.push import push
from wszoo.errors import IntegrityError, LimitError, MalformedError, NotFoundError, TrustError, UsageError
from wszoo.names import Ref
from wszoo.remotes.directory import DirectoryRemote
from wszoo.schema.decode import encode
from wszoo.schema.oci import INDEX, MANIFEST, Descriptor, Index
from wszoo.schema.trust import ARTIFACT, ENVELOPE, MAX_ENVELOPE, MAX_REFERRERS, MAX_RELEASE, How
from wszoo.settings import add_trust
from wszoo.store.gc import collect
from wszoo.store.store import Store
from wszoo.store.verify import verify
from wszoo.trust.keys import public_of
from wszoo.trust.record import decision_about
from wszoo.trust.signatures import list_signatures, signatures_here
from wszoo.trust.vouching import sign

REF = Ref.parse("net:1")
REF_2 = Ref.parse("net:2")
KEY, SECOND = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
NOWHERE = Digest.of(b"is on no remote")


def later():
    return datetime.now(UTC) + timedelta(days=1)


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("WSZOO_CONFIG", str(tmp_path / "wszoo.toml"))


@pytest.fixture
def untrusted(origin):
    """The origin as a remote that vouches for nothing, with a key trusted for it."""
    made = SimulatedRemote(origin, trusted=False)
    add_trust(made.url, public_of(KEY))
    return made


def index_of(store, ref=REF):
    return store.refs.get(ref).descriptor


def repoint(store, place, index):
    data = encode(index)
    descriptor = Descriptor(media_type=INDEX, digest=store.blobs.put(data), size=len(data))
    assert store.refs.swap(place, descriptor, held=None, expected=store.refs.find(place))


def test_a_signature_is_listed_beside_its_index_and_is_no_model(origin):
    made, said, public = sign(origin, REF, KEY, expires=later(), release=3)
    assert (said.name, said.tag, said.release, public) == ("net", "1", 3, public_of(KEY))
    assert signatures_here(origin, REF, index_of(origin).digest) == [made]
    assert verify(origin).problems == ()
    assert DirectoryRemote(origin.layout.root).refs() == [REF]
    with pytest.raises(NotFoundError) as caught:
        origin.refs.get(Ref.parse("net:2"))
    assert "sha256-" not in caught.value.hint


def test_two_publishers_sign_one_index(origin):
    for key in (KEY, SECOND, KEY):
        sign(origin, REF, key, expires=later())
    assert len(signatures_here(origin, REF, index_of(origin).digest)) >= 2


def test_signing_with_a_past_date_is_refused(origin):
    with pytest.raises(UsageError, match="would have expired"):
        sign(origin, REF, KEY, expires=datetime.now(UTC))


def test_release_numbers_grow_by_themselves(origin):
    _, first, _ = sign(origin, REF, KEY, expires=later())
    assert str(first.release).startswith(f"{datetime.now(UTC):%Y}")
    assert len(str(first.release)) == 14


def test_a_signed_index_is_taken_and_the_decision_is_kept(store, origin, untrusted):
    sign(origin, REF, KEY, expires=later(), release=3)
    report = pull(store, untrusted, REF, around("sm89"))
    assert (report.trust.how, report.trust.key, report.trust.release) == (How.SIGNED, public_of(KEY).id, 3)
    assert decision_about(store.layout, report.selection.index.digest) == report.trust
    assert verify(store).problems == ()


def test_nothing_of_the_model_is_asked_for_before_the_signature_was_checked(store, origin, untrusted):
    made, _, _ = sign(origin, REF, KEY, expires=later())
    listed = index_of(origin, REF.referrers(index_of(origin).digest)).digest
    pull(store, untrusted, REF, around("sm89"))
    first = [listed, made.manifest.digest, made.envelope.digest, index_of(origin).digest]
    assert untrusted.opened[:4] == first


def test_a_refused_index_leaves_the_store_alone(store, origin, untrusted):
    sign(origin, REF, SECOND, expires=later())
    before = snapshot(store.layout.root)
    with pytest.raises(TrustError, match="not trusted"):
        pull(store, untrusted, REF, around("sm89"))
    assert snapshot(store.layout.root) == before
    assert index_of(origin).digest not in untrusted.opened


def test_an_older_release_is_refused_and_a_newer_one_taken(store, origin, untrusted):
    sign(origin, REF, KEY, expires=later(), release=1)
    old = origin.refs.get(REF)
    publish_model(origin, "net:1", seed=7)
    sign(origin, REF, KEY, expires=later(), release=2)
    pull(store, untrusted, REF, around("sm89"))
    assert origin.refs.swap(REF, old.descriptor, held=None, expected=origin.refs.get(REF))
    with pytest.raises(TrustError, match="release 1 of net:1, older than release 2"):
        pull(store, untrusted, REF, around("sm89"))
    pinned = REF.pinned(old.descriptor.digest)
    assert pull(store, untrusted, pinned, around("sm89")).trust.how is How.PINNED
    with pytest.raises(TrustError, match="older than release 2"):
        pull(store, untrusted, REF, around("sm89"))


def test_a_signed_model_under_another_name_is_refused(store, two_models):
    remote = SimulatedRemote(two_models, trusted=False)
    add_trust(remote.url, public_of(KEY))
    for text in ("net:1", "other:1"):
        sign(two_models, Ref.parse(text), KEY, expires=later())
    index = index_of(two_models, Ref.parse("other:1"))
    made = signatures_here(two_models, Ref.parse("other:1"), index.digest)
    assert two_models.refs.swap(REF, index, held=None, expected=two_models.refs.get(REF))
    list_signatures(two_models, REF, index.digest, [each.manifest for each in made])
    with pytest.raises(TrustError, match="its publisher signed it as other:1"):
        pull(store, remote, REF, around("sm89"))


def test_a_signature_of_another_index_does_not_help(store, origin, untrusted):
    made, _, _ = sign(origin, REF, KEY, expires=later())
    publish_model(origin, "net:1", seed=7)
    list_signatures(origin, REF, index_of(origin).digest, [made.manifest])
    with pytest.raises(MalformedError, match="refers to"):
        pull(store, untrusted, REF, around("sm89"))


def test_unsigned_is_taken_only_when_allowed_and_is_remembered_as_such(store, untrusted):
    with pytest.raises(TrustError, match="is not signed"):
        pull(store, untrusted, REF, around("sm89"))
    assert pull(store, untrusted, REF, around("sm89"), allow_unsigned=True).trust.how is How.UNSIGNED
    with pytest.raises(TrustError, match="is not signed"):
        pull(store, untrusted, REF, around("sm86"))


def test_a_pull_carries_signatures_so_that_others_can_check_them(store, origin, untrusted, tmp_path):
    sign(origin, REF, KEY, expires=later())
    pull(store, untrusted, REF, around("sm89"))
    mirror = SimulatedRemote(store, trusted=False)
    add_trust(mirror.url, public_of(KEY))
    third = Store(tmp_path / "third")
    assert pull(third, mirror, REF, around("sm89")).trust.how is How.SIGNED
    assert signatures_here(third, REF, index_of(origin).digest)


def test_a_folder_needs_no_signature_and_its_signatures_are_carried(store, origin):
    sign(origin, REF, KEY, expires=later())
    report = pull(store, DirectoryRemote(origin.layout.root), REF, around("sm89"))
    assert report.trust.how is How.FOLDER
    assert len(signatures_here(store, REF, index_of(origin).digest)) == 1


def test_a_push_sends_signatures_and_keeps_those_of_others(origin, tmp_path):
    away = Store(tmp_path / "away")
    digest = index_of(origin).digest
    sign(origin, REF, SECOND, expires=later())
    assert push(origin, DirectoryRemote(away.layout.root), REF).signatures == 1
    second = Store(tmp_path / "second")
    push(origin, DirectoryRemote(second.layout.root), REF)
    sign(second, REF, KEY, expires=later())
    assert push(second, DirectoryRemote(away.layout.root), REF).signatures == 1
    assert len(signatures_here(away, REF, digest)) == 2
    sign(origin, REF, KEY, expires=later(), release=77)
    report = push(origin, DirectoryRemote(away.layout.root), REF)
    assert (report.sent, report.moved, report.signatures) == ((), False, 1)
    assert push(origin, DirectoryRemote(away.layout.root), REF).signatures == 0
    assert len(signatures_here(away, REF, digest)) == 3
    assert verify(away).problems == ()


def test_a_dry_push_sends_no_signature(origin, tmp_path):
    sign(origin, REF, KEY, expires=later())
    away = Store(tmp_path / "away")
    away.layout.create()
    before = snapshot(away.layout.root)
    push(origin, DirectoryRemote(away.layout.root), REF, dry_run=True)
    assert snapshot(away.layout.root) == before


def test_gc_keeps_the_signatures_of_what_is_here_and_drops_the_others(origin):
    made, _, _ = sign(origin, REF, KEY, expires=later())
    digest = index_of(origin).digest
    age(origin)
    assert not {made.envelope.digest, made.manifest.digest} & set(collect(origin, grace=0).deleted)
    publish_model(origin, "net:1", seed=7)
    again, _, _ = sign(origin, REF, KEY, expires=later())
    age(origin)
    planned = collect(origin, grace=0, dry_run=True)
    assert origin.refs.find(REF.referrers(digest)) is not None
    done = collect(origin, grace=0)
    assert {made.envelope.digest, made.manifest.digest} <= set(planned.deleted)
    assert planned.deleted == done.deleted
    assert origin.refs.find(REF.referrers(digest)) is None
    assert signatures_here(origin, REF, index_of(origin).digest) == [again]
    assert verify(origin).problems == ()


def test_a_fresh_list_without_its_index_is_left_for_the_push_that_is_going_on(origin):
    sign(origin, REF, KEY, expires=later())
    place = REF.referrers(index_of(origin).digest)
    assert origin.refs.swap(REF, None, held=None, expected=origin.refs.get(REF))
    collect(origin)
    assert origin.refs.find(place) is not None


def test_a_second_tag_of_the_index_keeps_the_signatures(origin):
    made, _, _ = sign(origin, REF, KEY, expires=later())
    entry = origin.refs.get(REF)
    assert origin.refs.swap(Ref.parse("net:2"), entry.descriptor, held=None, expected=None)
    assert origin.refs.swap(REF, None, held=None, expected=entry)
    age(origin)
    collect(origin, grace=0)
    assert signatures_here(origin, Ref.parse("net:2"), entry.descriptor.digest) == [made]


def test_other_tools_referrers_are_passed_over_and_kept(store, origin, untrusted):
    made, _, _ = sign(origin, REF, KEY, expires=later())
    place = REF.referrers(index_of(origin).digest)
    strange = Descriptor(media_type=MANIFEST, digest=Digest.of(b"sbom"), size=4, artifact_type="application/sbom")
    repoint(origin, place, Index(manifests=(strange, made.manifest)))
    assert pull(store, untrusted, REF, around("sm89")).trust.how is How.SIGNED
    list_signatures(origin, REF, index_of(origin).digest, [])


def test_a_list_longer_than_anyone_needs_is_refused(store, origin, untrusted):
    many = tuple(
        Descriptor(media_type=MANIFEST, digest=Digest.of(bytes([n])), size=9, artifact_type=ARTIFACT)
        for n in range(MAX_REFERRERS + 1)
    )
    repoint(origin, REF.referrers(index_of(origin).digest), Index(manifests=many))
    with pytest.raises(LimitError, match="65 signatures"):
        pull(store, untrusted, REF, around("sm89"))


def test_a_list_that_is_stuffed_over_many_pulls_stays_one_that_can_be_read(store, origin, monkeypatch):
    monkeypatch.setattr("wszoo.trust.signatures.MAX_REFERRERS", 4)
    pinned, digest = REF.pinned(index_of(origin).digest), index_of(origin).digest
    for release in range(1, 5):
        sign(origin, REF, KEY, expires=later(), release=release)
    pull(store, DirectoryRemote(origin.layout.root), pinned, around("sm89"))
    assert len(signatures_here(store, REF, digest)) == 4
    other = Store(shutil.copytree(origin.layout.root, origin.layout.root.with_name("other")))
    place = REF.referrers(digest)
    assert other.refs.swap(place, None, held=None, expected=other.refs.get(place))
    sign(other, REF, SECOND, expires=later())
    assert pull(store, SimulatedRemote(other, trusted=False), pinned, around("sm89")).trust.how is How.PINNED
    assert len(signatures_here(store, REF, digest)) == 4
    with pytest.raises(LimitError, match="5 signatures"):
        sign(origin, REF, SECOND, expires=later())


@pytest.mark.parametrize(
    "change",
    [
        {"layers": ()},
        {"artifact_type": "application/vnd.wszoo.plan.v1"},
        {"config": Descriptor(media_type=MANIFEST, digest=Digest.of(b"{}"), size=2)},
        {"subject": Descriptor(media_type=INDEX, digest=Digest.of(b"x"), size=1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_manifest_that_is_not_built_like_a_signatures_is_refused(store, origin, untrusted, change):
    from wszoo.schema.trust import decode_signature_manifest

    made, _, _ = sign(origin, REF, KEY, expires=later())
    found = decode_signature_manifest(origin.blobs.read(made.manifest.digest, limit=1 << 16), "ours")
    data = encode(msgspec.structs.replace(found, **change))
    other = Descriptor(media_type=MANIFEST, digest=origin.blobs.put(data), size=len(data), artifact_type=ARTIFACT)
    repoint(origin, REF.referrers(index_of(origin).digest), Index(manifests=(other,)))
    with pytest.raises(MalformedError, match=other.digest):
        pull(store, untrusted, REF, around("sm89"))


def _listed(origin, data):
    return Descriptor(media_type=MANIFEST, digest=origin.blobs.put(data), size=len(data), artifact_type=ARTIFACT)


def _manifest(origin, made, envelope):
    """The manifest of a signature, about another envelope."""
    from wszoo.schema.trust import decode_signature_manifest

    found = decode_signature_manifest(origin.blobs.read(made.manifest.digest, limit=1 << 16), "ours")
    return encode(msgspec.structs.replace(found, layers=(envelope,)))


def _envelope(data):
    return Descriptor(media_type=ENVELOPE, digest=Digest.of(data), size=len(data))


def _change_envelope(origin, made, old, new):
    data = origin.blobs.read(made.envelope.digest, limit=1 << 16).replace(old, new)
    origin.blobs.put(data)
    return _listed(origin, _manifest(origin, made, _envelope(data)))


# Signatures that are none, made beside a good one, and what is said where there is no good one.
BAD = {
    "no manifest": (lambda origin, _: _listed(origin, b"{}"), MalformedError, "signature manifest sha256:"),
    "nested": (lambda origin, _: _listed(origin, b'{"x":' + b"[" * 5000), IntegrityError, "nested too deep"),
    "not there": (
        lambda origin, made: msgspec.structs.replace(made.manifest, digest=NOWHERE),
        NotFoundError,
        NOWHERE.hex,
    ),
    "huge": (lambda origin, _: _listed(origin, b"x" * (MAX_ENVELOPE + 1)), LimitError, str(MAX_ENVELOPE)),
    "no envelope": (
        lambda origin, made: _listed(origin, _manifest(origin, made, _envelope(b"not there"))),
        NotFoundError,
        Digest.of(b"not there").hex,
    ),
    "another payload type": (
        lambda origin, made: _change_envelope(origin, made, b"vnd.in-toto", b"vnd.other"),
        MalformedError,
        "payloadType",
    ),
    "a changed payload": (
        lambda origin, made: _change_envelope(origin, made, b'"payload":"ey', b'"payload":"eZ'),
        TrustError,
        "does not fit its key",
    ),
    "a key nobody knows": (
        lambda origin, made: _change_envelope(origin, made, public_of(KEY).id.encode(), b"ab" * 32),
        TrustError,
        "not trusted",
    ),
}


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_signature_beside_a_good_one_masks_it_not(store, origin, untrusted, caplog, *, name, first):
    made, _, _ = sign(origin, REF, KEY, expires=later())
    bad, place = BAD[name][0](origin, made), REF.referrers(index_of(origin).digest)
    repoint(origin, place, Index(manifests=(bad, made.manifest) if first else (made.manifest, bad)))
    assert pull(store, untrusted, REF, around("sm89")).trust.how is How.SIGNED
    assert ("passed over" in caplog.text) is (BAD[name][1] is not TrustError)
    assert made in signatures_here(store, REF, index_of(origin).digest)
    assert verify(store).problems == ()


@pytest.mark.parametrize("count", [1, MAX_REFERRERS])
@pytest.mark.parametrize("name", BAD)
def test_where_all_signatures_are_bad_the_pull_is_refused_and_the_defect_named(store, origin, untrusted, name, count):
    make, error, said = BAD[name]
    bad = make(origin, sign(origin, REF, KEY, expires=later())[0])
    repoint(origin, REF.referrers(index_of(origin).digest), Index(manifests=(bad,) * count))
    with pytest.raises(error, match=re.escape(said)):
        pull(store, untrusted, REF, around("sm89"))
    assert store.refs.all() == []


def test_a_good_signature_among_as_many_bad_ones_as_are_looked_at_is_found(store, origin, untrusted, caplog):
    made, _, _ = sign(origin, REF, KEY, expires=later())
    bad = tuple(_listed(origin, b"%d" % number) for number in range(MAX_REFERRERS - 1))
    repoint(origin, REF.referrers(index_of(origin).digest), Index(manifests=(*bad, made.manifest)))
    assert pull(store, untrusted, REF, around("sm89")).trust.how is How.SIGNED
    assert len([each for each in caplog.records if "passed over: 63" in each.message]) == 1


def test_a_list_that_is_no_index_is_refused(store, origin, untrusted):
    place, data = REF.referrers(index_of(origin).digest), b'{"manifests": 1}'
    descriptor = Descriptor(media_type=INDEX, digest=origin.blobs.put(data), size=len(data))
    assert origin.refs.swap(place, descriptor, held=None, expected=None)
    with pytest.raises(IntegrityError, match="list of signatures"):
        pull(store, untrusted, REF, around("sm89"))


def test_a_key_in_the_settings_that_is_none_is_told(store, untrusted, tmp_path):
    (tmp_path / "wszoo.toml").write_text(f'[trust."{untrusted.url}"]\nkeys = ["ed25519:short"]\n')
    with pytest.raises(MalformedError, match=r"wszoo\.toml.*not a public key"):
        pull(store, untrusted, REF, around("sm89"))


def test_no_setting_and_no_variable_allows_what_is_unsigned(store, untrusted, tmp_path, monkeypatch):
    (tmp_path / "wszoo.toml").write_text(
        f'allow_unsigned = true\n[trust]\nallow_unsigned = {{keys = []}}\n[trust."{untrusted.url}"]\nkeys = []\n'
    )
    for name in ("WSZOO_ALLOW_UNSIGNED", "ALLOW_UNSIGNED", "WSZOO_PULL_ALLOW_UNSIGNED"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(TrustError, match="nothing vouches"):
        pull(store, untrusted, REF, around("sm89"))


def test_two_indexes_signed_in_the_same_second_are_two_releases(store, origin, untrusted):
    sign(origin, REF, KEY, expires=later())
    pull(store, untrusted, REF, around("sm89"))
    publish_model(origin, "net:1", seed=7)
    sign(origin, REF, KEY, expires=later())
    assert pull(store, untrusted, REF, around("sm89")).trust.index == index_of(origin).digest


def test_a_number_from_the_future_does_not_block_the_next(origin):
    future = 99991231235959
    sign(origin, REF, KEY, expires=later(), release=future)
    assert sign(origin, REF, KEY, expires=later())[1].release == future + 1
    assert sign(origin, REF, SECOND, expires=later())[1].release < future  # what another key said is its own affair
    origin.refs.swap(REF_2, index_of(origin), held=None, expected=None)
    assert sign(origin, REF_2, KEY, expires=later())[1].release < future


def test_a_damaged_list_of_signatures_does_not_keep_one_from_signing(origin):
    sign(origin, REF, KEY, expires=later(), release=99991231235959)
    place = REF.referrers(index_of(origin).digest)
    origin.blobs.path(index_of(origin, place).digest).write_bytes(b"?")
    publish_model(origin, "net:1", seed=7)
    assert sign(origin, REF, KEY, expires=later())[1].release < 99991231235959


def test_numbers_end_where_readers_stop(origin):
    sign(origin, REF, KEY, expires=later(), release=MAX_RELEASE)
    with pytest.raises(UsageError, match="release numbers end at"):
        sign(origin, REF, KEY, expires=later())
    with pytest.raises(UsageError, match="release numbers end at"):
        sign(origin, REF, SECOND, expires=later(), release=10**30)


def test_who_pins_an_index_is_not_stopped_by_a_stuffed_or_broken_list(store, origin, untrusted):
    place, pinned = REF.referrers(index_of(origin).digest), REF.pinned(index_of(origin).digest)
    many = [
        Descriptor(media_type=MANIFEST, digest=Digest.of(bytes([n])), size=9, artifact_type=ARTIFACT) for n in range(99)
    ]
    for listed in (many, many[:1]):
        repoint(origin, place, Index(manifests=tuple(listed)))
        with pytest.raises((LimitError, NotFoundError)):
            pull(store, untrusted, REF, around("sm89"))
        assert pull(store, untrusted, pinned, around("sm89")).trust.how is How.PINNED
