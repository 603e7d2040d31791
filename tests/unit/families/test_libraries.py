from __future__ import annotations

import json

import pytest

from wszoo.errors import MissingExtraError
from wszoo.families.libraries import require


def test_require_gives_the_module():
    assert require("json", plugin="wszoo-echo") is json


def test_require_names_the_plugins_extra_that_installs_what_is_missing():
    with pytest.raises(MissingExtraError, match="no_such_library") as caught:
        require("no_such_library.part", "run", plugin="wszoo-echo")
    assert "running this model" in str(caught.value)
    assert caught.value.hint == 'install it with: pip install "wszoo-echo[run]"'
