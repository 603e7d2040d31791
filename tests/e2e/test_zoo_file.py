"""A zoo in one file: what is built, kept, refused and published, with real TensorRT-RTX plans."""

import importlib
import json
from pathlib import Path

import pytest
from workers import drive, together
from zoos import job, network, run, start, states

from wszoo import plugins
from wszoo.errors import StorageError, UsageError
from wszoo.fleet.publishing import Settings
from wszoo.fleet.run import build_matrix
from wszoo.names import Ref
from wszoo.places import open_for_push
from wszoo.plugins import registry
from wszoo.progress import Silent
from wszoo.publish import read_published
from wszoo.store.store import Store

ZOO = """\
remote = "./public"
licence = "Apache-2.0"
targets = ["portable", "rtx-sm86", "rtx-sm89"]

[models."one:1"]
family = "onnx"
source = "one.onnx"

[models."two:1"]
family = "onnx"
source = "two.onnx"
targets = ["rtx-sm120"]
"""

CRASHING = """
import os
from wszoo.backends.protocol import Backend
from wszoo.hookspecs import hookimpl
from wszoo.schema.plan import Kind, Target

class Crash:
    name, prefix, kind, needs_profiles = "crash", "crash", Kind.SPLICE, False

    def runtime(self):
        return None

    def target(self, spec):
        return Target(name=str(spec), backend="crash")

    def build(self, job, out):
        os.write(2, b"a kernel has no implementation")
        os.abort()

    def load(self, assembled):
        raise NotImplementedError

@hookimpl
def wszoo_backends():
    return [Crash()]
"""


@pytest.fixture
def zoo(tmp_path):
    network(tmp_path / "one.onnx", 1)
    network(tmp_path / "two.onnx", 2)
    (tmp_path / "zoo.toml").write_text(ZOO)
    return tmp_path / "zoo.toml"


@pytest.fixture
def crashing(tmp_path, monkeypatch):
    """A plugin whose builder aborts, installed: also for child processes."""
    folder = tmp_path / "site"
    info = folder / "zoo_crash-1.dist-info"
    info.mkdir(parents=True)
    (folder / "zoo_crash.py").write_text(CRASHING)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo_crash\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[wszoo]\nzoo_crash = zoo_crash\n")
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    plugins.registry.cache_clear()
    yield
    plugins.registry.cache_clear()


def cells(report):
    return [cell["state"] for model in report["models"] for cell in model["cells"]]


def test_a_zoo_is_built_published_and_built_again_for_nothing(zoo, tmp_path):
    store = tmp_path / "store"
    code, report, _ = run(store, "build", "-f", zoo, "--json")
    assert code == 0
    assert cells(report) == ["built"] * 4
    published = Store(tmp_path / "public").refs.all()
    assert [entry.ref.tagged for entry in published] == ["one:1", "two:1"]
    before = (tmp_path / "public" / "index.json").read_bytes()
    code, again, _ = run(store, "build", "-f", zoo, "--json")
    assert (code, cells(again)) == (0, ["kept"] * 4)
    assert [model["state"] for model in again["models"]] == ["unchanged"] * 2
    assert [model["ref"] for model in again["models"]] == [model["ref"] for model in report["models"]]
    assert (tmp_path / "public" / "index.json").read_bytes() == before


def test_a_dry_run_shows_the_matrix_and_publishes_nothing(zoo, tmp_path):
    store = tmp_path / "store"
    run(store, "build", "onnx", "--source", tmp_path / "one.onnx", "--target", "rtx-sm86", "--tag", "other:1", "--json")
    code, report, _ = run(store, "build", "-f", zoo, "--dry-run", "--json")
    assert code == 0
    # Plans of the same graph and weights are found whatever they were built for.
    assert cells(report) == ["to build", "kept", "to build", "to build"]
    assert all(cell["key"].startswith("sha256:") for model in report["models"] for cell in model["cells"])
    assert [entry.ref.tagged for entry in Store(store).refs.all()] == ["other:1"]


