"""A folder as a remote: read only, in pieces, and plain about what is missing."""

from __future__ import annotations

import os

import pytest
from builders import snapshot

from wszoo.digest import Digest
from wszoo.errors import NotFoundError, RemoteError
from wszoo.names import Ref
from wszoo.remotes.directory import DirectoryRemote, DirectoryType
from wszoo.schema.oci import Descriptor
from wszoo.store.store import Store


def blob(store, data):
    return Descriptor(media_type="a", digest=store.blobs.put(data), size=len(data))


def test_refs_and_blobs_are_read_without_changing_anything(origin):
    before = snapshot(origin.layout.root)
    remote = DirectoryType().open(str(origin.layout.root))
    assert remote.refs() == [Ref.parse("net:1")]
    descriptor = remote.resolve(Ref.parse("net:1"))
    data = b"".join(remote.open(descriptor))
    assert Digest.of(data) == descriptor.digest
    assert snapshot(origin.layout.root) == before


def test_a_blob_comes_in_bounded_pieces_from_any_offset(store):
    data = os.urandom((9 << 20) + 5)
    remote, descriptor = DirectoryRemote(store.layout.root), blob(store, data)
    pieces = list(remote.open(descriptor))
    assert max(map(len, pieces)) <= 4 << 20
    assert b"".join(pieces) == data
    for offset in (1, 4 << 20, len(data) - 1, len(data), len(data) + 1):
        assert b"".join(remote.open(descriptor, offset)) == data[offset:]


def test_a_missing_blob_says_that_the_store_is_incomplete(store):
    absent = Descriptor(media_type="a", digest=Digest.of(b"absent"), size=6)
    with pytest.raises(NotFoundError, match=absent.digest) as caught:
        list(DirectoryRemote(store.layout.root).open(absent))
    assert "wszoo verify" in caught.value.hint


def test_a_blob_that_cannot_be_read_is_the_remotes_fault(store):
    descriptor = blob(store, b"x")
    store.blobs.path(descriptor.digest).unlink()
    store.blobs.path(descriptor.digest).mkdir()
    with pytest.raises(RemoteError, match=descriptor.digest.hex):
        list(DirectoryRemote(store.layout.root).open(descriptor))


def test_an_unknown_ref_lists_those_of_the_name(origin):
    with pytest.raises(NotFoundError, match="net:2") as caught:
        DirectoryRemote(origin.layout.root).resolve(Ref.parse("net:2"))
    assert "net:1" in caught.value.hint


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.mkdir(), "oci-layout"),
        (lambda path: path.write_bytes(b""), "oci-layout"),
    ],
)
def test_what_is_no_store_is_refused(tmp_path, make, why):
    path = tmp_path / "folder"
    make(path)
    with pytest.raises(NotFoundError, match=why) as caught:
        DirectoryType().open(str(path))
    assert repr(str(path)) in caught.value.message


def test_a_file_url_is_accepted(origin):
    assert DirectoryType().open(f"file://{origin.layout.root}").refs() == [Ref.parse("net:1")]


def test_a_folder_that_the_user_names_is_trusted(store):
    assert DirectoryType().open(str(Store(store.layout.root).layout.root)).trusted
