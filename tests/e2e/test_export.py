"""``wszoo export`` on the sample zoo: real networks, and plans that TensorRT-RTX's builder wrote."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from wszoo.api import Zoo
from wszoo.cli import main
from wszoo.describe import show
from wszoo.digest import Digest
from wszoo.errors import UsageError
from wszoo.export import FORMATS
from wszoo.names import Ref

ROOT = Path(__file__).resolve().parents[2]
SAMPLE, PAGE = ROOT / "store", ROOT / "docs" / "export.md"


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """The sample zoo as the local store, with every plan in it."""
    root = shutil.copytree(SAMPLE, tmp_path / "store", ignore=shutil.ignore_patterns("recipes"))
    monkeypatch.setenv("WSZOO_STORE", str(root))
    return Zoo(root)


@pytest.fixture
def run(capfd):
    """Run the command line: (exit code, stdout, stderr)."""

    def call(*words):
        with pytest.raises(SystemExit) as exit_:
            main(list(map(str, words)))
        return (exit_.value.code or 0, *capfd.readouterr())

    return call


def samples(zoo):
    with np.load(io.BytesIO(zoo.asset("digits-cnn", "samples.npz"))) as arrays:
        return next(array for array in arrays.values() if array.ndim == 4).astype(np.float32)


@pytest.mark.parametrize("to", FORMATS)
def test_each_format_lists_what_it_wrote(to, zoo, run, tmp_path):
    code, out, err = run("export", "digits-cnn", "--format", to, "--gpu", "sm89", "-o", tmp_path / "out", "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert (shown["format"], shown["ref"]) == (to, "digits-cnn:latest")
    assert shown["index_digest"] == show(zoo.store, Ref("digits-cnn")).index_digest
    for name, file in shown["files"].items():
        assert Digest.of_file(tmp_path / "out" / name) == file["digest"]
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert there == {*shown["files"], "wszoo-export.json"}
    assert shown["bytes"] == sum(file["size"] for file in shown["files"].values())


def test_people_get_a_table_and_notes(zoo, run, tmp_path):
    code, out, err = run("export", "digits-cnn", "--format", "ort-epcontext", "--gpu", "RTX 4090", "-o", tmp_path / "o")
    assert code == 0
    assert "model.rtx-sm89_ctx.onnx" in out
    assert "splice plans are written whole" in err


@pytest.mark.parametrize("name", ["digits-cnn", "digit-writer"])
def test_the_onnx_file_gives_the_portable_plans_numbers(name, zoo, tmp_path):
    zoo.export(name, tmp_path / "out", to="onnx")
    onnx.checker.check_model(str(tmp_path / "out" / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {"images": samples(zoo)} if name == "digits-cnn" else None
    feeds = feeds or {"digit": np.arange(10), "style": rng.random((10, 6), np.float32)}
    expected = zoo.pull(name, gpu="none")["model"].load()(**feeds)
    for output, value in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        np.testing.assert_array_equal(value, expected[output.name])


def test_an_exported_engine_is_what_the_builder_wrote(zoo, tmp_path):
    targets = ["rtx-sm75", "rtx-sm86", "rtx-sm89", "rtx-sm120"]
    out = zoo.export("digits-cnn", tmp_path / "out", to="engine", targets=targets).path
    built = {plan.target: plan.engine_digest for plan in show(zoo.store, Ref("digits-cnn")).plans}
    assert {target: Digest.of_file(out / f"model.{target}.plan") for target in targets} == {
        target: built[target] for target in targets
    }


def test_a_model_package_of_the_zoo_runs_in_onnx_runtime(zoo, tmp_path):
    out = zoo.export("digits-cnn", tmp_path / "out", to="ortpackage").path
    package = onnxruntime.ModelPackageContext(str(out))
    assert len(package.get_variant_names("model")) == 6
    selected = package.select_component("model", onnxruntime.ModelPackageOptions(onnxruntime.SessionOptions()))
    scores = selected.create_session().run(["scores"], {"images": samples(zoo)})[0]
    expected = zoo.pull("digits-cnn", gpu="none")["model"].load()(images=samples(zoo))["scores"]
    np.testing.assert_array_equal(scores, expected)


def test_a_pulled_model_exports_what_was_chosen_for_it(zoo, tmp_path):
    exported = zoo.pull("digits-cnn", gpu="sm86").export(tmp_path / "out", to="triton")
    assert exported.card.targets == ("rtx-sm86",)
    assert (tmp_path / "out" / "digits-cnn" / "1" / "model.plan").is_file()


def test_a_plan_that_was_not_pulled_says_how_to_get_it_and_that_works(run, tmp_path, monkeypatch):
    monkeypatch.setenv("WSZOO_STORE", str(tmp_path / "store"))
    assert run("pull", "digits-cnn", "--from", SAMPLE, "--gpu", "sm89")[0] == 0
    words = ["export", "digits-cnn", "--format", "engine", "--target", "rtx-sm86", "-o", tmp_path / "out"]
    code, _, err = run(*words)
    assert code == 3
    assert "wszoo pull digits-cnn:latest --gpu sm86 --from" in err
    assert run("pull", "digits-cnn:latest", "--gpu", "sm86", "--from", SAMPLE)[0] == 0
    assert run(*words)[0] == 0


def test_a_missing_pack_says_how_to_get_it(zoo, run, tmp_path):
    model = max((zoo.store.layout.root / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    model.unlink()
    codes = []
    for name in ("digits-cnn", "digit-writer"):
        code, _, err = run("export", name, "--format", "onnx", "-o", tmp_path / name)
        codes.append(code)
        assert code == 0 or f"wszoo pull {name}:latest --from" in err
        assert (tmp_path / name).exists() is (code == 0)
    assert 3 in codes


@pytest.mark.parametrize(
    ("code", "says", "words"),
    [
        (2, "is not one of", ["--format", "gguf"]),
        (2, "both a GPU and targets", ["--format", "engine", "--gpu", "sm89", "--target", "rtx-sm89"]),
        (3, "no plan of model for 'rtx-sm90'", ["--format", "engine", "--target", "rtx-sm90"]),
        (3, "has no component 'unet'", ["--format", "onnx", "--component", "unet"]),
        (5, "have no engine", ["--format", "engine", "--gpu", "none"]),
        (2, "does not run those", ["--format", "ort-epcontext", "--gpu", "sm89", "--ep", "tensorrt"]),
        (2, "is over the", ["--format", "triton", "--gpu", "sm89", "--max-batch", "1000000"]),
    ],
)
@pytest.mark.usefixtures("zoo")
def test_errors_say_what_and_leave_nothing(code, says, words, run, tmp_path):
    found, out, err = run("export", "digits-cnn", "-o", tmp_path / "out", *words)
    assert says in err
    assert (found, out) == (code, "")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".wszoo-export-*"))


def test_a_former_export_is_replaced_with_force_alone(zoo, run, tmp_path):
    words = ["export", "digits-cnn", "-o", tmp_path / "out"]
    assert run(*words, "--format", "onnx")[0] == 0
    code, _, err = run(*words, "--format", "triton", "--target", "portable")
    assert code == 2
    assert "--force" in err
    assert run(*words, "--format", "triton", "--target", "portable", "--force")[0] == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"digits-cnn", "wszoo-export.json"}


def test_the_pages_commands_work_in_order(run, tmp_path, monkeypatch):
    shutil.copytree(SAMPLE, tmp_path / "store", ignore=shutil.ignore_patterns("recipes"))
    monkeypatch.setenv("WSZOO_STORE", str(tmp_path / "local"))
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^\$ wszoo (.*)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) > len(FORMATS)
    for command in commands:
        code, _, err = run(*shlex.split(command))
        assert code == 0, f"{command}\n{err}"


def test_python_refuses_a_format_that_does_not_exist(zoo, tmp_path):
    with pytest.raises(UsageError, match="no export format named 'gguf'") as error:
        zoo.export("digits-cnn", tmp_path / "out", to="gguf")
    assert error.value.hint == f"there is: {', '.join(FORMATS)}"


def test_the_page_describes_every_format():
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in FORMATS if f"\n## {name}\n" not in text] == []
