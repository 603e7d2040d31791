"""The committed sample zoo: whole, small, correct, and what its recipes give."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wszoo.api import Zoo
from wszoo.describe import show
from wszoo.errors import NotFoundError
from wszoo.names import Ref
from wszoo.store.documents import reachable

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / "store"
RECIPES = STORE / "recipes"
MODELS = ("digits-cnn", "digit-writer")
TARGETS = {"rtx-sm75", "rtx-sm86", "rtx-sm89", "rtx-sm120", "portable"}
GPUS = ("sm75", "sm86", "sm89", "sm120")
MAX_BYTES = 4 << 20


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A local store into which the tests pull; the committed one is only read."""
    return Zoo(tmp_path_factory.mktemp("zoo") / "store")


def pull(local, name, gpu):
    return local.pull(name, gpu=gpu, source=str(STORE))


def card(name):
    return (RECIPES / name / "assets" / "card.md").read_text(encoding="utf-8")


def committed_files():
    return [path for path in STORE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_every_committed_blob_is_what_its_name_says():
    report = Zoo(STORE).verify()
    assert report.problems == ()
    assert report.checked == len(list((STORE / "blobs" / "sha256").iterdir()))


def test_every_committed_blob_is_reached_by_a_tag():
    store = Zoo(STORE).store
    used = {each.digest for entry in store.refs.all() for each in reachable(store, entry.descriptor, entry.held)}
    assert used == set(store.blobs.all())


def test_the_whole_zoo_stays_small():
    assert sum(path.stat().st_size for path in committed_files()) < MAX_BYTES


def test_the_committed_store_is_a_plain_oci_layout():
    assert {path.name for path in STORE.iterdir()} - {"recipes", "README.md"} == {"oci-layout", "index.json", "blobs"}
    assert json.loads((STORE / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


@pytest.mark.parametrize("name", MODELS)
def test_each_model_has_a_plan_for_every_target_under_both_tags(name):
    views = [show(Zoo(STORE).store, Ref(name, tag)) for tag in ("1.0", "latest")]
    assert views[0].index_digest == views[1].index_digest
    assert {plan.target for plan in views[0].plans} == TARGETS
    assert views[0].licence
    assert {"card.md", "samples.npz"} <= set(views[0].assets)


@pytest.mark.parametrize("name", MODELS)
def test_a_plan_is_a_small_part_of_its_engine(name):
    for plan in show(Zoo(STORE).store, Ref(name)).plans:
        assert plan.plan_bytes < plan.engine_bytes / 10


@pytest.mark.parametrize("name", MODELS)
def test_the_published_card_is_the_recipes(local, name):
    assert pull(local, name, "none").asset("card.md").decode() == card(name)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("gpu", GPUS)
def test_an_assembled_plan_is_what_the_builder_wrote(local, name, gpu):
    model = pull(local, name, gpu)
    component = model["model"]
    engine = component.assemble()
    assert component.facts.target.name == f"rtx-{gpu}"
    assert f"sha256:{hashlib.sha256(engine.read_bytes()).hexdigest()}" == component.facts.engine_digest


def test_digits_cnn_reaches_the_accuracy_of_its_card(local):
    result = pull(local, "digits-cnn", "none").demo()
    stated = re.search(r"^accuracy: ([\d.]+) \((\d+) of (\d+) ", card("digits-cnn"), re.MULTILINE)
    assert result.values["count"] == int(stated[3])
    assert result.values["correct"] >= int(stated[2])
    assert float(stated[1]) >= 0.985


def test_digit_writer_writes_what_digits_cnn_reads(local):
    writer = pull(local, "digit-writer", "none")["model"].load()
    reader = pull(local, "digits-cnn", "none")["model"].load()
    digits = np.arange(100) % 10
    image = writer(digit=digits, style=np.random.default_rng(1).random((100, 6), np.float32))["image"]
    assert image.shape == (100, 1, 16, 16)
    assert 0 <= image.min() < 0.1
    assert 0.9 < image.max() <= 1
    means = image.reshape(100, 1, 8, 2, 8, 2).mean((3, 5))
    assert (reader(images=means)["scores"].argmax(1) == digits).mean() >= 0.97


def test_digit_writer_draws_its_samples(local):
    result = pull(local, "digit-writer", "none").demo(["--show", "image"])
    assert result.text.count("@") > 20


def test_nothing_but_the_two_models_is_in_the_zoo():
    assert [entry.ref.tagged for entry in Zoo(STORE).store.refs.all()] == [
        f"{name}:{tag}" for name in sorted(MODELS) for tag in ("1.0", "latest")
    ]
    with pytest.raises(NotFoundError):
        Zoo(STORE).store.refs.get(Ref("digits-cnn", "2.0"))


def test_no_path_of_a_machine_is_in_the_zoo():
    for path in committed_files():
        assert not re.search(rb"/(home|root|tmp|Users)/\w", path.read_bytes()), path


@pytest.fixture
def sample_zoo(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    return importlib.import_module("sample_zoo")


def test_the_recipes_give_the_committed_bytes(sample_zoo):
    assert sample_zoo.check(STORE) == []


def test_a_changed_byte_is_named(sample_zoo, tmp_path):
    sample_zoo.replace(tmp_path / "copy", STORE)
    assert sample_zoo.differences(STORE, tmp_path / "copy") == []
    blob = max((tmp_path / "copy" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    found = sample_zoo.differences(STORE, tmp_path / "copy")
    assert found[0] == f"blobs/sha256/{blob.name}: other bytes than the recipes give"
    assert any(line.startswith("zstandard ") for line in found)


def test_replacing_drops_private_state_and_keeps_the_recipes(sample_zoo, tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "wszoo" / "refs").mkdir(parents=True)
    sample_zoo.replace(tmp_path, STORE)
    assert {path.name for path in tmp_path.iterdir()} == {"recipes", "oci-layout", "index.json", "blobs"}


def test_the_demo_runs_and_finds_everything_as_claimed():
    done = subprocess.run([sys.executable, ROOT / "examples" / "demo.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "$ wszoo run digits-cnn" in done.stdout
    assert "All of it is as claimed." in done.stdout
