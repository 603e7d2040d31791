"""Nothing on a client's path is POSIX-only: what DESIGN asks for, checked in the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from builders import publish_model

import wszoo

ROOT = Path(wszoo.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
POSIX_ONLY = {"fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "posix", "syslog", "readline"}
LINKS = {"symlink", "link", "symlink_to", "hardlink_to"}
FORKS = {"fork", "forkpty", "getuid", "geteuid", "chown", "mkfifo", "mknod", "sendfile", "posix_fallocate", "pread"}


KERNEL_FILES = {"families/resources.py"}  # reads /proc where there is one


def trees():
    for path in FILES:
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_there_is_source_to_look_at():
    assert len(FILES) > 40


def test_no_module_imports_what_only_posix_has():
    found = []
    for name, tree in trees():
        for node in ast.walk(tree):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            found += [f"{name}:{node.lineno} {m}" for m in modules if m.split(".")[0] in POSIX_ONLY]
    assert found == []


def test_no_code_makes_links_or_calls_what_windows_lacks_without_asking_first():
    found = []
    for name, tree in trees():
        asked = {
            node.args[1].value
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hasattr"
            if isinstance(node.args[1], ast.Constant)
        }
        found += [
            f"{name}:{node.lineno} {node.func.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if node.func.attr in LINKS | (FORKS - asked)
        ]
    assert found == []


def test_files_are_replaced_only_through_the_function_that_tries_again():
    """``os.replace`` fails on Windows while a scanner holds the file; ``os.rename`` is the store's way to claim."""
    calls = {"replace": [], "rename": []}
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                calls.get(node.attr, []).append(name)
    assert set(calls["replace"]) == {"store/files.py"}
    assert [name for name in calls["rename"] if not name.startswith("store/")] == []


def test_folders_are_synced_in_one_place_that_knows_windows():
    """Windows cannot open a folder; see also test_folders_are_not_synced_on_windows."""
    users = [name for name, tree in trees() if "O_RDONLY" in ast.dump(tree) or "O_DIRECTORY" in ast.dump(tree)]
    assert users == ["store/files.py"]


def test_flags_and_processes_that_windows_lacks_are_asked_for_in_one_place_each():
    """See test_windows_which_cannot_open_without_waiting_opens_files_too."""
    only = {"O_NONBLOCK": ["store/files.py"], "O_NOFOLLOW": ["store/files.py"], "kill": ["store/processes.py"]}
    found = {name: [] for name in only}
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                found.get(node.attr, []).append(name)
    assert found == only


def test_text_is_read_and_written_as_utf8():
    """The default on Windows is the machine's code page."""
    found = []
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                known = {keyword.arg for keyword in node.keywords}
                if name in KERNEL_FILES:
                    continue
                if node.func.attr in {"read_text", "write_text"} and "encoding" not in known:
                    found.append(f"{name}:{node.lineno}")
    assert found == []


def test_every_file_of_the_package_has_a_portable_name():
    from wszoo.names import is_portable_file_name

    names = [part for path in FILES for part in path.relative_to(ROOT).parts]
    assert [name for name in names if not is_portable_file_name(name)] == []


def test_paths_in_a_store_stay_short_enough_for_windows(origin):
    """260 characters is Windows' limit: the store's own part must leave most of them to the user's folder."""
    longest = max(len(str(path.relative_to(origin.layout.root))) for path in origin.layout.root.rglob("*"))
    assert longest < 100


@pytest.mark.parametrize(
    "module",
    [
        "wszoo",
        "wszoo.api",
        "wszoo.distribution.pull",
        "wszoo.resolver",
        "wszoo.store.store",
        "wszoo.names",
        "wszoo.transfer",
    ],
)
def test_importing_loads_no_heavy_library(module):
    code = f"import sys, {module}; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"torch", "tensorrt", "tensorrt_rtx", "onnxruntime", "huggingface_hub", "onnx", "transformers"}
    assert heavy & set(loaded) == set()


def test_importing_the_interface_loads_nothing_that_a_pull_does_not_need():
    """Building, exporting, pushing and mending were a third of the time that every pull took to begin."""
    code = "import sys, wszoo.api; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    rest = {
        "build",
        "export",
        "push",
        "refit",
        "repair",
        "complete",
        "describe",
        "sources",
        "families",
        "lock",
        "serve",
    }
    assert {name for name in loaded if name.startswith("wszoo.") and name.split(".")[1] in rest} == set()


_PULL = """
import sys, wszoo, wszoo.plugins
wszoo.plugins.entry_points = lambda **_: []  # what installed plugins import is theirs to say
wszoo.Zoo(sys.argv[1]).pull("net:1", gpu="none", source=sys.argv[2])
print(" ".join(sys.modules))
"""


def test_a_pull_loads_no_numpy(store, tmp_path):
    """It takes 0.1 s to import, and its BLAS keeps every core of the machine busy for as long."""
    publish_model(store, "net:1", targets=())
    words = [sys.executable, "-c", _PULL, str(tmp_path / "pulled"), str(store.layout.root)]
    loaded = set(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    assert {"numpy", "ml_dtypes", "pynvml"} & loaded == set()
    assert {"wszoo.transfer.engine", "wszoo.transfer.tensors"} <= loaded
