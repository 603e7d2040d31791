"""How much memory there is, from files like those of Linux; nothing here allocates any."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from wszoo.errors import IncompatibleError
from wszoo.families import resources

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
MEMINFO = f"MemTotal: {16 * GIB >> 10} kB\nMemFree: 1 kB\nMemAvailable: {8 * GIB >> 10} kB\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Linux machine with 8 GiB available, and no container."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(resources, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    return tmp_path


def limit(machine: Path, most: str, used: int, reclaimable: int = 0) -> None:
    (machine / "memory.max").write_text(f"{most}\n")
    (machine / "memory.current").write_text(f"{used}\n")
    (machine / "memory.stat").write_text(f"anon 1\ninactive_file {reclaimable}\n")


def test_available_is_what_linux_says(machine: Path) -> None:
    assert resources.available_memory() == 8 * GIB


def test_a_containers_limit_counts_less_what_it_can_give_back(machine: Path) -> None:
    limit(machine, str(4 * GIB), 3 * GIB, reclaimable=GIB)
    assert resources.available_memory() == 2 * GIB


def test_a_container_without_a_limit_or_with_a_larger_one_changes_nothing(machine: Path) -> None:
    for most in ("max", str(64 * GIB)):
        limit(machine, most, GIB)
        assert resources.available_memory() == 8 * GIB


@pytest.mark.parametrize("name", ["memory.max", "memory.current", "memory.stat"])
def test_control_files_that_cannot_be_understood_are_ignored(machine: Path, name: str) -> None:
    limit(machine, str(GIB), 0)
    (machine / name).write_text("what?")
    assert resources.available_memory() == 8 * GIB


def test_where_nothing_tells_nothing_is_known(machine: Path) -> None:
    (machine / "meminfo").unlink()
    assert resources.available_memory() is None


def test_too_little_is_said_with_both_numbers(machine: Path) -> None:
    resources.require_memory(8 * GIB, "export unet")
    with pytest.raises(IncompatibleError, match=r"8\.6 GB of memory are needed to export unet, and 8\.6 GB") as caught:
        resources.require_memory(8 * GIB + 1, "export unet")
    assert "larger machine" in caught.value.hint


def test_unknown_memory_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: None)
    resources.require_memory(1 << 60, "dream")


def test_this_machine_has_a_plausible_amount() -> None:
    available = resources.available_memory()
    assert available is None or 1 << 20 < available < 1 << 45