def test_one_model_that_cannot_be_exported_does_not_stop_the_others(zoo, tmp_path):
    (tmp_path / "one.onnx").write_bytes(b"no model")
    code, report, _ = run(tmp_path / "store", "build", "-f", zoo, "--json")
    assert code == 7
    assert [model["state"] for model in report["models"]] == ["failed", "published"]
    assert "one.onnx is not an ONNX model" in report["models"][0]["error"]


def test_a_crashed_builder_is_one_failed_cell_with_its_log(crashing, tmp_path):
    store = Store(tmp_path / "store")
    wanted = job("one:1", network(tmp_path / "one.onnx"), "crash", "rtx-sm86", "rtx-sm89")
    report = build_matrix(store, registry(), [wanted], Settings(jobs=2), Silent())
    assert states(report) == {
        ("one:1", "crash"): "failed",
        ("one:1", "rtx-sm86"): "built",
        ("one:1", "rtx-sm89"): "built",
    }
    (failed,) = (cell for cell in report.models[0].cells if cell.error)
    assert "by signal 6" in failed.error
    kept = json.loads(Path(failed.log).read_text())
    assert "a kernel has no implementation" in kept["log"]
    assert str(report.models[0].state) == "incomplete"
    assert store.refs.find(Ref.parse("one:1")) is None
    _, (shown,), _ = run(tmp_path / "store", "show", "one:1", "--failures", "--json")
    assert shown == kept


def test_with_keep_going_what_was_built_is_published(crashing, tmp_path):
    store = Store(tmp_path / "store")
    wanted = job("one:1", network(tmp_path / "one.onnx"), "crash", "rtx-sm86")
    report = build_matrix(store, registry(), [wanted], Settings(keep_going=True), Silent())
    assert report.failed
    assert str(report.models[0].state) == "published"
    assert store.refs.find(Ref.parse("one:1")) is not None


UNKNOWN = "models.'two:1' is malformed: Object contains unknown field `sorce`"
TYPOS = {
    "a field": ('source = "two', 'sorce = "two', UNKNOWN, "did you mean 'source'"),
    "a field at the top": ("licence", "license", "unknown field `license`", "did you mean 'licence'"),
    "a family": (
        '"onnx"\nsource = "two',
        '"onx"\nsource = "two',
        "models.'two:1', family: no plugin",
        "did you mean 'onnx'",
    ),
    "a target": ("rtx-sm120", "rtx-sm12x", "models.'two:1', targets[0]: not a target", "rtx-sm89"),
    "a backend": (
        "rtx-sm120",
        "rtxx-sm120",
        "models.'two:1', targets[0]: no plugin provides 'rtxx'",
        "did you mean 'rtx'",
    ),
    "a name": ('"two:1"', '"Two:1"', "models.'Two:1': not a model name", "lower-case"),
    "a type": (
        'targets = ["rtx-sm120"]',
        "targets = 7",
        "Expected `array`, got `int` - at `$.targets`",
        "docs/fleet.md",
    ),
    "a key": ('[models."two', '[signing]\nkey = "none.key"\n[models."two', "no key in", "wszoo key new"),
}


@pytest.mark.parametrize("typo", TYPOS)
def test_a_typo_is_refused_with_its_path_and_the_nearest_name(zoo, tmp_path, typo):
    right, wrong, message, hint = TYPOS[typo]
    assert right in ZOO
    zoo.write_text(ZOO.replace(right, wrong))
    code, report, _ = run(tmp_path / "store", "build", "-f", zoo, "--json")
    assert code in {2, 3, 4}
    assert message in report["error"]["message"]
    assert hint in report["error"]["hint"]
    assert not (tmp_path / "store" / "index.json").exists()


def test_signed_models_stay_signed_once(zoo, tmp_path):
    store, key = tmp_path / "store", tmp_path / "zoo.key"
    assert run(store, "key", "new", "--output", key)[0] == 0
    zoo.write_text(ZOO.replace('[models."one', '[signing]\nkey = "zoo.key"\n\n[models."one'))
    for _ in range(2):
        assert run(store, "build", "-f", zoo, "--json")[0] == 0
    signed = [entry.ref for entry in Store(tmp_path / "public").refs.all() if entry.ref.is_referrers]
    assert len(signed) == 2


