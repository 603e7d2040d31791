"""What the documentation says is run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/fleet.md", "docs/lock.md", "docs/trust.md", "docs/native.md", "docs/catalog.md"]


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def _commands(page: str) -> list[str]:
    return [line[2:] for block in _blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]


def _run(words: list[str], store: Path) -> subprocess.CompletedProcess[str]:
    settings = {"WSZOO_STORE": str(store), "WSZOO_CONFIG": f"{store}.toml", "NO_COLOR": "1"}
    environment = {**os.environ, **settings}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """What pages write stands below these folders."""
    for folder in ("readme", "docs"):
        shutil.rmtree(ROOT / "build" / folder, ignore_errors=True)


@pytest.mark.parametrize("page", PAGES)
def test_every_console_command_of_a_page_works_in_order(page: str, tmp_path: Path) -> None:
    commands = _commands(page)
    assert commands, f"{page} shows no commands"
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "wszoo"
        done = _run([sys.executable, "-m", *words], tmp_path / "store")
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", [*PAGES, "docs/remotes.md"])
def test_python_examples_of_a_page_work(page: str, tmp_path: Path) -> None:
    code = "\n".join(_blocks(page, "python"))
    done = _run([sys.executable, "-c", code], tmp_path / "store")
    assert done.returncode == 0, done.stderr


def test_readme_names_every_verb() -> None:
    from wszoo.cli.app import VERBS

    text = (ROOT / "README.md").read_text()
    assert [verb for verb in VERBS if f"`{verb}" not in text and f"wszoo {verb}" not in text] == []


def test_exit_codes_in_readme_and_help_are_those_of_the_errors() -> None:
    from wszoo import errors
    from wszoo.cli.app import EPILOG

    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type)}
    codes -= {1}
    readme = (ROOT / "README.md").read_text()
    for text in (EPILOG, readme):
        flat = " ".join(text.split())
        assert [code for code in sorted(codes) if f", {code} " not in flat] == []


def test_security_names_only_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 20
    for path, test in named:
        assert (ROOT / path).is_file(), path
        assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{path}::{test}"
    promises = re.findall(r"^\d+\. (.*?)(?=^\d+\. |^TensorRT)", text, re.MULTILINE | re.DOTALL)
    assert [each for each in promises if "`tests/" not in each] == []


def test_every_decision_is_in_the_index_under_its_title() -> None:
    folder = ROOT / "docs/adr"
    listed = re.findall(r"^\| (\d+) \| \[(.+)\]\((.+)\) \|$", (folder / "README.md").read_text(), re.MULTILINE)
    titles = [(path, path.read_text().partition("\n")[0]) for path in sorted(folder.glob("0*.md"))]
    assert [(path.name, title) for path, title in titles] == [(name, f"# {number}. {t}") for number, t, name in listed]


def test_links_between_pages_lead_to_files() -> None:
    for page in ("README.md", "SECURITY.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", (ROOT / page).read_text()):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"
