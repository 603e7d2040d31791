"""A real Ray cluster of several nodes on this machine, with different labels, building real TensorRT-RTX plans."""

import threading
import time

import pytest
from ray_nodes import ray_nodes
from zoos import job, network, run, start, states

from wszoo.errors import IncompatibleError, RemoteError, UsageError
from wszoo.executors.labels import labels_of
from wszoo.executors.ray import RayExecutor
from wszoo.fleet.publishing import Settings
from wszoo.fleet.run import build_matrix
from wszoo.gpu.nvml import detect
from wszoo.names import Ref
from wszoo.places import open_for_push
from wszoo.plugins import registry
from wszoo.progress import Silent
from wszoo.store.store import Store

TARGETS = ("portable", "rtx-sm86", "rtx-sm89")


@pytest.fixture(scope="module")
def labels():
    """What 'wszoo ray-labels' prints here, taken apart: builders for RTX, and ONNX Runtime."""
    found = labels_of(detect(), registry().backends.values())
    return {name: found[name] for name in ("wszoo-rtx", "wszoo-portable")}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, labels):
    """A head that can check portable plans, and a node that builds for RTX; every test leaves them alive."""
    with ray_nodes(tmp_path_factory.mktemp("nodes")) as nodes:
        nodes.add({"wszoo-portable": labels["wszoo-portable"]})
        nodes.add({"wszoo-rtx": labels["wszoo-rtx"]})
        yield nodes


@pytest.fixture
def build(cluster, tmp_path):
    """Build jobs on the cluster, through a folder that all share."""

    def call(*jobs, store="driver", **settings):
        remote = open_for_push(str(tmp_path / "remote"))
        chosen = Settings(executor="ray", address=cluster.address, remote=remote, **settings)
        return build_matrix(Store(tmp_path / store), registry(), jobs, chosen, Silent())

    return call


def test_nodes_build_what_this_process_would_and_building_again_builds_nothing(build, tmp_path):
    jobs = [job(f"net{seed}:1", network(tmp_path / f"{seed}.onnx", seed), *TARGETS) for seed in range(2)]
    report = build(*jobs)
    assert set(states(report).values()) == {"built"}
    assert not report.failed
    here = Store(tmp_path / "here")
    alone = build_matrix(here, registry(), jobs, Settings(executor="inline"), Silent())
    assert [model.ref for model in alone.models] == [model.ref for model in report.models]
    published = Store(tmp_path / "remote").refs.all()
    assert [str(entry.ref.pinned(entry.descriptor.digest)) for entry in published] == [
        each.ref for each in alone.models
    ]
    again = build(*jobs)
    assert set(states(again).values()) == {"kept"}
    assert {str(model.state) for model in again.models} == {"unchanged"}


def test_a_fresh_driver_takes_over_what_is_published(build, tmp_path):
    jobs = [job("net:1", network(tmp_path / "net.onnx"), *TARGETS)]
    build(*jobs)
    assert set(states(build(*jobs, store="elsewhere")).values()) == {"kept"}


def test_a_target_that_no_node_serves_is_reported_at_once_with_the_labels(build, tmp_path, labels):
    wanted = job("net:1", tmp_path / "is-never-read.onnx", "rtx-sm86", "trt-sm89")
    started = time.monotonic()
    with pytest.raises(IncompatibleError, match=f"no node can build trt-sm89 .* wszoo-rtx={labels['wszoo-rtx']}"):
        build(wanted)
    assert time.monotonic() - started < 10
    assert not Store(tmp_path / "remote").refs.survey()[0]


def test_with_keep_going_the_other_targets_are_published(build, tmp_path):
    report = build(job("net:1", network(tmp_path / "net.onnx"), "rtx-sm86", "trt-sm89"), keep_going=True)
    assert states(report) == {("net:1", "rtx-sm86"): "built", ("net:1", "trt-sm89"): "no node"}
    assert report.failed
    assert Store(tmp_path / "remote").refs.find(Ref.parse("net:1")) is not None


def test_ray_without_a_remote_is_refused(cluster, tmp_path):
    jobs, chosen = (
        [job("net:1", tmp_path / "is-never-read", "rtx-sm86")],
        Settings(executor="ray", address=cluster.address),
    )
    with pytest.raises(UsageError, match="needs a remote that all nodes can reach"):
        build_matrix(Store(tmp_path / "driver"), registry(), jobs, chosen, Silent())


def test_no_cluster_is_a_remote_error_that_says_how_to_start_one():
    said = r"no Ray cluster answers at '127\.0\.0\.1:1'"
    with pytest.raises(RemoteError, match=said) as error, RayExecutor().open("127.0.0.1:1", None):
        pass
    assert "wszoo ray-labels" in error.value.hint


def test_a_node_that_dies_in_mid_build_costs_nothing_but_time(build, cluster, labels, tmp_path):
    victim = cluster.add({"wszoo-rtx": labels["wszoo-rtx"]})
    scratch = cluster.store_of(victim) / "wszoo" / "tmp"
    killed = threading.Event()

    def kill_in_mid_build():
        while not list(scratch.glob("build-*")):
            time.sleep(0.005)
        cluster.kill(victim)
        killed.set()

    killer = threading.Thread(target=kill_in_mid_build, daemon=True)
    killer.start()
    jobs = [
        job(f"net{seed}:1", network(tmp_path / f"{seed}.onnx", seed, size=1024, layers=4), "rtx-sm86", "rtx-sm89")
        for seed in range(3)
    ]
    report = build(*jobs)
    assert killed.is_set()
    assert set(states(report).values()) == {"built"}


def test_a_driver_that_is_killed_loses_at_most_what_was_being_built(cluster, tmp_path):
    models = ""
    for seed in range(4):
        network(tmp_path / f"{seed}.onnx", seed, size=512)
        models += f'[models."net{seed}:1"]\nfamily = "onnx"\nsource = "{seed}.onnx"\n'
    (tmp_path / "zoo.toml").write_text('remote = "./remote"\ntargets = ["rtx-sm86", "rtx-sm89"]\n' + models)
    words = ("build", "-f", tmp_path / "zoo.toml", "--executor", "ray", "--ray-address", cluster.address)
    store = Store(tmp_path / "driver")
    with start(store.layout.root, *words) as driver:
        while driver.poll() is None and len(list(store.layout.built.glob("*.json"))) < 2:
            time.sleep(0.005)
        driver.kill()
    finished = len(list(store.layout.built.glob("*.json")))
    assert 2 <= finished < 8
    assert not Store(tmp_path / "remote").refs.survey()[0]  # nothing half-published
    code, report, _ = run(store.layout.root, *words, "--json")
    assert code == 0
    cells = [cell["state"] for model in report["models"] for cell in model["cells"]]
    assert cells.count("kept") == finished
    assert cells.count("built") == 8 - finished


def test_a_node_with_another_version_than_it_says_is_found_out(build, cluster, tmp_path):
    # The last test: until Ray believes that a node is gone, which takes ten seconds, others would be asked of it too.
    cluster.add({"wszoo-rtx": "9.9"})
    with pytest.raises(IncompatibleError, match=r"labelled wszoo-rtx=9\.9 and has tensorrt_rtx 1\.") as error:
        build(job("net:1", tmp_path / "is-never-read.onnx", "rtx-sm86"))
    assert "wszoo ray-labels" in error.value.hint
