"""What the tests with hostile inputs share."""

from __future__ import annotations

import pytest
from faults.tally import tally


@pytest.fixture(autouse=True)
def _counted(request):
    """A test is an input, in the files that do not count several by themselves."""
    yield
    if not hasattr(request.module, "tally"):
        tally(f"hostile inputs: {request.path.stem.removeprefix('test_').replace('_', ' ')}")
