"""What tests of a family need: an export request with a folder to work in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wszoo.families.protocol import ExportRequest
from wszoo.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def export_request(source: Path, scratch: Path, *profiles: str, precision: str = "", **options: str) -> ExportRequest:
    """The request that ``wszoo build`` would make.

    Args:
        source: file or folder.
        scratch: a folder for temporary files; made when it does not exist.
        *profiles: as given with ``--profile``.
        precision: as given with ``--precision``.
        **options: as given with ``--option``, with ``_`` for ``-``.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    return ExportRequest(
        source=source,
        precision=precision,
        profiles=profiles,
        options={key.replace("_", "-"): value for key, value in options.items()},
        scratch=scratch,
        progress=Silent(),
    )


@pytest.fixture
def request_for(tmp_path: Path) -> Callable[..., ExportRequest]:
    """:func:`export_request` with an empty scratch folder of its own; import it into a ``conftest.py``."""
    return lambda source, *profiles, **given: export_request(source, tmp_path / "scratch", *profiles, **given)
