"""Driving cells: order, failures, nodes that go away. The crews here are fakes; the plans are documents only."""

from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import pytest

from wszoo.building.cell import Cell
from wszoo.digest import Digest
from wszoo.errors import IntegrityError
from wszoo.executors.protocol import Lost, Need, Node
from wszoo.fleet import drive
from wszoo.fleet.drive import Driver
from wszoo.fleet.matrix import Planned
from wszoo.fleet.work import Outcome, Problem
from wszoo.names import Ref
from wszoo.progress import Silent
from wszoo.schema.oci import MANIFEST, Descriptor
from wszoo.schema.plan import Kind, Target


def descriptor(text):
    return Descriptor(media_type=MANIFEST, digest=Digest.of(text.encode()), size=len(text))


def planned(target, kind=Kind.SPLICE, model="m"):
    cell = Cell(model=descriptor(model), component="net", target=Target(name=target, backend="rtx"))
    return Planned(ref=Ref.parse("net:1"), cell=cell, wanted=None, need=Need(labels={"l": ("1",)}), kind=kind)


class FakeCrew:
    """Runs a task when the test says so: the last one submitted first."""

    shares_store = False

    def __init__(self, *, alive=True):
        self.alive, self.orders, self.cancelled = alive, [], []

    def nodes(self):
        return [Node(name="n", labels={"l": "1"}, memory=1)] if self.alive else []

    def submit(self, function, argument, need):
        future = Future()
        self.orders.append(argument)
        if self.alive:
            try:
                future.set_result(function(argument))
            except Lost as error:
                future.set_exception(error)
        return future

    def cancel(self, future):
        future.cancel()


def run(crew, todo, work, known=()):
    results = []

    def land(planned, outcome):
        if "bad" in planned.cell.target.name:
            raise IntegrityError("not what was ordered")
        return SimpleNamespace(descriptor=outcome.plan, config=SimpleNamespace(kind=planned.kind))

    Driver(crew, work, lambda planned: planned.cell, land, Silent()).run(todo, known, results.append)
    return {result.planned.cell.target.name: result for result in results}


def good(cell):
    return Outcome(plan=descriptor(cell.target.name), log="fine", seconds=1.0, where="n")


def test_the_first_of_a_network_is_alone_and_lends_to_the_others():
    crew = FakeCrew()
    found = run(crew, [planned("a"), planned("b"), planned("c")], good)
    assert [cell.known for cell in crew.orders] == [(), (descriptor("a"),), (descriptor("a"),)]
    assert all(result.problem is None for result in found.values())


def test_when_the_first_fails_the_next_takes_its_place():
    def work(cell):
        return Outcome(problem=Problem(kind="BuildError", message="no")) if cell.target.name == "a" else good(cell)

    crew = FakeCrew()
    found = run(crew, [planned("a"), planned("b"), planned("c")], work)
    assert [cell.known for cell in crew.orders] == [(), (), (descriptor("b"),)]
    assert {name: result.problem is None for name, result in found.items()} == {"a": False, "b": True, "c": True}


def test_plans_that_share_nothing_wait_for_nobody():
    crew = FakeCrew()
    run(crew, [planned("a", Kind.NATIVE), planned("b", Kind.NATIVE)], good)
    assert [cell.known for cell in crew.orders] == [(), ()]


def test_a_process_that_died_is_one_failed_cell_with_its_log():
    def work(cell):
        if cell.target.name == "b":
            raise Lost("the process ended", "segmentation fault")
        return good(cell)

    found = run(FakeCrew(), [planned("a"), planned("b"), planned("c")], work)
    assert found["b"].problem == Problem(kind="BuildError", message="the process ended")
    assert found["b"].log == "segmentation fault"
    assert found["c"].plan is not None


def test_a_plan_that_cannot_be_landed_is_a_failed_cell():
    found = run(FakeCrew(), [planned("a"), planned("bad")], good)
    assert found["bad"].problem == Problem(kind="IntegrityError", message="not what was ordered")
    assert found["a"].plan is not None


def test_a_cell_whose_last_node_is_gone_is_given_up(monkeypatch):
    monkeypatch.setattr(drive, "TICK", 0.01)
    monkeypatch.setattr(drive, "PATIENCE", 0.05)
    found = run(FakeCrew(alive=False), [planned("a")], good)
    assert found["a"].problem is not None
    assert "the last node that could build net for a is gone; there is: no node at all" in found["a"].problem.message


def test_a_cell_that_no_node_has_the_memory_for_fails_at_once():
    large = replace(planned("a"), need=Need(labels={"l": ("1",)}, memory=18 << 30))
    crew = FakeCrew()
    found = run(crew, [large, planned("b")], good)
    assert "net for a takes about 19.3 GB, and no node has over 1 B for it" in found["a"].problem.message
    assert found["b"].problem is None
    assert len(crew.orders) == 1


@pytest.mark.parametrize("kind", ["UsageError", "StorageError", "BuildError"])
def test_problems_become_the_errors_that_they_were(kind):
    error = Problem(kind=kind, message="m", hint="h").error()
    assert (type(error).__name__, error.message, error.hint) == (kind, "m", "h")


@pytest.mark.parametrize("kind", ["MissingExtraError", "WszooError", "KeyError", "annotations"])
def test_problems_of_other_kinds_become_build_errors(kind):
    assert type(Problem(kind=kind, message="m").error()).__name__ == "BuildError"
