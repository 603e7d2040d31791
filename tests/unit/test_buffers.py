"""Memory that goes back to the system, and what counts as a mapped file."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from wszoo.buffers import empty, is_mapped


def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) - 1, 1 << 20, (3 << 20) + 5])
def test_there_is_room_to_write_to(size):
    room = empty(size)
    assert (room.dtype, room.shape) == (np.uint8, (size,))
    room[:] = 7
    assert int(room.sum()) == 7 * size


@pytest.mark.skipif(sys.platform != "linux", reason="memory is looked up in /proc")
def test_memory_goes_back_when_the_last_part_of_it_is_let_go():
    before = anonymous()
    rooms = [empty(8 << 20) for _ in range(8)]
    for room in rooms:
        room[:] = 1
    part = rooms[0][5:10]
    assert anonymous() - before > 60 << 20
    del rooms, room
    assert 8 << 20 <= anonymous() - before < 16 << 20
    del part
    assert anonymous() - before < 4 << 20


def test_only_files_count_as_mapped(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(8192))
    with path.open("rb") as file:
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    assert is_mapped(mapped[5:].reshape(1, -1))
    assert not is_mapped(empty(4 << 20)[5:])
    assert not is_mapped(empty(4))
