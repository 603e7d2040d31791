"""Every operation of a store is killed before each of its steps, and loses its power after each of them.

In CI a sample of the steps is tried; ``make torture`` tries all of them.
"""

from __future__ import annotations

import random
import shutil

import pytest
from faults.disk import Disk, load, replay, write_out
from faults.operations import OPERATIONS, check, finish, state
from faults.tally import tally
from faults.trials import chosen, run_and_kill


@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_before_any_step_a_store_is_whole_and_the_next_try_ends_well(name, bases, tmp_path):
    before, steps = state(bases.of(name)), bases.steps_of(name, tmp_path)
    killed = 0
    for number in chosen(steps):
        root = bases.fresh(name, tmp_path, number)
        killed += run_and_kill(name, root, bases.away, number)
        check(root, OPERATIONS[name], before)
        finish(root, bases.away, OPERATIONS[name])
        shutil.rmtree(root)
    assert killed > 0
    tally(f"crash points: {name}, killed before a step", killed)


def _anything(seed):
    rng = random.Random(seed)
    return lambda what: rng.choice(["safe", "present"] if what == "names" else ["safe", "present", "zeros"])


CHOICES = {
    "data that was not synced is lost": lambda _: lambda what: "safe" if what == "data" else "present",
    "data that was not synced is zeros": lambda _: lambda what: "zeros" if what == "data" else "present",
    "names that were not synced are lost": lambda _: lambda what: "safe" if what == "names" else "present",
    "nothing that was not synced stays": lambda _: lambda _what: "safe",
    "anything": _anything,
}
DURABLE = ["put", "put into nothing", "pull", "publish", "retag", "gc", "repair"]


@pytest.mark.parametrize("name", DURABLE)
def test_after_a_power_failure_every_ref_is_whole_and_what_was_reported_done_is_there(name, bases, tmp_path):
    base = bases.of(name)
    before, tried = state(base), 0
    root = bases.fresh(name, tmp_path, "recorded")
    with Disk(root).installed() as disk:
        OPERATIONS[name].run(root, bases.away)
    steps = [step for step in disk.log if step.kind not in {"failed", "utime"}]
    points = sorted({*chosen(steps), len(steps)})
    for number in points:
        for seed, (what, choice) in enumerate(CHOICES.items()):
            tree = load(base)
            replay(tree, steps[:number])
            after = tmp_path / f"after-{number}-{seed}"
            write_out(tree, after, choice(number))
            try:
                # index.json is derived; the next update writes it again.
                check(after, OPERATIONS[name], before, index=False)
                if number == len(steps) and name != "gc":
                    OPERATIONS[name].done(after)
            except BaseException as error:
                error.add_note(f"{name}: power failed after step {number}, {steps[number - 1]}: {what}")
                raise
            shutil.rmtree(after)
            tried += 1
    tally(f"crash points: {name}, power failed after a step", tried)
