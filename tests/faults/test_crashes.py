"""Every operation of a store is killed before each of its steps, and meets every error of a disk at each of them.

In CI a sample of the steps is tried; ``make torture`` tries all of them, and kills from outside with strace as well.
"""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import pytest
from contract.servers import program
from faults.disk import Disk, load, replay, write_out
from faults.operations import OPERATIONS, check, finish, state
from faults.tally import LONG, tally

from wszoo.errors import WszooError

CHANGES = "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,write,pwrite64,ftruncate,fsync,utimensat"


@pytest.fixture(scope="module")
def bases(two_models_root, tmp_path_factory):
    """The state that each operation starts from, made once."""
    made = {}

    def base(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("base") / "store"
            OPERATIONS[name].prepare(made[name], two_models_root)
        return made[name]

    base.away = two_models_root
    return base


@pytest.fixture(scope="module")
def two_models_root(_published_two):
    return _published_two


def fresh(base, tmp_path, number):
    root = tmp_path / f"store-{number}"
    shutil.copytree(base, root)
    return root


def steps_of(name, base, away, tmp_path):
    """The steps of an operation that nothing disturbs."""
    root = fresh(base, tmp_path, "whole")
    with Disk(root).installed() as disk:
        OPERATIONS[name].run(root, away)
    OPERATIONS[name].done(root)
    shutil.rmtree(root)
    return disk.log


def chosen(steps, seed=0, sample=8):
    """All steps in torture, else a sample with the first and the last."""
    count = len(steps)
    if LONG or count <= sample:
        return range(1, count + 1)
    return sorted({1, count, *random.Random(seed).sample(range(1, count + 1), sample - 2)})


def run_and_kill(name, root, away, number):
    """Run in a process that is killed before a step; True if it got that far."""
    child = os.fork()
    if not child:
        code = 3
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
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_before_any_step_a_store_is_whole_and_the_next_try_ends_well(name, bases, two_models_root, tmp_path):
    base, away = bases(name), two_models_root
    before, steps = state(base), steps_of(name, base, away, tmp_path)
    killed = 0
    for number in chosen(steps):
        root = fresh(base, tmp_path, number)
        killed += run_and_kill(name, root, away, number)
        check(root, OPERATIONS[name], before)
        finish(root, away, OPERATIONS[name])
        shutil.rmtree(root)
    assert killed > 0
    tally("crash points: killed before a step", killed)


FULL = {"create", "write", "mkdir", "truncate"}
ERRORS = {
    "disk full": (errno.ENOSPC, FULL),
    "quota": (errno.EDQUOT, FULL),
    "i/o error": (errno.EIO, None),
    "read-only": (errno.EROFS, None),
    "not permitted": (errno.EACCES, None),
    "stale handle": (errno.ESTALE, None),
}


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_error_of_the_disk_at_any_step_is_told_and_loses_nothing(name, error, lasting, bases, tmp_path):
    if not LONG and (lasting, error) not in {(True, "disk full"), (False, "i/o error"), (True, "read-only")}:
        pytest.skip("only in make torture")
    code, kinds = ERRORS[error]
    base, away = bases(name), bases.away
    before, steps = state(base), steps_of(name, base, away, tmp_path)
    wanted = [step.number for step in steps if kinds is None or step.kind in kinds]
    for number in [wanted[each - 1] for each in chosen(wanted, seed=code, sample=4)]:
        failed = []

        def fail(step, number=number, failed=failed):
            hit = step.number >= number if lasting else step.number == number
            if hit and (kinds is None or step.kind in kinds):
                failed.append(step)
                raise OSError(code, os.strerror(code), step.path)

        root = fresh(base, tmp_path, number)
        # Told; or the operation's own expectation, of a repair that leaves nothing.
        with suppress(WszooError, AssertionError), Disk(root, fail).installed():
            OPERATIONS[name].run(root, away)
        check(root, OPERATIONS[name], before, index=not failed)
        finish(root, away, OPERATIONS[name])
        shutil.rmtree(root)
        tally(f"faults injected: {error}", len(failed))


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
def test_after_a_power_failure_every_ref_is_whole_and_what_was_reported_done_is_there(
    name, bases, two_models_root, tmp_path
):
    base, away = bases(name), two_models_root
    before, tried = state(base), 0
    root = fresh(base, tmp_path, "recorded")
    with Disk(root).installed() as disk:
        OPERATIONS[name].run(root, away)
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
    tally("crash points: power failures", tried)


CHILD = """
import sys
sys.path.insert(0, sys.argv[4])
from pathlib import Path
from faults.operations import OPERATIONS
root, away = map(Path, sys.argv[2:4])
try:
    (root / "begin").mkdir()
finally:
    (root / "begin").rmdir()
OPERATIONS[sys.argv[1]].run(root, away)
(root / "end").mkdir()
(root / "end").rmdir()
"""


def traced(name, root, away, *options, trace=None):
    """Run an operation under strace in a process of its own. (With --seccomp-bpf strace 6.1 injects nothing.)"""
    words = [
        program("strace", "apt-get install strace"),
        "-f",
        "-qq",
        "-e",
        f"trace={trace or CHANGES}",
        *options,
        sys.executable,
        "-c",
    ]
    command = [*words, CHILD, name, str(root), str(away), str(Path(__file__).parents[1])]
    return subprocess.run(command, capture_output=True, text=True, check=False)


SAME = {
    "rename.*": {"rename"},
    "unlink.*|rmdir": {"unlink", "rmdir"},
    "mkdir.*": {"mkdir"},
    "p?write(64)?": {"write"},
    "fsync": {"fsync", "fsyncdir"},
    "utimensat": {"utime"},
}


@pytest.mark.parametrize("name", ["put", "publish", "retag", "gc"])
def test_no_change_of_the_disk_goes_past_the_layer(name, bases, two_models_root, tmp_path):
    """What the kernel sees between two marks is what the layer counts. (A pull's threads share work by chance.)"""
    base = bases(name)
    mine = [step.kind for step in steps_of(name, base, two_models_root, tmp_path)]
    root = fresh(base, tmp_path, "traced")
    # A file for each thread, else lines of several get mixed; all of these operations do their work in one.
    traced(name, root, two_models_root, "-y", "-ff", "-o", str(tmp_path / "trace"))
    texts = [path.read_text(errors="replace") for path in tmp_path.glob("trace.*")]
    (text,) = [text for text in texts if "/begin" in text]
    calls = [line for line in text.splitlines() if " = -1 " not in line]
    begin = max(i for i, line in enumerate(calls) if "/begin" in line)
    end = min(i for i, line in enumerate(calls) if "/end" in line)
    assert 0 <= begin < end
    seen = [re.search(r"(\w+)\(", line)[1] for line in calls[begin + 1 : end] if str(root) in line]
    assert seen
    for theirs, ours in SAME.items():
        wanted = sum(each in ours for each in mine)
        assert sum(re.fullmatch(theirs, each) is not None for each in seen) == wanted, theirs


@pytest.mark.skipif(not LONG, reason="only in make torture")
@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_from_outside_at_any_system_call(name, bases, two_models_root, tmp_path):
    base = bases(name)
    before, killed = state(base), 0
    for number in range(1, 2000):
        root = fresh(base, tmp_path, number)
        done = traced(name, root, two_models_root, "-e", f"inject={CHANGES}:signal=KILL:when={number}")
        check(root, OPERATIONS[name], before)
        finish(root, two_models_root, OPERATIONS[name])
        shutil.rmtree(root)
        if done.returncode == 0:
            break
        assert "SIGKILL" in done.stderr, done.stderr
        killed += 1
    assert killed
    tally("crash points: killed at a system call by strace", killed)
