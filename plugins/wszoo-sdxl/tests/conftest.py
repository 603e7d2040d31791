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
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SDXL of random weights, as diffusers saves it."""
    from wszoo_sdxl import tiny

    return tiny.make(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    """The same, for the test to damage."""
    return Path(shutil.copytree(base, tmp_path / "copy"))


@pytest.fixture(scope="session")
def refiner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny refiner: one text encoder, and a score for beauty."""
    from wszoo_sdxl import tiny

    return tiny.make(tmp_path_factory.mktemp("tiny") / "refiner", "refiner")


@pytest.fixture(scope="session")
def exported(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalModel, dict[str, str]]:
    """All five components in fp32, each compared with torch, and what the export recorded about itself."""
    from wszoo_sdxl.family import SdxlFamily

    from wszoo.families.local import local_model

    scratch = tmp_path_factory.mktemp("scratch")
    export = SdxlFamily().export(export_request(base, scratch, precision="fp32"))
    return local_model(export), dict(export.options)
