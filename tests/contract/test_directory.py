"""A folder keeps the contracts of remotes."""

from __future__ import annotations

import pytest

from wszoo.remotes.directory import DirectoryRemote
from wszoo.testing.remotes import AtomicTagContract, ReadContract, WriteContract


class TestReading(ReadContract):
    @pytest.fixture
    def remote(self, zoo):
        return DirectoryRemote(zoo.layout.root)


class TestWriting(WriteContract, AtomicTagContract):
    @pytest.fixture
    def connect(self, tmp_path):
        return lambda: DirectoryRemote(tmp_path / "pushed")
