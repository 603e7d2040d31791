"""What the trials of a store's operations share: the state that each starts from, and which steps are tried."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import traceback

import pytest
from faults.disk import Disk
from faults.operations import OPERATIONS
from faults.tally import LONG

PATIENCE = 100  # seconds; an operation takes one, and waits 20 for a dead owner at most


class Bases:
    """The state that each operation starts from, made once.

    Args:
        away: a store that has everything.
        make_folder: makes an empty folder.
    """

    def __init__(self, away, make_folder):
        self.away = away
        self._make_folder = make_folder
        self._made = {}

    def of(self, name):
        """The folder with an operation's state; to be copied, not changed."""
        if name not in self._made:
            self._made[name] = self._make_folder() / "store"
            OPERATIONS[name].prepare(self._made[name], self.away)
        return self._made[name]

    def fresh(self, name, tmp_path, number):
        """A copy of an operation's state."""
        return shutil.copytree(self.of(name), tmp_path / f"store-{number}")

    def steps_of(self, name, tmp_path):
        """The steps of an operation that nothing disturbs."""
        root = self.fresh(name, tmp_path, "whole")
        with Disk(root).installed() as disk:
            OPERATIONS[name].run(root, self.away)
        OPERATIONS[name].done(root)
        shutil.rmtree(root)
        return disk.log


def chosen(steps, seed=0, sample=8):
    """The numbers, from 1, of all steps in torture; else of a sample with the first and the last."""
    count = len(steps)
    if LONG or count <= sample:
        return range(1, count + 1)
    return sorted({1, count, *random.Random(seed).sample(range(1, count + 1), sample - 2)})


def spread(points, sample):
    """All points in torture, else some of them at even distances, the first and the last among them."""
    if LONG or len(points) <= sample:
        return list(points)
    return [points[round(each * (len(points) - 1) / (sample - 1))] for each in range(sample)]


def run_and_kill(name, root, away, number):
    """Run in a process that is killed before a step; True if it got that far."""
    child = os.fork()
    if not child:
        code = 3
        signal.alarm(PATIENCE)
        try:
            disk = Disk(root, lambda step: os.kill(os.getpid(), signal.SIGKILL) if step.number >= number else None)
            with disk.installed():
                OPERATIONS[name].run(root, away)
            code = 0
        except BaseException:  # noqa: BLE001 - nothing may escape into the test runner's copy
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status in {0, signal.SIGKILL}, "it failed, or hung"
    return status == signal.SIGKILL


def run_and_fail(name, root, away, before):
    """Run while ``before`` makes steps fail; what is raised then is raised here, and a test fails if it never ends."""
    raised = []

    def run():
        try:
            with Disk(root, before).installed():
                OPERATIONS[name].run(root, away)
        except BaseException as error:  # noqa: BLE001 - raised below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        pytest.exit(f"{name} hangs, with the file system's functions replaced", returncode=1)
    if raised:
        raise raised[0]
