"""A model that was pulled for one machine is made whole, so that others can have it from here."""

from __future__ import annotations

import pytest
from builders import SimulatedRemote, age, around
from unit.transfer.partly import publish_two

from wszoo.distribution.complete import complete
from wszoo.distribution.pull import pull
from wszoo.distribution.push import push
from wszoo.errors import NotFoundError
from wszoo.names import Ref
from wszoo.remotes.directory import DirectoryRemote
from wszoo.store.gc import collect
from wszoo.store.store import Store
from wszoo.store.verify import verify
from wszoo.store.wholeness import advice, lack_of
from wszoo.text import counted
from wszoo.transfer import RemoteDocuments

NET, B = Ref.parse("net:1"), Ref.parse("b:1")


@pytest.fixture
def partly(tmp_path, store):
    """A store that has ``b`` without the tensors' own pack; and the remote of ``b``."""
    made = publish_two(tmp_path)
    pull(store, SimulatedRemote(made["a"]), Ref.parse("a:1"), around("sm89"))
    remote = SimulatedRemote(made["b"])
    pull(store, remote, B, around("sm89"))
    return store, remote


def place(folder):
    """An empty folder to push to."""
    Store(folder / "away").layout.create()
    return DirectoryRemote(folder / "away")


def test_what_was_pulled_for_one_gpu_gets_the_other_plans(origin, store, tmp_path):
    remote = SimulatedRemote(origin)
    pull(store, remote, NET, around("sm89"))
    lack = lack_of(store, store.refs.get(NET))
    assert lack.plans
    assert (lack.packs, lack.gone) == ((), ())
    assert str(lack) == f"{counted(len(lack.plans), 'plan')} for other GPUs not pulled"
    fetched = complete(store, RemoteDocuments(remote), NET)
    assert set(lack.plans) <= {each.digest for each in fetched}
    assert not lack_of(store, store.refs.get(NET))
    assert store.refs.get(NET).held is None
    push(store, place(tmp_path), NET)
    assert set(Store(tmp_path / "away").blobs.all()) == set(origin.blobs.all())


def test_a_pack_that_is_here_in_part_is_fetched_whole_and_pushed(partly, tmp_path):
    store, remote = partly
    (pack,) = lack_of(store, store.refs.get(B)).packs
    assert pack in {each.digest for each in complete(store, RemoteDocuments(remote), B)}
    assert not lack_of(store, store.refs.get(B))
    push(store, place(tmp_path), B)
    age(store)
    collect(store)
    assert store.blobs.size(pack) is not None
    assert verify(store).problems == ()


def test_a_push_of_a_pack_in_part_names_it_and_the_command_that_brings_the_rest(partly, tmp_path):
    store, _ = partly
    entry = store.refs.get(B)
    (pack,) = lack_of(store, entry).packs
    with pytest.raises(NotFoundError, match=r"1 pack here only in part") as caught:
        push(store, place(tmp_path), B)
    assert pack.short in caught.value.message
    assert advice(entry) in caught.value.hint
    assert entry.source
    assert entry.source in advice(entry)


def test_completing_again_fetches_nothing(partly):
    store, remote = partly
    complete(store, RemoteDocuments(remote), B)
    remote.opened.clear()
    assert complete(store, RemoteDocuments(remote), B) == ()
    assert remote.opened == []


def test_a_remote_that_does_not_have_the_model_is_named(partly, tmp_path):
    store, _ = partly
    other = Store(tmp_path / "other")
    other.layout.create()
    with pytest.raises(NotFoundError, match="b:1"):
        complete(store, RemoteDocuments(SimulatedRemote(other)), B)
    assert lack_of(store, store.refs.get(B)).packs


def test_a_remote_that_is_incomplete_itself_leaves_the_model_usable(partly):
    store, remote = partly
    (pack,) = lack_of(store, store.refs.get(B)).packs
    Store(remote._store.layout.root).blobs.path(pack).unlink()
    with pytest.raises(NotFoundError, match=pack.hex):
        complete(store, RemoteDocuments(remote), B)
    assert store.refs.get(B).held is not None
    assert verify(store).problems == ()
