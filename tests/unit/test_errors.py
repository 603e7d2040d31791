"""The error tree: stable exit codes, messages and hints."""

from __future__ import annotations

import re

import pytest

from wszoo import errors
from wszoo.errors import IntegrityError, LimitError, MalformedError, MissingExtraError, WszooError

CODES = {
    "WszooError": 1,
    "UsageError": 2,
    "NotFoundError": 3,
    "IntegrityError": 4,
    "MalformedError": 4,
    "LimitError": 4,
    "IncompatibleError": 5,
    "MissingExtraError": 6,
    "BuildError": 7,
    "StorageError": 8,
    "RemoteError": 9,
    "TrustError": 10,
}


def test_exit_codes_are_those_that_are_documented():
    tree = {
        name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, WszooError)
    }
    assert {name: kind.exit_code for name, kind in tree.items()} == CODES
    documented = dict(re.findall(r"(\w+Error) +(\d+)  ", errors.__doc__))
    assert {name: int(code) for name, code in documented.items()}.items() <= CODES.items()
    assert len(documented) == 9


@pytest.mark.parametrize("kind", [MalformedError, LimitError])
def test_bad_documents_and_limits_are_integrity_errors(kind):
    assert issubclass(kind, IntegrityError)


def test_text_of_an_error_is_its_message_and_then_its_hint():
    assert str(WszooError("it broke", hint="mend it")) == "it broke\nmend it"
    assert str(WszooError("it broke")) == "it broke"


def test_a_missing_extra_says_what_to_install():
    error = MissingExtraError("onnxruntime", "ort", "running a portable plan")
    assert "'onnxruntime'" in error.message
    assert "running a portable plan" in error.message
    assert error.hint == 'install it with: pip install "wszoo[ort]"'
