"""Mirrors: who fails is asked last, and what nobody has is not found."""

from __future__ import annotations

import pytest
from builders import SimulatedRemote, around

from wszoo.digest import Digest
from wszoo.distribution.pull import pull
from wszoo.errors import NotFoundError, RemoteError, TrustError
from wszoo.names import Ref
from wszoo.remotes.mirrors import MirroredRemote
from wszoo.schema.oci import Descriptor
from wszoo.testing.remotes import ReadContract

REF = Ref.parse("net:1")


class Failing(SimulatedRemote):
    """Fails when ``down``; breaks off after the first bytes when ``short``."""

    down = short = False

    def resolve(self, ref):
        if self.down:
            raise RemoteError(f"{self.url} is down")
        return super().resolve(ref)

    def open(self, descriptor, offset=0, length=None):
        if self.down:
            raise RemoteError(f"{self.url} is down")
        pieces = super().open(descriptor, offset, length)
        yield next(pieces)[:1] if self.short else next(pieces)
        if self.short:
            raise RemoteError(f"{self.url} broke off")
        yield from pieces


class TestContract(ReadContract):
    @pytest.fixture
    def remote(self, zoo):
        first, second = (SimulatedRemote(zoo) for _ in range(2))
        return MirroredRemote([first, second])


@pytest.fixture
def pair(origin):
    return Failing(origin), Failing(origin)


def index_of(origin):
    return origin.refs.get(REF).descriptor


def test_the_first_is_asked_as_long_as_it_answers(pair, origin):
    remote = MirroredRemote(pair)
    for _ in range(3):
        list(remote.open(remote.resolve(REF)))
    assert len(pair[0].opened) == 3
    assert pair[1].opened == []


def test_who_fails_is_asked_last_from_then_on(pair, origin):
    pair[0].down = True
    remote = MirroredRemote(pair)
    assert remote.resolve(REF).digest == index_of(origin).digest
    assert remote.order() == [pair[1], pair[0]]
    assert Digest.of(b"".join(remote.open(index_of(origin)))) == index_of(origin).digest


def test_a_blob_that_breaks_off_is_an_error_and_the_next_read_goes_elsewhere(pair, origin):
    pair[0].short = True
    remote = MirroredRemote(pair)
    with pytest.raises(RemoteError, match="broke off"):
        list(remote.open(index_of(origin)))
    assert Digest.of(b"".join(remote.open(index_of(origin)))) == index_of(origin).digest


def test_a_blob_that_one_mirror_lacks_comes_from_another(pair, origin, store):
    remote = MirroredRemote([SimulatedRemote(store), pair[1]])
    assert Digest.of(b"".join(remote.open(index_of(origin)))) == index_of(origin).digest


def test_what_the_first_does_not_know_does_not_exist(pair, store):
    with pytest.raises(NotFoundError, match="net:1"):
        MirroredRemote([SimulatedRemote(store), pair[1]]).resolve(REF)


def test_when_all_fail_the_first_failure_that_may_pass_is_told(pair, origin, store):
    pair[1].down = True
    with pytest.raises(RemoteError, match="down"):
        list(MirroredRemote([SimulatedRemote(store), pair[1]]).open(index_of(origin)))
    absent = Descriptor(media_type="a", digest=Digest.of(b"absent"), size=6)
    pair[1].down = False
    with pytest.raises(NotFoundError):
        list(MirroredRemote(pair).open(absent))


def test_a_mirrored_folder_is_not_trusted(pair, store, origin):
    remote = MirroredRemote(pair)
    with pytest.raises(TrustError):
        pull(store, remote, REF, around())
    assert pull(store, remote, REF.pinned(index_of(origin).digest), around()).fetched
