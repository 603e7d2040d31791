"""Plugins: found as installed packages, isolated from each other, and reported when they break."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

from wszoo import plugins
from wszoo.errors import UsageError

FAMILY = """
from wszoo.hookspecs import hookimpl

class Family:
    name = "{name}"
    summary = "a family"

    def export(self, request):
        return None

    def demo(self, model, arguments, progress):
        return None

@hookimpl
def wszoo_families():
    return [Family()]
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package: a module and the metadata that pip would write. Then load all plugins afresh."""
    monkeypatch.syspath_prepend(str(tmp_path))
    installed = []

    def make(name, source, *, entry=None, version="1.2", metadata=True, lines=None):
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        if metadata:
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(lines or f"[wszoo]\n{name} = {entry or name}\n")
        installed.append(name)
        importlib.invalidate_caches()
        plugins.registry.cache_clear()

    yield make
    for name in installed:
        sys.modules.pop(name, None)
    plugins.registry.cache_clear()


def found(name):
    return next(plugin for plugin in plugins.registry().plugins if plugin.name == name)


def test_built_in_plugins_are_all_usable():
    registry = plugins.registry()
    built_in = {plugin.name: plugin for plugin in registry.plugins if plugin.package == "wszoo"}
    assert set(built_in) == set(plugins.BUILTIN)
    assert {name: plugin.error for name, plugin in built_in.items() if plugin.error} == {}
    assert registry.family("onnx").name == "onnx"
    assert registry.backend("onnxruntime").prefix == "portable"
    assert registry.backend_for("rtx").name == "tensorrt_rtx"
    assert registry.remotes["directory"].schemes == ("", "file")


def test_plugins_are_loaded_once_a_process():
    assert plugins.registry() is plugins.registry()


def test_an_installed_plugin_is_found_and_described(install):
    install("zoo_good", FAMILY.format(name="good"))
    assert plugins.registry().family("good").summary == "a family"
    assert found("zoo_good") == plugins.Plugin("zoo_good", "zoo_good 1.2", ("family good",))


def test_families_are_not_asked_for_by_who_needs_a_remote(install):
    source = FAMILY.format(name="heavy").replace("return [Family()]", "import colorsys; return [Family()]")
    sys.modules.pop("colorsys", None)
    install("zoo_heavy", source)
    assert "file" in {scheme for kind in plugins.registry().remotes.values() for scheme in kind.schemes}
    assert "colorsys" not in sys.modules
    assert "heavy" in plugins.registry().families
    assert "colorsys" in sys.modules


def test_an_entry_point_may_name_an_object(install):
    source = FAMILY.format(name="inner") + "\nclass Plugin:\n    wszoo_families = staticmethod(wszoo_families)\n"
    install("zoo_object", source, entry="zoo_object:Plugin")
    assert plugins.registry().family("inner")


MISSPELT = FAMILY.format(name="x").replace("def wszoo_families", "def wszoo_familys")
BROKEN = {
    "import": (
        "import a_module_that_is_not_there",
        "ModuleNotFoundError: No module named 'a_module_that_is_not_there'",
    ),
    "syntax": ("def (", "SyntaxError"),
    "raises": ("raise RuntimeError('no GPU')", "RuntimeError: no GPU"),
    "exits": ("import sys; sys.exit('no licence')", "SystemExit('no licence')"),
    "misspelt": (MISSPELT, "wszoo_familys"),
    "hook_raises": (
        FAMILY.format(name="x").replace("return [Family()]", "raise ValueError('later')"),
        "ValueError: later",
    ),
    "no_list": (FAMILY.format(name="x").replace("return [Family()]", "return Family()"), "TypeError"),
    "nameless": (FAMILY.format(name="x").replace('name = "x"', "pass"), "has no name"),
    "arguments": (FAMILY.format(name="x").replace("wszoo_families()", "wszoo_families(gpu)"), "gpu"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_reported_and_harms_nobody(install, case):
    source, says = BROKEN[case]
    install(f"zoo_{case}", source)
    install("zoo_zz_good", FAMILY.format(name="good"))
    assert says in found(f"zoo_{case}").error
    assert found(f"zoo_{case}").provides == ()
    assert plugins.registry().family("good")
    assert plugins.registry().family("onnx")
    with pytest.raises(UsageError) as caught:
        plugins.registry().family("absent")
    assert caught.value.message == "no family named 'absent'"
    assert "onnx" in caught.value.hint
    assert f"zoo_{case}" in caught.value.hint
    assert "wszoo plugins" in caught.value.hint


@pytest.mark.parametrize("entry", ["zoo_where.inner", "zoo_where:Missing", "zoo_where:Missing.deeper"])
def test_an_entry_point_that_leads_nowhere_is_reported(install, entry):
    install("zoo_where", "", entry=entry)
    assert found("zoo_where").error


def test_of_two_plugins_with_one_name_the_first_stays(install):
    install("zoo_a", FAMILY.format(name="same"))
    install("zoo_b", FAMILY.format(name="same"))
    assert found("zoo_a").provides == ("family same",)
    assert found("zoo_b").error == "UsageError: another plugin already provides the family 'same'"
    assert type(plugins.registry().family("same")).__module__ == "zoo_a"


def test_a_plugin_cannot_take_a_built_in_name(install):
    install("zoo_thief", FAMILY.format(name="onnx"))
    assert "already provides the family 'onnx'" in found("zoo_thief").error
    assert type(plugins.registry().family("onnx")).__module__ == "wszoo.families.onnx"


def test_a_package_without_metadata_is_still_usable(install):
    install("zoo_bare", FAMILY.format(name="bare"), metadata=False)
    assert found("zoo_bare").error == ""
    assert plugins.registry().family("bare")


def test_unknown_names_list_what_there_is():
    registry = plugins.registry()
    with pytest.raises(UsageError, match="no backend named 'x'") as caught:
        registry.backend("x")
    assert "onnxruntime" in caught.value.hint
    with pytest.raises(UsageError, match="no target prefix named 'x'") as caught:
        registry.backend_for("x")
    assert "portable" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("not a module", "ModuleNotFoundError|ValueError|AttributeError"),
        ("", "."),
        ("a:b:c", "."),
        ("mod[", "."),
        (":attribute", "."),
        ("wszoo_no_such_module:thing", "ModuleNotFoundError"),
        ("../../evil", "."),
        ("\u202eevil", "."),
        ("x" * 10_000, "."),
    ],
)
def test_an_entry_point_with_a_malformed_value_is_reported_and_breaks_nothing(value, says, install):
    install("odd", FAMILY.format(name="odd"), lines=f"[wszoo]\nodd = {value}\n")
    install("good", FAMILY.format(name="good"))
    assert found("good").provides == ("family good",)
    broken = [plugin for plugin in plugins.registry().plugins if plugin.name == "odd"]
    assert all(re.search(says, plugin.error) for plugin in broken)


@pytest.mark.parametrize(
    "lines",
    [
        "[wszoo\nodd = odd\n",
        "odd = odd\n",
        "[wszoo]\nodd\n",
        "[wszoo]\n= odd\n",
        "[wszoo]\n\0 = odd\n",
        "\ufeff[wszoo]\n",
    ],
    ids=["open section", "no section", "no value", "no name", "null byte", "byte order mark"],
)
def test_malformed_entry_point_metadata_breaks_nothing(lines, install):
    install("odd", FAMILY.format(name="odd"), lines=lines)
    install("good", FAMILY.format(name="good"))
    assert found("good").provides == ("family good",)
    assert all(plugin.error == "" or plugin.name in {"odd", ""} for plugin in plugins.registry().plugins)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="later Pythons pass over such a line")
def test_a_package_whose_entry_points_cannot_be_read_is_shown_as_broken(install):
    install("odd", FAMILY.format(name="odd"), lines="[wszoo]\nodd\n")
    install("good", FAMILY.format(name="good"))
    assert found("odd").package == "odd 1.2"
    assert "entry_points.txt is malformed" in found("odd").error
    assert found("good").provides == ("family good",)


@pytest.mark.parametrize("name", ["wszoo_echo", "wszoo_cnn", "wszoo_sdxl", "wszoo_llm"])
def test_importing_our_plugins_loads_nothing_heavy(name):
    """Every command does; a pull alone needs none of these."""
    pytest.importorskip(name)
    heavy = "{'numpy', 'ml_dtypes', 'onnx', 'onnxruntime', 'torch', 'transformers', 'diffusers'}"
    code = f"import sys, {name}; print(*{heavy} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split() == []
