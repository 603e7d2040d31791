"""How many requests run at once."""

from __future__ import annotations

from wszoo.transfer.governor import Governor


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def step(governor, clock, rate):
    clock.now += 0.6
    governor.received(int(rate * 0.6))


def test_it_climbs_while_that_brings_more():
    clock = Clock()
    governor = Governor(4, 16, clock)
    limits = []
    for rate in (10, 20, 30, 40, 50, 60, 70, 80, 90):
        step(governor, clock, rate * 1000)
        limits.append(governor.limit)
    assert limits == [6, 8, 10, 12, 14, 16, 16, 16, 16]


def test_it_stays_where_more_brings_nothing():
    clock = Clock()
    governor = Governor(4, 16, clock)
    for rate in (1000, 1001, 5000, 9000):
        step(governor, clock, rate)
    assert governor.limit == 6


def test_it_halves_once_for_errors_that_come_together_and_climbs_again():
    clock = Clock()
    governor = Governor(8, 16, clock)
    for _ in range(8):
        governor.failed()
    assert governor.limit == 4
    clock.now += 2
    for rate in (1000, 2000, 3000):
        step(governor, clock, rate)
    assert governor.limit == 10
    for _ in range(10):
        governor.failed()
        clock.now += 2
    assert governor.limit == 1


def test_a_limit_below_the_start_holds():
    assert Governor(4, 2).limit == 2
