"""The command line as its users meet it: what it prints where, and how it exits."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from wszoo.cli import main
from wszoo.cli.app import HEADINGS, VERBS

ROOT = Path(__file__).parents[2]
ZOO = ROOT / "store"


@pytest.fixture
def run(capfd, tmp_path, monkeypatch):
    """Run a command in a store of its own; returns the exit code, stdout and stderr."""
    monkeypatch.setenv("WSZOO_STORE", str(tmp_path / "store"))

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main(words)
        return (exit_.value.code or 0, *capfd.readouterr())

    return call


def relu(path: Path, size: int = 64) -> Path:
    """A small ONNX file with one weight and a dynamic batch."""
    import numpy as np

    weight = np.random.default_rng(0).standard_normal((size, size)).astype(np.float16)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["m"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["batch", size])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb, run):
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert "Example" in out
    assert f"wszoo {verb}" in out


SUBVERBS = {"remote": ["add", "list", "remove"], "key": ["new", "show"], "trust": ["add", "list", "remove"]}
SUBVERBS["cache"] = ["list", "limit", "clear"]


@pytest.mark.parametrize(("verb", "below"), [(verb, below) for verb, all_of in SUBVERBS.items() for below in all_of])
def test_what_stands_below_a_verb_has_help_with_an_example_and_a_line_in_the_list(verb, below, run):
    code, out, _ = run(verb, below, "--help")
    assert code == 0
    assert f"wszoo {verb} {below}" in out.partition("Example")[2]
    _, listed, _ = run(verb, "--help")
    assert re.search(rf"^  {below} +[A-Z].*[^.]\.$", listed, re.MULTILINE)  # not cut off with '...'


def test_json_is_one_document_and_nothing_else_on_stdout(run):
    for words in (
        ["pull", "digits-cnn", "--from", str(ZOO), "--gpu", "sm89"],
        ["pull", "digits-cnn", "--from", str(ZOO), "--gpu", "none"],
        ["pull", "digit-writer", "--from", str(ZOO), "--dry-run"],
        ["resolve", "digits-cnn"],
        ["list"],
        ["show", "digits-cnn"],
        ["diff", "digits-cnn", "digits-cnn"],
        ["run", "digits-cnn"],
        ["verify"],
        ["gc", "--dry-run"],
        ["doctor"],
        ["plugins"],
        ["completion", "bash"],
        ["ray-labels"],
        ["cache", "list"],
        ["remote", "list"],
        ["trust", "list"],
        ["tag", "digits-cnn", "mine:2"],
        ["rm", "digits-cnn"],
    ):
        code, out, err = run(*words, "--json")
        assert code == 0, err
        json.loads(out)


def test_show_json_has_what_scripts_need(run):
    run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "sm89")
    _, out, _ = run("show", "digits-cnn", "--json")
    shown = json.loads(out)
    assert shown["weight_bytes"] > shown["weight_stored_bytes"] > 0
    plan = next(plan for plan in shown["plans"] if plan["target"] == "rtx-sm89")
    assert plan["component"] == "model"
    assert plan["kind"] == "splice"
    assert plan["engine_bytes"] > plan["plan_bytes"] > 0
    for name in ("index_digest", "manifest_digest", "plan_digest", "engine_digest"):
        assert plan[name].startswith("sha256:")


def test_pull_prints_facts_on_stdout_and_hints_on_stderr(run):
    code, out, err = run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "none")
    assert code == 0
    assert out.startswith("model: portable")
    assert "digits-cnn:latest is here" in err


def test_a_second_pull_fetches_nothing_and_offline_works(run):
    run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "sm89")
    _, out, _ = run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "sm89", "--dry-run", "--json")
    assert json.loads(out)["would_fetch"] == []
    code, _, _ = run("pull", "digits-cnn", "--from", str(ZOO / "gone"), "--gpu", "sm89", "--offline")
    assert code == 0


def test_dry_run_names_only_what_one_gpu_needs_and_changes_nothing(run, tmp_path):
    _, out, _ = run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "sm89", "--dry-run", "--json")
    kinds = [each["media_type"] for each in json.loads(out)["would_fetch"]]
    assert kinds.count("application/vnd.wszoo.plan.splice.v1") == 1
    assert not (tmp_path / "store").exists()


def test_without_a_verb_the_help_is_shown_in_sections_and_every_verb_once(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "error:" not in err
    assert "Use models:" in err
    listed = [line.split()[0] for line in err.splitlines() if re.match(r"  [a-z][a-z-]*  +[A-Z]", line)]
    assert listed == list(VERBS)
    assert set(HEADINGS) <= set(VERBS)


@pytest.mark.parametrize(
    ("code", "says", "words"),
    [
        (2, "not a model name: 'Digits!'", ["pull", "Digits!", "--from", str(ZOO)]),
        (2, "no known GPU is called 'rtx9999'", ["pull", "digits-cnn", "--from", str(ZOO), "--gpu", "rtx9999"]),
        (2, "no remote type knows gopher://", ["pull", "digits-cnn", "--from", "gopher://x"]),
        (2, "no family named 'nope'", ["build", "nope", "--source", str(ZOO), "--target", "portable", "--tag", "a:1"]),
        (2, "not a target: 'rtx-sm'", ["build", "onnx", "--source", str(ZOO), "--target", "rtx-sm", "--tag", "a:1"]),
        (2, "No such command 'pul'; did you mean 'pull'?", ["pul"]),
        (2, "'rtx-sm89' is a target, not a GPU", ["pull", "digits-cnn", "--from", str(ZOO), "--gpu", "rtx-sm89"]),
        (2, "did you mean 'http://'?", ["pull", "digits-cnn", "--from", "htp://x"]),
        (2, "did you mean 'onnx'?", ["build", "onxx", "--source", str(ZOO), "--target", "portable", "--tag", "a:1"]),
        (3, "did you mean 'digits-cnn'?", ["pull", "digit-cnn", "--from", str(ZOO)]),
        (3, "there is no such folder", ["pull", "digits-cnn", "--from", "stroe/"]),
        (3, "no nope:latest in", ["pull", "nope", "--from", str(ZOO)]),
        (3, "no nope:latest in", ["show", "nope"]),
        (3, "is not a store", ["pull", "digits-cnn", "--from", "/nonexistent"]),
        (3, "no such file or folder", ["build", "onnx", "--source", "gone", "--target", "portable", "--tag", "a:1"]),
        (4, "not a digest: 'sha256:../../x'", ["pull", "digits-cnn@sha256:../../x", "--from", str(ZOO)]),
    ],
)
def test_errors_say_what_and_exit_as_documented(code, says, words, run):
    found, out, err = run(*words)
    assert says in err
    assert found == code
    assert out == ""
    assert "Traceback" not in err


def test_an_error_with_json_is_a_document_too(run):
    code, out, _ = run("show", "nope", "--json")
    error = json.loads(out)["error"]
    assert (error["type"], error["exit_code"]) == ("NotFoundError", code)
    assert "nope" in error["message"]
    assert error["hint"]


def test_nothing_fits_lists_every_plan_with_its_reason(run, tmp_path):
    source = str(relu(tmp_path / "net.onnx"))
    profile = "x=1x64:4x64:8x64"
    run("build", "onnx", "--source", source, "--target", "rtx-sm86,rtx-sm89", "--tag", "net:1", "--profile", profile)
    code, _, err = run("resolve", "net:1", "--gpu", "sm75")
    assert code == 5
    assert "rtx-sm86" in err
    assert "rtx-sm89" in err
    assert "7.5" in err


def test_a_build_can_be_looked_at_pulled_elsewhere_and_run(run, tmp_path, monkeypatch):
    source = str(relu(tmp_path / "net.onnx"))
    words = ["--tag", "net:1", "--profile", "x=1x64:4x64:8x64"]
    code, out, _ = run("build", "onnx", "--source", source, "--target", "portable,rtx-sm86-sm89", *words, "--json")
    assert code == 0
    assert json.loads(out)["built"] == ["model portable", "model rtx-sm86-sm89"]
    _, out, _ = run("build", "onnx", "--source", source, "--target", "portable,rtx-sm86-sm89", *words, "--json")
    assert json.loads(out)["kept"] == ["model portable", "model rtx-sm86-sm89"]
    origin = str(tmp_path / "store")
    monkeypatch.setenv("WSZOO_STORE", str(tmp_path / "client"))
    code, out, _ = run("pull", "net:1", "--from", origin, "--gpu", "RTX 4090", "--json")
    (engine,) = json.loads(out)["engines"].values()
    assert Path(engine).stat().st_size == json.loads(out)["components"]["model"]["engine_bytes"]
    code, out, _ = run("run", "net:1", "--from", origin, "--gpu", "none", "--input", "x=zeros:2x64")
    assert code == 0
    assert "y  float16 2x64" in out


def test_a_dynamic_input_without_a_profile_says_what_to_write(run, tmp_path):
    source = str(relu(tmp_path / "net.onnx"))
    code, _, err = run("build", "onnx", "--source", source, "--target", "rtx-sm89", "--tag", "net:1")
    assert code == 2
    assert "--profile" in err
    assert "x=1x64" in err
    code, _, _ = run("build", "onnx", "--source", source, "--target", "portable", "--tag", "net:1")
    assert code == 0


def test_a_missing_builder_names_the_package_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setattr("wszoo.backends.installed.version", lambda _: (_ for _ in ()).throw(PackageNotFoundError()))
    source = str(relu(tmp_path / "net.onnx"))
    code, _, err = run("build", "onnx", "--source", source, "--target", "rtx-sm89", "--tag", "net:1")
    assert code == 6
    assert 'pip install "wszoo[rtx]"' in err


def test_a_damaged_blob_in_the_source_is_named_and_nothing_is_kept(run, tmp_path):
    import shutil

    copy = tmp_path / "zoo"
    shutil.copytree(ZOO, copy)
    largest = max((copy / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    names = ("digits-cnn", "digit-writer")
    results = [run("pull", name, "--from", str(copy), "--gpu", "none") for name in names]
    assert sorted(code for code, _, _ in results) == [0, 4]
    assert any(largest.name[:12] in err for _, _, err in results)
    _, out, _ = run("list", "--json")
    assert len(json.loads(out)) == 1


def test_verify_exits_with_4_and_names_the_damaged_file_and_who_needs_it(run, tmp_path):
    run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "none")
    victim = max((tmp_path / "store" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    victim.chmod(0o644)
    victim.write_bytes(b"\0" + victim.read_bytes()[1:])
    code, out, _ = run("verify")
    assert code == 4
    assert str(victim) in out
    assert "digits-cnn:latest" in out


def test_a_store_that_cannot_be_written_is_a_storage_error(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("WSZOO_STORE", str(tmp_path / "file"))
    code, _, err = run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "none")
    assert code == 8
    assert "cannot" in err


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_come_on_a_terminal_unless_no_color_forbids_them(tmp_path, no_color, coloured):
    import pty

    words = [sys.executable, "-c", "import sys; from wszoo.cli import main; main(sys.argv[1:])", "show", "nope"]
    environment = {**os.environ, "WSZOO_STORE": str(tmp_path), "NO_COLOR": no_color, "TERM": "xterm"}
    if not no_color:
        del environment["NO_COLOR"]
    ours, theirs = pty.openpty()
    done = subprocess.run(words, stdout=theirs, stderr=theirs, env=environment, check=False)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert done.returncode == 3
    assert "no nope:latest" in shown
    assert ("\x1b[" in shown) == coloured


def test_a_reader_that_goes_away_ends_the_command_quietly(tmp_path):
    command = f"{sys.executable} -m wszoo pull --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


def test_names_from_a_remote_cannot_steer_the_terminal(run, tmp_path):
    from wszoo.cli.output import print_table

    print_table(["target"], [["rtx-sm89\x1b[2Jgone"]])
    _, out, err = run("show", "nope\x1b[2J")
    assert "\x1b" not in out + err


def test_usage_errors_of_the_parser_are_documents_too(run):
    code, out, _ = run("gc", "--grace", "soon", "--json")
    error = json.loads(out)["error"]
    assert (code, error["exit_code"]) == (2, 2)
    assert "soon" in error["message"]
    code, _, err = run("gc", "--grace", "-1")
    assert code == 2
    assert "-1" in err


def test_a_file_system_that_takes_no_more_bytes_is_a_storage_error(tmp_path):
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
    code = limit + "from wszoo.cli import main; import sys; main(sys.argv[1:])"
    words = [sys.executable, "-c", code, "pull", "digits-cnn", "--from", str(ZOO), "--gpu", "none"]
    store = tmp_path / "store"
    environment = {**os.environ, "WSZOO_STORE": str(store)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 8, done.stderr
    assert "cannot" in done.stderr
    assert not list((store / "wszoo" / "refs").rglob("*"))
    assert all(path.stat().st_size < 20_000 for path in (store / "blobs" / "sha256").iterdir())


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_weight_stops_a_portable_plan_and_quarantine_lets_pull_mend_it(run, tmp_path):
    run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "none")
    _flip(max((tmp_path / "store" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size))
    code, _, err = run("run", "digits-cnn")
    assert code == 4
    assert "--quarantine" in err
    assert run("verify", "--quarantine")[0] == 4
    assert run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "none")[0] == 0
    assert run("verify")[0] == 0
    assert "accuracy 0.994" in run("run", "digits-cnn")[1]


def test_an_assembled_plan_that_was_changed_is_assembled_anew(run, tmp_path):
    words = ["pull", "digits-cnn", "--from", str(ZOO), "--gpu", "sm89", "--json"]
    _, out, _ = run(*words)
    (engine,) = map(Path, json.loads(out)["engines"].values())
    before = engine.read_bytes()
    engine.write_bytes(before[:1000] + bytes(1000) + before[2000:])
    run(*words)
    assert engine.read_bytes() == before


def test_a_kept_plan_whose_time_changed_is_hashed_once_and_stamped_again(run, tmp_path):
    words = ["pull", "digits-cnn", "--from", str(ZOO), "--gpu", "sm89", "--json"]
    _, out, _ = run(*words)
    (engine,) = map(Path, json.loads(out)["engines"].values())
    os.utime(engine, (1, 1))
    run(*words)
    (stamp,) = (tmp_path / "store" / "wszoo" / "verified").iterdir()
    assert stamp.read_text() == f"{engine.stat().st_size} 1000000000\n"


def test_building_again_mends_what_is_missing(run, tmp_path):
    words = ["build", "onnx", "--source", str(relu(tmp_path / "net.onnx")), "--target", "portable,rtx-sm89"]
    words += ["--tag", "net:1", "--profile", "x=1x64:4x64:8x64"]
    run(*words)
    _, out, _ = run("show", "net:1", "--json")
    plan = next(plan for plan in json.loads(out)["plans"] if plan["target"] == "rtx-sm89")
    (tmp_path / "store" / "blobs" / "sha256" / plan["plan_digest"][7:]).unlink()
    assert run("verify")[0] == 4
    _, out, _ = run(*words, "--json")
    assert json.loads(out)["built"] == ["model rtx-sm89"]
    assert run("verify")[0] == 0


def test_gc_frees_assembled_plans_of_models_that_are_gone(run, tmp_path):
    run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "sm89")
    engines = tmp_path / "store" / "wszoo" / "engines"
    run("gc", "--grace", "0")
    assert len(list(engines.iterdir())) == 1
    run("rm", "digits-cnn")
    run("gc", "--grace", "0")
    assert list(engines.iterdir()) == []
    assert list((tmp_path / "store" / "blobs" / "sha256").iterdir()) == []


def test_a_mistyped_store_is_not_taken_for_an_empty_one(run, tmp_path):
    for words in (["verify"], ["gc", "--dry-run"]):
        code, _, err = run(*words, "--store", str(tmp_path / "typo"))
        assert code == 3
        assert "there is no store in" in err
    assert not (tmp_path / "typo").exists()


def test_after_a_pull_for_one_gpu_another_is_told_to_pull(run):
    run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "sm89")
    code, _, err = run("run", "digits-cnn", "--gpu", "none")
    assert code == 5
    assert "wszoo pull digits-cnn:latest --from" in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell, run):
    code, out, _ = run("completion", shell)
    assert code == 0
    assert "_WSZOO_COMPLETE" in out


def test_completion_offers_verbs(tmp_path):
    environment = {
        "_WSZOO_COMPLETE": "bash_complete",
        "COMP_WORDS": "wszoo pu",
        "COMP_CWORD": "1",
        "WSZOO_STORE": str(tmp_path),
    }
    script = Path(sys.executable).parent / "wszoo"
    done = subprocess.run([script], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split() == ["plain,pull", "plain,push"]


def test_keeping_only_weights_leaves_no_assembled_plan(run, tmp_path):
    code, out, err = run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "sm89", "--keep", "weights")
    assert code == 0, err
    assert "assembled" not in out
    assert list((tmp_path / "store" / "wszoo" / "engines").iterdir()) == []


def test_an_avoided_plan_is_not_pulled(run):
    code, out, err = run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "sm89", "--avoid", "rtx-sm89")
    assert code == 0, err
    assert out.startswith("model: portable")


def test_refitting_plans_that_were_not_built_for_it_says_so(run):
    run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "sm89")
    code, _, err = run("refit", "digits-cnn", "--weights", "digits-cnn")
    assert code == 5
    assert "trt-sm89.refit" in err


def test_a_shell_is_offered_verbs_and_the_models_of_the_store(run, monkeypatch):
    run("pull", "digits-cnn", "--from", str(ZOO), "--gpu", "none")
    run("tag", "digits-cnn", "digits-cnn:mine")

    def offered(words: str, position: int) -> list[str]:
        monkeypatch.setenv("_WSZOO_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(position))
        return [line.partition(",")[2] for line in run()[1].splitlines() if line]

    assert offered("wszoo pu", 1) == ["pull", "push"]
    assert offered("wszoo show di", 2) == ["digits-cnn", "digits-cnn:mine"]
    assert offered("wszoo show --store gone di", 4) == []
