from __future__ import annotations

import numpy as np

from wszoo.families.provenance import library_versions


def test_versions_are_those_that_are_installed_and_unknown_for_others() -> None:
    assert library_versions(["numpy", "no-such-package"]) == {"numpy": np.__version__, "no-such-package": "unknown"}
