"""What the fault tests share."""

from __future__ import annotations

import pytest
from faults.trials import Bases


@pytest.fixture(scope="module")
def bases(_published_two, tmp_path_factory):
    """The state that each operation starts from."""
    return Bases(_published_two, lambda: tmp_path_factory.mktemp("base"))
