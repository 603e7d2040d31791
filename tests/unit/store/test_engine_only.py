"""Weights go only when every plan that needs them is kept whole, and come back when one is lost."""

import errno
import os

import msgspec
import pytest
from builders import age, around, publish_model

from wszoo.assemble import Keep, assemble
from wszoo.describe import show
from wszoo.digest import Digest
from wszoo.distribution.complete import complete
from wszoo.distribution.pull import pull as fetch
from wszoo.distribution.pull import select_local
from wszoo.distribution.repair import repair
from wszoo.errors import NotFoundError, UsageError
from wszoo.lock.making import lock_model
from wszoo.lock.pulling import keep_locked, select_locked
from wszoo.model import Model
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.refit import refit
from wszoo.schema.plan import Kind
from wszoo.store import engine_only
from wszoo.store.cache import shrink_cache
from wszoo.store.documents import read_indexed_model
from wszoo.store.gc import collect
from wszoo.store.refitted import keep_refitted, refit_key
from wszoo.store.verify import verify
from wszoo.store.wholeness import lack_of
from wszoo.transfer import RemoteDocuments

REF = Ref.parse("net:1")


def only_engine(store, remote, gpu="sm89"):
    return fetch(store, remote, REF, around(gpu), engines_only=True)


def packs(store):
    entry = store.refs.get(REF)
    return read_indexed_model(store, entry.descriptor).config.packs


def held_packs(store):
    return [pack for pack in packs(store) if store.blobs.size(pack) is not None]


def engine(store, gpu="sm89", **options):
    selection = select_local(store, REF, around(gpu))
    return assemble(store, selection.model, selection.plans["net"], "cuda", Silent(), keep=Keep.ENGINE, **options)


def collected(store):
    age(store)
    return collect(store)


@pytest.fixture
def kept(store, remote):
    """A store with the sm89 plan of ``net:1`` and none of its weights."""
    only_engine(store, remote)
    engine(store)
    assert set(collected(store).deleted) == set(packs(store))
    return store


def test_weights_stay_until_the_plan_is_kept_whole(store, remote):
    only_engine(store, remote)
    assert collected(store).deleted == ()
    assert held_packs(store) == list(packs(store))


@pytest.mark.parametrize("how", ["not stamped", "touched"])
def test_a_plan_that_its_stamp_does_not_vouch_for_is_hashed(store, remote, how):
    """As after a crash between the last byte of the plan and its stamp, or in a copy of the store."""
    only_engine(store, remote)
    path = engine(store).engine
    (store.layout.verified / path.stem).unlink() if how == "not stamped" else os.utime(path, (1, 1))
    assert set(collected(store).deleted) == set(packs(store))
    assert verify(store).problems == ()


def test_a_plan_that_changed_since_it_was_stamped_does_not_count_as_whole(store, remote):
    only_engine(store, remote)
    path = engine(store).engine
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert collected(store).deleted == ()


