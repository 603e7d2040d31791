# ruff: noqa: D102 - a contract's tests are named for what they check
"""The contracts that every remote keeps, to be inherited in a plugin's tests.

A remote that is read::

    class TestMyRemote(ReadContract):
        @pytest.fixture
        def remote(self, zoo):      # serve the folder zoo.layout.root as it stands
            ...

A remote that is also written; ``connect`` opens the same place, empty at first, each time it is called::

    class TestMyRemote(WriteContract, AtomicTagContract):
        @pytest.fixture
        def connect(self, tmp_path):
            return lambda: MyRemote(tmp_path)

:class:`AtomicTagContract` is for places that can compare and swap; leave it out where they cannot.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wszoo.digest import Digest
from wszoo.distribution.push import push
from wszoo.errors import NotFoundError, RemoteError, UsageError
from wszoo.names import Ref
from wszoo.remotes.protocol import writable
from wszoo.schema.decode import MAX_MANIFEST
from wszoo.schema.oci import INDEX, Descriptor
from wszoo.store.documents import reachable
from wszoo.testing.zoo import FIRST, PACK_BYTES, SECOND, publish_sample, sample_zoo
from wszoo.transfer import RemoteDocuments
from wszoo.trust.signatures import signatures_here, signatures_there
from wszoo.trust.vouching import sign

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wszoo.remotes.protocol import Remote, WritableRemote
    from wszoo.store.store import Store
    from wszoo.trust.signatures import StoredSignature

LARGEST_PIECE = 4 << 20
READERS = 8


def read_all(remote: Remote, descriptor: Descriptor, offset: int = 0, length: int | None = None) -> bytes:
    """A range of a blob in one piece; a piece may be overwritten when the next one is asked for, hence the copies."""
    return b"".join(bytes(piece) for piece in remote.open(descriptor, offset, length))


def content(store: Store, ref: Ref) -> list[Descriptor]:
    """Everything that a ref reaches in a store, the index first."""
    found = reachable(store, store.refs.get(ref).descriptor, None)
    return list({each.digest: each for each in found}.values())


class ReadContract:
    """What pulling relies on. ``remote`` serves the two models of :func:`wszoo.testing.zoo.sample_zoo`."""

    @pytest.fixture
    def zoo(self, tmp_path: Path) -> Store:
        """What the remote is to serve."""
        return sample_zoo(tmp_path / "zoo")

    @pytest.fixture
    def remote(self, zoo: Store) -> Remote:
        """The remote under test, opened."""
        raise NotImplementedError("override the fixture 'remote'")

    def test_it_says_what_it_is(self, remote: Remote) -> None:
        assert isinstance(remote.url, str)
        assert remote.url
        assert isinstance(remote.trusted, bool)

    def test_every_ref_is_listed(self, remote: Remote) -> None:
        assert sorted(ref.tagged for ref in remote.refs()) == sorted([FIRST.tagged, SECOND.tagged])

    @pytest.mark.parametrize("ref", [FIRST, SECOND], ids=str)
    def test_a_ref_resolves_to_its_index(self, remote: Remote, zoo: Store, ref: Ref) -> None:
        expected = zoo.refs.get(ref).descriptor
        found = remote.resolve(ref)
        assert (found.digest, found.size) == (expected.digest, expected.size)

    @pytest.mark.parametrize("text", ["net:2", "nowhere:1", "acme/net:1"])
    def test_an_unknown_ref_is_not_found(self, remote: Remote, text: str) -> None:
        with pytest.raises(NotFoundError, match=text.partition(":")[0]):
            remote.resolve(Ref.parse(text))

    @pytest.mark.parametrize("ref", [FIRST, SECOND], ids=str)
    def test_every_blob_arrives_as_it_is(self, remote: Remote, zoo: Store, ref: Ref) -> None:
        remote.resolve(ref)
        for descriptor in content(zoo, ref):
            assert Digest.of(read_all(remote, descriptor)) == descriptor.digest

    def test_ranges_are_exact_at_every_edge(self, remote: Remote, zoo: Store) -> None:
        pack, data = self._pack(remote, zoo)
        n = len(data)
        edges = (0, 1, LARGEST_PIECE - 1, LARGEST_PIECE, LARGEST_PIECE + 1, n // 2, n - 1, n)
        for offset in edges:
            assert read_all(remote, pack, offset) == data[offset:]
            for length in (0, 1, 2, LARGEST_PIECE, n - offset):
                if offset + length <= n:
                    assert read_all(remote, pack, offset, length) == data[offset : offset + length]

    def test_ranges_reach_into_small_documents(self, remote: Remote, zoo: Store) -> None:
        index = remote.resolve(FIRST)
        data = zoo.blobs.read(index.digest, limit=MAX_MANIFEST)
        assert read_all(remote, index, 3, 10) == data[3:13]
        for child in (each for each in content(zoo, FIRST)[1:] if each.size):
            assert read_all(remote, child, 1, 2) == zoo.blobs.read(child.digest, limit=PACK_BYTES)[1:3]

    def test_pieces_are_bounded(self, remote: Remote, zoo: Store) -> None:
        pack, _ = self._pack(remote, zoo)
        assert max(len(piece) for piece in remote.open(pack)) <= LARGEST_PIECE

    def test_several_threads_read_at_once(self, remote: Remote, zoo: Store) -> None:
        pack, data = self._pack(remote, zoo)
        step = len(data) // READERS + 1
        with ThreadPoolExecutor(READERS) as pool:
            parts = pool.map(
                lambda at: read_all(remote, pack, at, min(step, len(data) - at)), range(0, len(data), step)
            )
            assert b"".join(parts) == data

    def test_a_read_that_is_given_up_does_not_spoil_the_next(self, remote: Remote, zoo: Store) -> None:
        pack, data = self._pack(remote, zoo)
        pieces = remote.open(pack)
        next(pieces)
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
        assert read_all(remote, pack, 7, 9) == data[7:16]

    def test_a_missing_blob_is_not_found(self, remote: Remote) -> None:
        remote.resolve(FIRST)
        absent = Descriptor(media_type="application/octet-stream", digest=Digest.of(b"absent"), size=6)
        with pytest.raises(NotFoundError, match=absent.digest.hex):
            read_all(remote, absent)
        with pytest.raises(NotFoundError, match=absent.digest.hex):
            read_all(remote, absent, 2, 3)

    def _pack(self, remote: Remote, zoo: Store) -> tuple[Descriptor, bytes]:
        remote.resolve(FIRST)
        found = next(each for each in content(zoo, FIRST) if each.size == PACK_BYTES)
        return found, zoo.blobs.read(found.digest, limit=PACK_BYTES)


class WriteContract(ReadContract):
    """What pushing relies on, and that what was pushed can be read. ``connect`` opens one place, empty at first."""

    @pytest.fixture
    def connect(self) -> Callable[[], WritableRemote]:
        """A function that opens the place."""
        raise NotImplementedError("override the fixture 'connect'")

    @pytest.fixture
    def remote(self, zoo: Store, connect: Callable[[], WritableRemote]) -> Remote:
        """The zoo, pushed, and then opened anew."""
        for ref in (FIRST, SECOND):
            push(zoo, connect(), ref)
        return connect()

    def test_an_empty_place_has_nothing(self, zoo: Store, connect: Callable[[], WritableRemote]) -> None:
        remote = writable(connect())
        assert remote.refs() == []
        with pytest.raises(NotFoundError):
            remote.resolve(FIRST)
        everything = content(zoo, FIRST)[1:]
        assert remote.missing(FIRST, everything) == everything

    def test_a_push_sends_everything_once(self, zoo: Store, connect: Callable[[], WritableRemote]) -> None:
        first = push(zoo, connect(), FIRST)
        assert {each.digest for each in first.sent} == {each.digest for each in content(zoo, FIRST)[1:]}
        again = push(zoo, connect(), FIRST)
        assert (again.sent, again.moved) == ((), False)

    def test_only_what_is_missing_is_sent(self, zoo: Store, connect: Callable[[], WritableRemote]) -> None:
        push(zoo, connect(), FIRST)
        before = {each.digest for each in content(zoo, FIRST)}
        publish_sample(zoo, FIRST, seed=1, targets=["rtx-sm120"])
        report = push(zoo, connect(), FIRST)
        after = content(zoo, FIRST)
        assert {each.digest for each in report.sent} == {each.digest for each in after[1:]} - before
        assert report.sent
        assert connect().resolve(FIRST).digest == after[0].digest

    def test_putting_again_does_no_harm(self, zoo: Store, connect: Callable[[], WritableRemote]) -> None:
        push(zoo, connect(), FIRST)
        for descriptor in content(zoo, FIRST)[1:]:
            connect().put(FIRST, descriptor, zoo.blobs.path(descriptor.digest))
        assert push(zoo, connect(), FIRST).sent == ()

    def test_a_tag_is_not_moved_when_plans_would_be_lost(
        self, zoo: Store, connect: Callable[[], WritableRemote], tmp_path: Path
    ) -> None:
        push(zoo, connect(), FIRST)
        other = sample_zoo(tmp_path / "second")
        index = publish_sample(other, FIRST, seed=3, targets=["rtx-sm75"], pack=100)
        with pytest.raises(UsageError, match="net:1"):
            push(other, connect(), FIRST)
        assert connect().resolve(FIRST).digest == zoo.refs.get(FIRST).descriptor.digest
        assert push(other, connect(), FIRST, replace=True).moved
        assert connect().resolve(FIRST).digest == index.digest

    def test_a_tag_that_moved_is_left_alone(self, zoo: Store, connect: Callable[[], WritableRemote]) -> None:
        push(zoo, connect(), FIRST)
        index, data = _new_index(zoo, connect(), "rtx-sm120")
        there = connect().resolve(FIRST).digest
        assert not connect().tag(FIRST, index, data, None)
        assert not connect().tag(FIRST, index, data, Digest.of(b"another"))
        assert connect().resolve(FIRST).digest == there
        assert connect().tag(FIRST, index, data, there)
        assert connect().resolve(FIRST).digest == index.digest

    def test_a_second_name_keeps_the_first(self, zoo: Store, connect: Callable[[], WritableRemote]) -> None:
        alias = Ref.parse("net:stable")
        push(zoo, connect(), FIRST)
        push(zoo, connect(), FIRST, target=alias)
        assert connect().resolve(alias).digest == connect().resolve(FIRST).digest
        assert sorted(ref.tagged for ref in connect().refs()) == sorted([FIRST.tagged, alias.tagged])

    def test_signatures_travel_with_the_index_and_are_no_models(
        self, zoo: Store, connect: Callable[[], WritableRemote]
    ) -> None:
        key = Ed25519PrivateKey.generate()
        sign(zoo, FIRST, key, expires=datetime.now(UTC) + timedelta(days=1), release=1)
        assert push(zoo, connect(), FIRST).signatures == 1
        remote = connect()
        assert remote.refs() == [FIRST]
        index = remote.resolve(FIRST).digest
        assert _signatures(remote, index) == signatures_here(zoo, FIRST, index)
        sign(zoo, FIRST, key, expires=datetime.now(UTC) + timedelta(days=1), release=2)
        assert push(zoo, connect(), FIRST).signatures == 1
        assert len(signatures_here(zoo, FIRST, index)) == len(_signatures(connect(), index))
        assert push(zoo, connect(), FIRST).signatures == 0


class AtomicTagContract:
    """For places that compare and swap: of several pushes at once to one tag, one wins and the others are told."""

    def test_of_several_at_once_one_wins(
        self, zoo: Store, connect: Callable[[], WritableRemote], tmp_path: Path
    ) -> None:
        stores = [sample_zoo(tmp_path / f"racer{number}") for number in range(4)]
        for number, store in enumerate(stores):
            publish_sample(store, FIRST, seed=10 + number, targets=["rtx-sm75"], pack=100)
        push(zoo, connect(), SECOND)

        def race(store: Store) -> bool:
            try:
                push(store, connect(), FIRST)
            except (UsageError, RemoteError):
                return False
            return True

        with ThreadPoolExecutor(len(stores)) as pool:
            won = list(pool.map(race, stores))
        assert won.count(True) == 1
        winner = stores[won.index(True)].refs.get(FIRST).descriptor.digest
        assert connect().resolve(FIRST).digest == winner
        assert connect().resolve(SECOND).digest == zoo.refs.get(SECOND).descriptor.digest


def _signatures(remote: Remote, index: Digest) -> list[StoredSignature]:
    remote.resolve(FIRST)
    return list(signatures_there(remote, RemoteDocuments(remote), FIRST, index).whole)


def _new_index(zoo: Store, remote: WritableRemote, target: str) -> tuple[Descriptor, bytes]:
    """One more plan in the zoo and on the remote, and the index that lists it, not yet there."""
    made = publish_sample(zoo, FIRST, seed=1, targets=[target])
    rest = content(zoo, FIRST)[1:]
    for descriptor in remote.missing(FIRST, sorted(rest, key=lambda each: each.artifact_type != "")):
        remote.put(FIRST, descriptor, zoo.blobs.path(descriptor.digest))
    return Descriptor(media_type=INDEX, digest=made.digest, size=made.size), zoo.blobs.read(
        made.digest, limit=MAX_MANIFEST
    )
