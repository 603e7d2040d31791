"""What the tests of exports share."""

from __future__ import annotations

import pytest

from wszoo.api import Zoo


@pytest.fixture
def export(origin, tmp_path):
    """Export ``net:1`` from the origin to ``out``; gives the folder."""

    def run(to, *, ref="net:1", store=origin, out=tmp_path / "out", **given):
        return Zoo(store.layout.root).export(ref, out, to=to, **given).path

    return run
