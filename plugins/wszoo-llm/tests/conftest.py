from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wszoo.testing.families import export_request, request_for

if TYPE_CHECKING:
    from wszoo.families.local import LocalModel

__all__ = ["request_for"]

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))  # the suite also runs where the plugin is not installed


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in many shards, with a tokenizer."""
    from wszoo_llm import tiny

    return tiny.make(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    """The same, for the test to damage."""
    return Path(shutil.copytree(llama, tmp_path / "copy"))


@pytest.fixture(scope="session")
def exported(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalModel, dict[str, str]]:
    """It in fp32, compared with transformers, and what the export recorded about itself."""
    from wszoo_llm.family import LlmFamily

    from wszoo.families.local import local_model

    export = LlmFamily().export(export_request(llama, tmp_path_factory.mktemp("scratch"), "b4-c128"))
    return local_model(export), dict(export.options)
