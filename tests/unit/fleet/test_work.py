"""What runs on a node, run here: with a store of the node's own and a folder in between."""

import logging

import pytest
from zoos import job, network

from wszoo.building.cell import Cell
from wszoo.digest import Digest
from wszoo.distribution.push import send
from wszoo.fleet import work
from wszoo.fleet.publishing import Settings
from wszoo.fleet.run import build_matrix
from wszoo.fleet.work import Order, Problem, build_away, build_here, complete_target
from wszoo.names import Ref, TargetSpec
from wszoo.places import open_for_push
from wszoo.plugins import registry
from wszoo.progress import Silent
from wszoo.publish import read_published
from wszoo.schema.oci import MANIFEST, Descriptor
from wszoo.store.store import Store


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A node's own store."""
    monkeypatch.setenv("WSZOO_STORE", str(tmp_path / "node"))
    return Store(tmp_path / "node")


@pytest.fixture
def order(tmp_path):
    """A plan for 8.9 of a model whose blobs are in a remote; the plan for 8.6 may lend."""
    driver, remote = Store(tmp_path / "driver"), open_for_push(str(tmp_path / "remote"))
    wanted = job("net:1", network(tmp_path / "net.onnx"), "rtx-sm86")
    build_matrix(driver, registry(), [wanted], Settings(executor="inline"), Silent())
    there = read_published(driver, Ref.parse("net:1"))
    (lender,) = there.plans
    send(driver, remote, Ref.parse("net:1"), [*there.model.blobs, *lender.blobs], Silent())
    target = registry().backend_for("rtx").target(TargetSpec.parse("rtx-sm89"))
    cell = Cell(model=there.model.descriptor, component="model", target=target, known=(lender.descriptor,))
    return Order(cell=cell, ref="net:1", remote=str(tmp_path / "remote"), store=str(tmp_path / "driver"))


def test_a_node_fetches_builds_and_puts_the_plan_into_the_remote(node, order, tmp_path):
    outcome = build_away(order)
    assert outcome.problem is None
    assert Store(tmp_path / "remote").blobs.size(outcome.plan.digest) == outcome.plan.size
    assert outcome.plan == build_here(order).plan
    assert node.refs.all() == []


def test_a_remote_without_the_model_is_a_problem_and_no_exception(node, order, tmp_path):
    (empty := tmp_path / "empty").mkdir()
    Store(empty).layout.create()
    outcome = build_away(Order(cell=order.cell, ref="net:1", remote=str(empty)))
    assert outcome.plan is None
    assert outcome.problem.kind == "NotFoundError"


def test_a_defect_comes_back_with_its_traceback(order, monkeypatch):
    monkeypatch.setattr(work, "build_cell", lambda *_: 1 / 0)
    outcome = build_here(order)
    assert outcome.problem.message == "ZeroDivisionError: division by zero"
    assert "in <lambda>" in outcome.log


def test_what_builders_log_comes_along_in_bounds(order, monkeypatch):
    def chatty(*_):
        for number in range(work._LINES + 5):
            logging.getLogger("wszoo.tensorrt_rtx").info("line %d %s", number, "x" * 10 * work._LINE)
        raise ValueError

    monkeypatch.setattr(work, "build_cell", chatty)
    log = build_here(order).log
    assert len(log) < (work._LINES + 1) * (work._LINE + 1)
    assert "line 900 " in log
    assert "line 0 " not in log


def test_a_target_is_completed_or_the_reason_told():
    assert complete_target("rtx-sm89").compute_capabilities == ("8.9",)
    assert isinstance(complete_target("rtx-sm77"), Problem)


def test_a_cell_of_an_unknown_model_is_a_problem(node, order):
    nowhere = Descriptor(media_type=MANIFEST, digest=Digest.of(b"nowhere"), size=7)
    cell = Cell(model=nowhere, component="model", target=order.cell.target)
    assert build_away(Order(cell=cell, ref="net:1", remote=order.remote)).problem.kind == "NotFoundError"
