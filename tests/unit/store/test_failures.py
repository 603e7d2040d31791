"""Logs of failed builds: kept, bounded, and gone when the build succeeds."""

import os

import msgspec

from wszoo.digest import Digest
from wszoo.schema.plan import Kind, PlanConfig, Target
from wszoo.store import failures
from wszoo.store.built import build_key
from wszoo.store.failures import MAX_LOG, Failure, failure_path, failures_of, forget_failure, keep_failure


def wanted(target="rtx-sm86"):
    digest = Digest.of(b"")
    made_for = Target(name=target, backend="tensorrt_rtx")
    return PlanConfig(
        component="net",
        target=made_for,
        kind=Kind.SPLICE,
        engine_digest=digest,
        engine_bytes=0,
        graph=digest,
        weights=digest,
    )


def failure(**changes):
    facts = {"model": "net:1", "component": "net", "target": "rtx-sm86", "where": "n", "kind": "BuildError"}
    return Failure(**facts, message="no", **changes)


def test_the_end_of_a_log_is_kept(store):
    keep_failure(store, wanted(), failure(log="x" * MAX_LOG + "the end"))
    (kept,) = failures_of(store, "net:1")
    assert kept.log.endswith("the end")
    assert len(kept.log) == MAX_LOG


def test_a_build_that_succeeds_is_no_failure_any_more(store):
    keep_failure(store, wanted(), failure())
    forget_failure(store, wanted())
    forget_failure(store, wanted())
    assert failures_of(store, "net:1") == []


def test_the_oldest_go_when_there_are_too_many(store, monkeypatch):
    monkeypatch.setattr(failures, "KEPT", 3)
    for number in range(5):
        target = f"rtx-sm8{number}"
        path = keep_failure(store, wanted(target), msgspec.structs.replace(failure(), target=target))
        os.utime(path, (number, number))
    assert [each.target for each in failures_of(store, "net:1")] == ["rtx-sm84", "rtx-sm83", "rtx-sm82"]


def test_failures_are_those_of_one_model(store):
    keep_failure(store, wanted(), failure())
    assert failures_of(store, "net:2") == []


def test_a_damaged_record_is_left_out(store):
    keep_failure(store, wanted(), failure())
    failure_path(store, wanted()).write_bytes(b"{")
    assert failures_of(store, "net:1") == []


def test_a_build_has_one_key_before_and_after_it_was_done():
    done = msgspec.structs.replace(wanted(), engine_digest=Digest.of(b"plan"), engine_bytes=4)
    assert build_key(done) == build_key(wanted())
    assert build_key(wanted("rtx-sm89")) != build_key(wanted())
