"""How much memory there is."""

import sys
from pathlib import Path

import pytest

from wszoo.executors import memory


def test_some_memory_is_available_and_no_more_than_the_machine_has():
    assert 64 << 20 < memory.available() < 1 << 50


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_linux_tells_what_is_available():
    lines = Path("/proc/meminfo").read_text().splitlines()
    total = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemTotal:"))
    assert memory.available() < total


def test_where_nobody_tells_a_little_is_assumed(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "win32")
    assert memory.available() <= memory.UNKNOWN
