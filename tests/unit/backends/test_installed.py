import pytest

from wszoo.backends.installed import installed_version, load_module
from wszoo.errors import IncompatibleError, MissingExtraError


def test_version_comes_from_the_first_installed_package():
    assert installed_version("no-such-package", "numpy")[0].isdigit()
    assert installed_version("no-such-package") == ""


def test_missing_module_names_the_extra():
    with pytest.raises(MissingExtraError, match="'no_such_module' is not installed, and testing needs it") as error:
        load_module("no_such_module", extra="rtx", purpose="testing")
    assert 'pip install "wszoo[rtx]"' in error.value.hint
    assert isinstance(error.value.__cause__, ModuleNotFoundError)


def test_missing_parent_of_a_module_is_a_missing_module():
    with pytest.raises(MissingExtraError):
        load_module("no_such_module.inner.deep", extra="rtx", purpose="testing")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_dependency", "misses 'no_such_dependency'"),
        ("raise OSError('libcuda.so.1: cannot open')", "libcuda.so.1"),
        ("raise ImportError('undefined symbol')", "undefined symbol"),
    ],
)
def test_module_that_fails_to_load_says_why(tmp_path, monkeypatch, source, reason):
    (tmp_path / "broken_module.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(IncompatibleError, match=reason):
        load_module("broken_module", extra="rtx", purpose="testing")
