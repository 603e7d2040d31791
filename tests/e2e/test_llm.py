"""A tiny language model from its folder to text: built, quantized, published, pulled into an empty store, and run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import wszoo
from wszoo import plugins
from wszoo.cli.app import app
from wszoo.describe import diff, show
from wszoo.digest import Digest
from wszoo.errors import UsageError
from wszoo.names import Ref

PLUGIN = Path(__file__).parents[2] / "plugins" / "wszoo-llm" / "src"
TARGETS = ["portable", "rtx-sm86", "rtx-sm89", "rtx-sm120"]


@pytest.fixture(autouse=True)
def _llm_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin, also where it is not installed."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    if "llm" not in plugins.registry().families:
        monkeypatch.setattr(plugins, "BUILTIN", (*plugins.BUILTIN, "wszoo_llm"))
        plugins.registry.cache_clear()
    yield
    plugins.registry.cache_clear()
    for name in [name for name in sys.modules if name.startswith("wszoo_llm")]:
        del sys.modules[name]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    from wszoo_llm import tiny

    return tiny.make(tmp_path / "tiny", precision="fp16")


def test_folder_to_text_with_int4_plans_that_are_the_builders_bytes(source: Path, tmp_path: Path) -> None:
    zoo = wszoo.Zoo(tmp_path / "publisher")
    zoo.build("llm", source, tag="tiny:fp16", targets=TARGETS[:2], profiles=["c64"])
    report = zoo.build(
        "llm", source, tag="tiny:int4", targets=TARGETS, profiles=["c64"], precision="int4", options={"licence": "MIT"}
    )
    view = show(zoo.store, report.ref)
    assert [plan.target for plan in view.plans] == sorted(TARGETS)
    spliced = [plan for plan in view.plans if plan.target != "portable"]
    assert all(plan.plan_bytes < plan.engine_bytes / 20 for plan in spliced)

    client = wszoo.Zoo(tmp_path / "client")
    for gpu in ("sm86", "sm89", "sm120"):
        part = client.pull("tiny:int4", gpu=gpu, source=str(tmp_path / "publisher"))["model"]
        assert Digest.of_file(part.assemble()) == part.facts.engine_digest

    # Two norms a layer and the last, embedding and output: what is not quantized is stored once for both.
    (component,) = diff(zoo.store, Ref.parse("tiny:fp16"), Ref.parse("tiny:int4")).components
    assert component.shared_tensors == 7
    assert component.shared_bytes >= 2 * 512 * 128 * 2
    run_as_a_user(tmp_path)


@pytest.mark.parametrize(("stored", "precision"), [("bf16", ""), ("bf16", "int8"), ("bf16", "int4"), ("fp16", "fp8")])
def test_plan_of_every_precision_comes_back_byte_for_byte(tmp_path: Path, stored: str, precision: str) -> None:
    from wszoo_llm import tiny

    source = tiny.make(tmp_path / "tiny", precision=stored, num_hidden_layers=1)
    zoo = wszoo.Zoo(tmp_path / "publisher")
    zoo.build(
        "llm",
        source,
        tag="tiny:1",
        targets=["rtx-sm89", "rtx-sm120"],
        profiles=["c64"],
        precision=precision,
        options={"compare": "no"},
    )
    client = wszoo.Zoo(tmp_path / "client")
    for gpu in ("sm89", "sm120"):
        part = client.pull("tiny:1", gpu=gpu, source=str(tmp_path / "publisher"))["model"]
        assert Digest.of_file(part.assemble()) == part.facts.engine_digest
        assert part.plan.config.kind == "splice"


def run_as_a_user(tmp_path: Path) -> None:
    store = str(tmp_path / "client")
    command = ["run", "tiny:int4", "--gpu", "none", "--store", store, "--from", str(tmp_path / "publisher")]
    command += ["--prompt", "Once upon", "--max-tokens", "8"]
    text = CliRunner().invoke(app, command)
    assert text.exit_code == 0, text.output
    found = CliRunner().invoke(app, [*command, "--json"])
    values = json.loads(found.stdout)
    assert text.stdout.startswith(values["answers"][0]["text"])
    assert values["new_tokens"] <= 8
    long = CliRunner().invoke(app, [*command[:-1], "100"])
    assert isinstance(long.exception, UsageError)
    assert "do not fit into 64" in long.exception.message
