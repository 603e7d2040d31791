"""One cell of the matrix, built from what is in a store: real TensorRT-RTX plans."""

import msgspec
import pytest
from zoos import job, network

from wszoo.building import cell as cells
from wszoo.building.cell import Cell, build_cell, memory_needed, wanted_plan
from wszoo.errors import IncompatibleError, NotFoundError
from wszoo.fleet.publishing import Settings
from wszoo.fleet.run import build_matrix
from wszoo.names import Ref, TargetSpec
from wszoo.plugins import registry
from wszoo.progress import Silent
from wszoo.publish import read_published
from wszoo.store.built import recall
from wszoo.store.store import Store


@pytest.fixture
def published(tmp_path):
    """A store with one model, and its plan for 8.6."""
    store = Store(tmp_path / "built")
    wanted = job("net:1", network(tmp_path / "net.onnx"), "rtx-sm86")
    build_matrix(store, registry(), [wanted], Settings(executor="inline"), Silent())
    return store, read_published(store, Ref.parse("net:1"))


def cell_for(published, **changes):
    _, there = published
    target = registry().backend_for("rtx").target(TargetSpec.parse("rtx-sm86"))
    cell = Cell(model=there.model.descriptor, component="model", target=target)
    return msgspec.structs.replace(cell, **changes)


def forget(store):
    for path in store.layout.built.glob("*.json"):
        path.unlink()


@pytest.mark.parametrize("in_memory", [0, 1 << 30], ids=["weights in a file", "weights in memory"])
def test_a_cell_built_from_the_store_is_the_plan_that_was_published(published, monkeypatch, in_memory):
    store, there = published
    forget(store)
    monkeypatch.setattr(cells, "IN_MEMORY", in_memory)
    plan = build_cell(store, registry(), cell_for(published), Silent())
    assert plan.descriptor.digest == there.plans[0].descriptor.digest
    assert list(store.layout.tmp.iterdir()) == []


def test_a_cell_that_was_built_is_not_built_again(published, monkeypatch):
    monkeypatch.setattr(cells, "make_plan", None)
    assert build_cell(published[0], registry(), cell_for(published), Silent()) == published[1].plans[0]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("version", "1.6.0", "instead of 1.6.0"),
        ("sku", "NVIDIA L40S", "GPU of any kind instead of NVIDIA L40S"),
        ("arch", "vax", "instead of vax"),
    ],
)
def test_a_machine_with_another_builder_than_the_cell_is_for_refuses(published, field, value, said):
    target = msgspec.structs.replace(cell_for(published).target, **{field: value})
    with pytest.raises(IncompatibleError, match=f"chosen for rtx-sm86 and has .*{said}") as error:
        build_cell(published[0], registry(), cell_for(published, target=target), Silent())
    assert "wszoo ray-labels" in error.value.hint


def test_a_component_that_the_model_does_not_have_is_not_found(published):
    with pytest.raises(NotFoundError, match="no component 'unet'"):
        build_cell(published[0], registry(), cell_for(published, component="unet"), Silent())


def test_the_key_leaves_out_what_a_model_is_called_and_has_the_profiles(published):
    store, there = published
    component = there.model.config.components["model"]
    backend = registry().backend_for("rtx")
    target = cell_for(published).target
    assert recall(store, wanted_plan("model", component, backend, target, ())) is not None
    assert recall(store, wanted_plan("other", component, backend, target, ())) is None


def test_memory_is_three_and_a_half_times_graph_and_weights(published):
    component = published[1].model.config.components["model"]
    assert memory_needed(component) == int(3.5 * (component.graph.size + 256 * 256 * 2))
