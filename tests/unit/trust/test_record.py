"""What a store remembers about trust, whoever writes last."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from faults.disk import Disk, load, replay, write_out

from wszoo.digest import Digest
from wszoo.names import Ref
from wszoo.schema.trust import Decision, How, Seen
from wszoo.store.store import Store
from wszoo.trust.record import decision_about, newest_seen, remember

REF = Ref.parse("net:1")
INDEX, OTHER = Digest.of(b"one"), Digest.of(b"two")


def decision(how=How.SIGNED, *, index=INDEX, release=None, remote="https://zoo", ref="net:1"):
    expires = datetime(2030, 1, 1, tzinfo=UTC) if release else None
    return Decision(how=how, ref=ref, index=index, remote=remote, key="ab" * 16, release=release, expires=expires)


def test_a_decision_is_kept_for_its_index(store):
    assert decision_about(store.layout, INDEX) is None
    remember(store.layout, decision(release=3))
    assert decision_about(store.layout, INDEX) == decision(release=3)
    assert decision_about(store.layout, OTHER) is None


@pytest.mark.parametrize("weaker", [How.LOCKED, How.PINNED, How.FOLDER, How.UNSIGNED])
def test_a_weaker_reason_does_not_replace_a_stronger_one(store, weaker):
    remember(store.layout, decision(weaker))
    assert decision_about(store.layout, INDEX).how is weaker
    remember(store.layout, decision(release=1))
    remember(store.layout, decision(weaker))
    assert decision_about(store.layout, INDEX).how is How.SIGNED


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_the_newest_release_counts_in_whatever_order_it_was_written(store, order):
    for release in order:
        remember(store.layout, decision(index=Digest.of(bytes([release])), release=release))
    assert newest_seen(store.layout, "https://zoo", REF) == Seen(release=3, index=Digest.of(b"\3"))


def test_releases_are_kept_by_remote_and_ref(store):
    remember(store.layout, decision(release=3))
    assert newest_seen(store.layout, "https://other", REF) is None
    assert newest_seen(store.layout, "https://zoo", Ref.parse("net:2")) is None
    assert newest_seen(store.layout, "https://zoo", REF).release == 3


def test_the_largest_number_is_no_exception(store):
    remember(store.layout, decision(release=(1 << 63) - 1))
    remember(store.layout, decision(index=OTHER, release=10**18))
    assert newest_seen(store.layout, "https://zoo", REF).release == (1 << 63) - 1


def test_what_is_not_ours_is_passed_over(store):
    remember(store.layout, decision(release=3))
    (folder,) = store.layout.releases.iterdir()
    (folder / "desktop.ini").touch()
    (folder / f"{'9' * 19}-short").touch()
    assert newest_seen(store.layout, "https://zoo", REF).release == 3
    (store.layout.accepted / f"{OTHER.hex}.json").write_text("{")
    assert decision_about(store.layout, OTHER) is None


def test_a_decision_under_another_name_is_no_decision(store):
    remember(store.layout, decision(release=3))
    data = (store.layout.accepted / f"{INDEX.hex}.json").read_bytes()
    (store.layout.accepted / f"{OTHER.hex}.json").write_bytes(data)
    assert decision_about(store.layout, OTHER) is None


def test_a_release_is_not_forgotten_when_the_power_fails(store, tmp_path):
    store.layout.create()
    before = load(store.layout.root)
    with Disk(store.layout.root).installed() as disk:
        remember(store.layout, decision(release=3))
    replay(before, [step for step in disk.log if step.kind not in {"failed", "utime"}])
    write_out(before, tmp_path / "after", lambda _: "safe")
    after = Store(tmp_path / "after").layout
    assert newest_seen(after, "https://zoo", REF) == Seen(release=3, index=INDEX)
    assert decision_about(after, INDEX) == decision(release=3)
