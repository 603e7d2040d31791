"""docs/plugins.md says what is so."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from wszoo import hookspecs

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
ECHO = ROOT / "plugins" / "wszoo-echo"
BLOCKS = re.findall(r"^```(?:python|toml)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_hook_stands_in_the_page() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("wszoo_")]
    assert hooks
    assert [name for name in hooks if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_is_a_piece_of_the_plugin(block: str) -> None:
    files = [ECHO / "pyproject.toml", ECHO / "src" / "wszoo_echo" / "__init__.py", ECHO / "tests" / "test_echo.py"]
    assert any(block.strip() in path.read_text(encoding="utf-8") for path in files)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(wszoo\.families\.[a-z_]+\.\w+)`", PAGE))))
def test_every_helper_exists(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


def test_every_link_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).is_file()] == []


def test_the_plugin_is_small() -> None:
    source = (ECHO / "src" / "wszoo_echo" / "__init__.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) < 80
