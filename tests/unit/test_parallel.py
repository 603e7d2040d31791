"""ordered_map: in order, on threads, never far ahead."""

from __future__ import annotations

import threading

import pytest

from wszoo.parallel import cores, ordered_map


def test_results_come_in_order_whatever_finishes_first():
    second_done = threading.Event()

    def work(item):
        if item == 0:
            assert second_done.wait(10)
        if item == 1:
            second_done.set()
        return item * 10

    assert list(ordered_map(work, range(20), workers=4)) == [item * 10 for item in range(20)]


def test_input_is_never_taken_more_than_two_items_a_thread_ahead():
    taken = []

    def source():
        for item in range(100):
            taken.append(item)
            yield item

    for done, _ in enumerate(ordered_map(lambda item: item, source(), workers=3)):
        assert len(taken) <= done + 1 + 2 * 3
    assert len(taken) == 100


def test_an_exception_reaches_the_consumer_and_stops_the_rest():
    started = []

    def work(item):
        started.append(item)
        if item == 2:
            raise ValueError("item 2")
        return item

    results = ordered_map(work, range(1000), workers=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="item 2"):
        next(results)
    assert len(started) < 20


def test_a_consumer_that_stops_early_leaves_no_threads():
    before = threading.active_count()
    results = ordered_map(lambda item: item, range(1000), workers=4)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_no_items_give_no_results():
    assert list(ordered_map(str, [])) == []
    assert cores() >= 1
