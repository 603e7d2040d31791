"""Exports of the golden store, compared with files that were looked at once by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from wszoo.api import Zoo
from wszoo.version import __version__

GOLDEN = Path(__file__).parents[2] / "golden"
TARGETS = ["rtx-sm86", "rtx-sm89"]


@pytest.fixture
def golden(tmp_path):
    return Zoo(shutil.copytree(GOLDEN / "store-v1", tmp_path / "store"))


@pytest.mark.parametrize(
    ("to", "name", "targets"),
    [
        ("ortpackage", "manifest.json", ()),
        ("ortpackage", "net/component.json", ()),
        ("triton", "net/config.pbtxt", TARGETS),
        ("triton", "wszoo-export.json", TARGETS),
    ],
)
def test_what_is_written_is_what_it_was(to, name, targets, golden, tmp_path):
    written = golden.export("net:1", tmp_path / "out", to=to, targets=targets).path / name
    kept = GOLDEN / "export-v1" / to / Path(name).name
    assert written.read_text() == kept.read_text().replace("@VERSION@", __version__)
