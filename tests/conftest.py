"""What the core's tests share; models, stores and remotes to test with are in ``builders.py``."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

# Test modules are imported by file; child processes get the same path and can run functions of workers.py.
sys.path.insert(0, str(Path(__file__).parent))

from builders import SimulatedRemote, publish_model

from wszoo.store.store import Store


def pytest_configure():
    """Take Ctrl-C also where a shell started the tests in the background, which ignores it; children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Wait milliseconds, not seconds, between attempts."""
    from wszoo.transfer import tuning

    monkeypatch.setattr(tuning, "DEFAULT", replace(tuning.DEFAULT, backoff=0.002, backoff_cap=0.05))


@pytest.fixture(autouse=True)
def nobodys_settings(monkeypatch):
    """Remotes and keys that the user has configured do not count here."""
    monkeypatch.setenv("WSZOO_CONFIG", os.devnull)


@pytest.fixture
def store(tmp_path):
    """An empty store that has its folders."""
    made = Store(tmp_path / "store")
    made.layout.create()
    return made


@pytest.fixture(scope="session")
def _published(tmp_path_factory):
    made = Store(tmp_path_factory.mktemp("published") / "origin")
    publish_model(made, "net:1")
    return made.layout.root


@pytest.fixture(scope="session")
def _published_two(_published, tmp_path_factory):
    root = tmp_path_factory.mktemp("published") / "origin"
    shutil.copytree(_published, root)
    publish_model(Store(root), "other:1", seed=1, width=96, targets=("rtx-sm75",))
    return root


@pytest.fixture
def origin(_published, tmp_path):
    """A store with ``net:1``: two splice plans (sm86, sm89) and a portable one; never written to by a pull."""
    return Store(shutil.copytree(_published, tmp_path / "origin"))


@pytest.fixture
def two_models(_published_two, tmp_path):
    """The origin with a second model, ``other:1``, that shares only an asset with the first."""
    return Store(shutil.copytree(_published_two, tmp_path / "two"))


@pytest.fixture
def remote(origin):
    """The origin as a remote that counts, and that can be told to misbehave."""
    return SimulatedRemote(origin)