def test_a_plan_that_cannot_be_read_does_not_count_as_whole(store, remote, monkeypatch):
    only_engine(store, remote)
    os.utime(engine(store).engine, (1, 1))

    def unreadable(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("wszoo.store.engines.tree_of_file", unreadable)
    assert collected(store).deleted == ()
    assert verify(store).problems == ()
    assert fetch(store, remote, REF, around("sm89"), engines_only=True).fetched == ()


def test_a_lock_is_satisfied_by_a_plan_that_is_kept_whole(kept, origin):
    model = lock_model(origin, REF, origin.refs.get(REF).descriptor, around, ["sm89"])
    selection = select_locked(kept, model, around("sm89"))
    keep_locked(kept, model, selection)
    assert collected(kept).deleted == ()
    assert select_locked(kept, model, around("none")) is None
    engine(kept).engine.unlink()
    assert select_locked(kept, model, around("sm89")) is None


def test_show_says_that_weights_may_be_gone(kept):
    assert show(kept, REF).keeps_engines


def test_weights_are_garbage_once_the_plan_is_kept_and_it_assembles_without_them(kept, remote):
    assert held_packs(kept) == []
    assert verify(kept).problems == ()
    assert engine(kept).engine.stat().st_size == engine(kept).config.engine_bytes


def test_a_pull_that_keeps_weights_beside_them_deletes_nothing(store, remote):
    fetch(store, remote, REF, around())
    engine(store)
    assert collected(store).deleted == ()


def test_a_portable_plan_keeps_the_weights_it_needs(store, remote):
    only_engine(store, remote)
    engine(store)
    only_engine(store, remote, "none")
    assert collected(store).deleted == ()


def test_a_plan_for_another_gpu_that_was_never_assembled_keeps_the_weights(store, remote):
    only_engine(store, remote, "sm86")
    only_engine(store, remote, "sm89")
    engine(store)
    assert collected(store).deleted == ()
    engine(store, "sm86")
    assert set(collected(store).deleted) == set(packs(store))


def test_weights_that_another_model_needs_stay(store, remote):
    only_engine(store, remote)
    engine(store)
    publish_model(store, "mine:1")
    assert collected(store).deleted == ()


def test_what_was_built_here_is_never_let_go_of(store):
    publish_model(store, "net:1")
    with pytest.raises(UsageError, match=r"net:1 was built here .* its weights stay"):
        engine_only.keep_engines_only(store, store.refs.get(REF))
    assert not engine_only.spare_packs(store, store.refs.get(REF))


def test_an_origin_is_asked_for_nothing_when_what_is_here_is_built(store, remote):
    publish_model(store, "net:1")
    with pytest.raises(UsageError, match="its weights stay"):
        only_engine(store, remote)
    assert remote.opened == []


def test_pulling_again_fetches_no_weights_and_pulling_for_weights_fetches_them(kept, remote):
    assert only_engine(kept, remote).fetched == ()
    assert {each.digest for each in fetch(kept, remote, REF, around()).fetched} == set(packs(kept))
    assert collected(kept).deleted == ()


def test_another_plan_of_the_model_brings_the_weights_again(kept, remote):
    assert set(packs(kept)) <= {each.digest for each in only_engine(kept, remote, "sm86").fetched}


def test_a_lost_plan_says_which_pull_fetches_its_weights(kept, origin):
    engine(kept).engine.unlink()
    model = Model(kept, select_local(kept, REF, around()), Silent(), keep=Keep.ENGINE)
    with pytest.raises(
        NotFoundError, match="net:1 was pulled with --keep engine: the plan kept of net is gone"
    ) as error:
        model["net"].assemble()
    assert error.value.hint == f"fetch them again: wszoo pull net:1 --from {origin.layout.root}"


@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_verify_misses_the_weights_of_a_plan_that_is_lost_and_repair_fetches_them(kept, remote, how):
    path = engine(kept).engine
    path.unlink() if how == "lost" else path.write_bytes(b"?" * path.stat().st_size)
    assert {problem.what for problem in verify(kept).problems} == {"missing"} | ({how} & {"damaged"})
    report = repair(kept, lambda _: [remote])
    assert (report.left, set(report.fetched)) == ((), set(packs(kept)))
    assert engine(kept).engine.is_file()


def test_a_limit_on_assembled_plans_spares_those_that_stand_in_for_weights(kept):
    for path in (engine(kept).engine, *kept.layout.verified.iterdir()):
        os.utime(path, (1, 1))
    assert shrink_cache(kept, 0).deleted == ()
    kept.refs.swap(REF, None, held=None, expected=kept.refs.get(REF))
    assert len(shrink_cache(kept, 0).deleted) == 1


def test_what_was_let_go_of_is_no_damage_but_lacks_for_a_push(kept):
    lack = lack_of(kept, kept.refs.get(REF))
    assert (lack.gone, lack.let_go) == ((), packs(kept))
    assert "let go of, because only engines are kept" in str(lack)


def test_the_note_goes_with_the_model(kept):
    assert list(kept.layout.engine_only.iterdir())
    kept.refs.swap(REF, None, held=None, expected=kept.refs.get(REF))
    for path in kept.layout.engine_only.iterdir():
        os.utime(path, (1, 1))
    collected(kept)
    assert list(kept.layout.engine_only.iterdir()) == []


def test_a_native_plan_counts_when_it_is_kept_with_these_very_weights(store, remote):
    only_engine(store, remote)
    selection = select_local(store, REF, around())
    plan, model = selection.plans["net"].config, selection.model.config
    native = msgspec.structs.replace(plan, kind=Kind.NATIVE)
    folder = store.layout.runtime / native.kept_as.hex
    assert engine_only.packs_beside(store.layout, model, [native]) == frozenset()
    keep_refitted(folder, refit_key(Digest.of(b"weights of another version"), "here"), memoryview(b"engine"))
    assert engine_only.packs_beside(store.layout, model, [native]) == frozenset()
    path = keep_refitted(folder, refit_key(plan.weights, "here"), memoryview(b"engine"))
    assert engine_only.packs_beside(store.layout, model, [native]) == set(model.packs)
    os.utime(path, (1, 1))
    assert engine_only.packs_beside(store.layout, model, [native]) == set(model.packs)
    path.write_bytes(b"engin?")
    assert engine_only.packs_beside(store.layout, model, [native]) == frozenset()
    (problem,) = [each for each in verify(store).problems if each.path == str(path)]
    assert problem.what == "damaged"


def test_refitting_with_weights_that_were_let_go_of_says_which_pull_fetches_them(kept, origin):
    with pytest.raises(NotFoundError, match="net:1 was pulled with --keep engine, and its weights are not") as error:
        refit(kept, REF, REF)
    assert error.value.hint == f"fetch them again: wszoo pull net:1 --from {origin.layout.root}"


def test_completing_a_model_brings_its_weights_to_stay(kept, remote):
    complete(kept, RemoteDocuments(remote), REF)
    assert held_packs(kept) == list(packs(kept))
    assert not engine_only.keeps_engines_only(kept.layout, kept.refs.get(REF).descriptor.digest)
    assert not set(collected(kept).deleted) & set(packs(kept))


@pytest.mark.parametrize("defect", ["no such frame", "no such pack", "no such component"])
def test_a_malformed_tensor_table_lets_nothing_go(store, remote, defect):
    selection = only_engine(store, remote).selection
    model, plans = selection.model.config, [plan.config for plan in selection.plans.values()]
    changes = {
        "no such frame": {"frames": {}},
        "no such pack": {"packs": ()},
        "no such component": {"components": {}},
    }
    broken = msgspec.structs.replace(model, **changes[defect])
    assert engine_only.packs_beside(store.layout, broken, plans) == frozenset()
