"""What the documentation says is run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["README.md"]


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def _commands(page: str) -> list[str]:
    return [line[2:] for block in _blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]


def _run(words: list[str], store: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WSZOO_STORE": str(store), "NO_COLOR": "1"}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize("page", PAGES)
def test_every_console_command_of_a_page_works_in_order(page: str, tmp_path: Path) -> None:
    commands = _commands(page)
    assert commands, f"{page} shows no commands"
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "wszoo"
        done = _run([sys.executable, "-m", *words], tmp_path / "store")
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES)
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