def test_models_that_share_a_network_build_it_once(tmp_path):
    source = network(tmp_path / "one.onnx")
    jobs = [job("one:1", source, "rtx-sm86"), job("alias:1", source, "rtx-sm86")]
    report = build_matrix(Store(tmp_path / "store"), registry(), jobs, Settings(executor="inline"), Silent())
    first, second = (model.cells[0] for model in report.models)
    assert first == second
    assert {str(model.state) for model in report.models} == {"published"}


def test_other_weights_under_a_published_tag_are_refused_before_they_are_built(tmp_path):
    settings = Settings(executor="inline", remote=open_for_push(str(tmp_path / "public")))
    for seed, store in enumerate(("first", "second")):
        wanted = job("one:1", network(tmp_path / f"{seed}.onnx", seed), "rtx-sm86")
        if not seed:
            build_matrix(Store(tmp_path / store), registry(), [wanted], settings, Silent())
            continue
        with pytest.raises(UsageError, match="has one:1 already, with another graph or other weights"):
            build_matrix(Store(tmp_path / store), registry(), [wanted], settings, Silent())
        assert not list(Store(tmp_path / store).layout.built.glob("*.json"))


def test_of_two_drivers_one_wins_and_the_other_adds_to_it(tmp_path):
    source, remote = network(tmp_path / "one.onnx"), tmp_path / "public"
    Store(remote).layout.create()
    targets = ("rtx-sm86", "rtx-sm89", "rtx-sm120")
    together(drive, [(str(tmp_path / target), str(remote), str(source), target) for target in targets])
    there = read_published(Store(remote), Ref.parse("one:1")).plans
    assert sorted(plan.config.target.name for plan in there) == sorted(targets)


class FullRemote:
    """A fake of a place without room: everything it is given is refused."""

    trusted = True

    def __init__(self, real):
        self._real = real
        self.url = real.url

    def __getattr__(self, name):
        return getattr(self._real, name)

    def put(self, ref, descriptor, path):
        raise StorageError("no space left on the remote", hint="free some")


def test_a_full_fake_remote_is_an_error_and_nothing_is_published_there(tmp_path):
    remote = open_for_push(str(tmp_path / "public"))
    settings = Settings(executor="inline", remote=FullRemote(remote))
    wanted = job("one:1", network(tmp_path / "one.onnx"), "rtx-sm86")
    with pytest.raises(StorageError, match="no space left"):
        build_matrix(Store(tmp_path / "store"), registry(), [wanted], settings, Silent())
    assert Store(tmp_path / "public").refs.all() == []
    report = build_matrix(Store(tmp_path / "store"), registry(), [wanted], Settings(executor="inline"), Silent())
    assert states(report) == {("one:1", "rtx-sm86"): "kept"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-f", "zoo.toml", "onnx"), "FAMILY cannot be given here"),
        (("--on-this-gpu",), "--tag is missing"),
        (("--on-this-gpu", "--tag", "one:1", "--source", "one.onnx"), "--source cannot be given here"),
        (("--tag", "one:1"), "FAMILY and --source are missing"),
        (("-f", "nowhere.toml"), "there is no nowhere.toml"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, words, said):
    code, report, _ = run(tmp_path / "store", "build", *words, "--json")
    assert code in {2, 3}
    assert said in report["error"]["message"]


def test_ray_labels_are_what_ray_start_takes(tmp_path):
    from ray._private.label_utils import parse_node_labels_string, validate_node_labels

    code, labels, _ = run(tmp_path / "store", "ray-labels", "--json")
    assert code == 0
    assert labels["wszoo-rtx"].startswith("1.")
    with start(tmp_path / "store", "ray-labels") as process:
        text = process.communicate()[0].strip()
    assert parse_node_labels_string(text) == labels
    validate_node_labels(labels)
