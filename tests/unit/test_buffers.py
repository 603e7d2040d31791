"""Memory that goes back to the system, and what counts as a mapped file."""

from __future__ import annotations

import mmap
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from wszoo.buffers import Pool, empty, is_mapped


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


def where(array):
    return array.__array_interface__["data"][0]


pooled = pytest.mark.skipif(sys.platform == "win32", reason="Windows' C library gives large blocks back")


@pooled
def test_a_pool_gives_out_again_what_nobody_holds_any_more():
    pool = Pool(keep=16 << 20)
    first = pool.empty(4 << 20)
    first[:] = 7
    place, part = where(first), first[5:9].view(np.uint16)
    del first
    other = pool.empty(4 << 20)
    assert where(other) != place, "a part of the first is still held"
    assert part.tolist() == [0x0707, 0x0707]
    del part
    again = pool.empty(3 << 20)
    assert (where(again), len(again), again[0]) == (place, 3 << 20, 7)
    assert not is_mapped(again)


@pooled
def test_a_pool_gives_no_small_array_the_room_of_a_large_one():
    pool = Pool(keep=16 << 20)
    place = where(pool.empty(8 << 20))
    small = pool.empty(3 << 20)
    assert where(small) != place
    assert where(pool.empty(4 << 20)) == place


@pytest.mark.skipif(sys.platform != "linux", reason="memory is looked up in /proc")
def test_a_pool_keeps_no_more_than_it_may_and_goes_with_the_last_array():
    before, pool = anonymous(), Pool(keep=8 << 20)
    arrays = [pool.empty(4 << 20) for _ in range(10)]
    for array in arrays:
        array[:] = 1
    assert anonymous() - before > 38 << 20
    del arrays, array
    held = pool.empty(1 << 20)  # what is too much goes now
    assert anonymous() - before < 10 << 20
    del pool
    held[:] = 1
    del held
    assert anonymous() - before < 2 << 20


@pooled
def test_no_two_threads_get_the_same_room_of_a_pool():
    pool = Pool(keep=64 << 20)

    def use(number):
        for _ in range(200):
            array = pool.empty(1 << 20)
            array[:64] = number
            time.sleep(0)
            assert set(array[:64].tolist()) == {number}

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(use, range(8))) == [None] * 8
