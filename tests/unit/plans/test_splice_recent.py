"""Arrays that threads make together and share."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from wszoo.errors import MalformedError
from wszoo.plans.splice.recent import Recent
from wszoo.weights.tensor import Loading, LoadInParts

KEY = (0, 0)
PATIENCE = 20  # seconds


def of(size):
    return lambda: Loading(np.zeros(size, np.uint8))


def never():
    raise AssertionError("made again")


def test_threads_that_ask_at_once_do_the_parts_together():
    meeting = threading.Barrier(4, timeout=PATIENCE)
    data, begun = np.zeros(4, np.uint8), []

    def part(number):
        meeting.wait()  # one thread alone would wait here for ever
        data[number] = number + 1

    def begin():
        begun.append(1)
        return Loading(data, tuple(lambda number=number: part(number) for number in range(4)))

    recent = Recent(100)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: recent.get(KEY, begin).tobytes(), range(6)))
    assert found == [bytes([1, 2, 3, 4])] * 6
    assert begun == [1]


def test_one_thread_does_all_parts():
    data, done = np.zeros(3, np.uint8), []
    parts = tuple(lambda number=number: done.append(number) for number in range(3))
    assert Recent(100).get(KEY, lambda: Loading(data, parts)) is data
    assert sorted(done) == [0, 1, 2]


def test_what_a_part_raises_reaches_everyone_and_stops_the_other_parts():
    meeting, done = threading.Barrier(2, timeout=PATIENCE), []

    def broken():
        meeting.wait()
        raise MalformedError("mine")

    def begin():
        return Loading(np.zeros(1, np.uint8), (broken, broken, lambda: done.append(1)))

    recent = Recent(100)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(recent.get, KEY, begin) for _ in range(2)]
        for each in asked:
            with pytest.raises(MalformedError, match="mine"):
                each.result(PATIENCE)
    assert not done
    assert KEY not in recent


def test_what_could_not_be_made_is_tried_anew():
    recent = Recent(100)

    def broken():
        raise MalformedError("mine")

    for _ in range(2):
        with pytest.raises(MalformedError, match="mine"):
            recent.get(KEY, broken)
    assert len(recent.get(KEY, of(7))) == 7


def test_the_oldest_are_let_go_of_and_never_the_newest():
    recent = Recent(100)
    for number, size in enumerate((40, 40, 10)):
        recent.get((number, 0), of(size))
    recent.get((0, 0), never)
    recent.get((3, 0), of(30))
    assert [(number, 0) in recent for number in range(4)] == [True, False, True, True]
    recent.get((4, 0), of(1000))
    assert [(number, 0) in recent for number in range(5)] == [False, False, False, False, True]


def test_mapped_files_count_for_nothing(tmp_path):
    (tmp_path / "file").write_bytes(bytes(1000))
    whole = np.memmap(tmp_path / "file", np.uint8, "r")
    recent = Recent(100)
    for number in range(5):
        recent.get((number, 0), lambda: Loading(np.asarray(whole[10:])))
    recent.get((5, 0), of(100))
    assert all((number, 0) in recent for number in range(6))


def test_a_load_in_parts_is_a_load():
    data = np.zeros(2, np.uint8)
    load = LoadInParts(
        lambda _start, _stop: Loading(data, tuple(lambda number=number: data.put(number, 5) for number in range(2)))
    )
    assert load() is data
    assert data.tolist() == [5, 5]
