"""What the kernel sees of a store's operations, through strace: no change goes past the layer that the other tests
stand on, and a process that is killed from outside at a system call leaves a store that is whole.

In CI three calls of five operations are tried, at even distances; ``make torture`` tries all calls of all.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
from contract.servers import program
from faults.operations import OPERATIONS, check, finish, state
from faults.tally import LONG, tally
from faults.trials import PATIENCE, spread

CHANGES = "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,write,pwrite64,ftruncate,fsync,utimensat"
SAMPLE = 3
KILLED = OPERATIONS if LONG else ("put", "pull", "publish", "gc", "repair")
CHILD = """
import json, sys
sys.path.insert(0, sys.argv[5])
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from faults.disk import Disk
from faults.operations import OPERATIONS
root, away, counted = Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
try:
    (root / "begin").mkdir()
finally:
    (root / "begin").rmdir()
disk = Disk(root)
with disk.installed() if counted else nullcontext():
    OPERATIONS[sys.argv[1]].run(root, away)
(root / "end").mkdir()
(root / "end").rmdir()
if counted:
    Path(counted).write_text(json.dumps(Counter(step.kind for step in disk.log)))
"""


def traced(name, root, away, *options, counted=""):
    """Run an operation under strace in a process of its own. (With --seccomp-bpf strace 6.1 injects nothing.)

    Args:
        name: of the operation.
        root: of the store.
        away: of the store that has everything.
        options: for strace.
        counted: a file in which the layer notes what it saw; without one it is not there.
    """
    strace = [program("strace", "apt-get install strace"), "-f", "-qq", "-e", f"trace={CHANGES}", *options]
    words = [sys.executable, "-c", CHILD, name, str(root), str(away), str(counted), str(Path(__file__).parents[1])]
    return subprocess.run([*strace, *words], capture_output=True, text=True, check=False, timeout=PATIENCE)


def calls_of(name, bases, tmp_path, **options):
    """What changes the store in an operation: pairs of a call and its number in its thread, a list for each thread.

    Calls that fail, or that change something else, are not among them, but count, as they do for strace.
    """
    root = bases.fresh(name, tmp_path, "traced")
    # A file for each thread, else lines of several get mixed.
    done = traced(name, root, bases.away, "-y", "-ff", "-o", str(tmp_path / "trace"), **options)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(root)
    threads = []
    for path in sorted(tmp_path.glob("trace.*")):
        lines = [line for line in path.read_text(errors="replace").splitlines() if re.match(r"\w+\(", line)]
        begin = max((i for i, line in enumerate(lines) if "/begin" in line), default=-1)
        end = min((i for i, line in enumerate(lines) if "/end" in line), default=len(lines))
        counts, made = Counter(), []
        for at, line in enumerate(lines):
            call = re.match(r"\w+", line)[0]
            counts[call] += 1
            if begin < at < end and str(root) in line and " = -1 " not in line:
                made.append((call, counts[call]))
        threads.append(made)
    return threads


SAME = {
    "rename.*": {"rename"},
    "unlink.*|rmdir": {"unlink", "rmdir"},
    "mkdir.*": {"mkdir"},
    "p?write(64)?": {"write"},
    "ftruncate": {"truncate"},
    "fsync": {"fsync", "fsyncdir"},
    "utimensat": {"utime"},
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_change_of_the_disk_goes_past_the_layer(name, bases, tmp_path):
    counted = tmp_path / "counted"
    threads = calls_of(name, bases, tmp_path, counted=counted)
    seen, mine = Counter(call for calls in threads for call, _ in calls), json.loads(counted.read_text())
    assert seen
    for theirs, ours in SAME.items():
        made = sum(count for call, count in seen.items() if re.fullmatch(theirs, call))
        assert made == sum(mine.get(each, 0) for each in ours), theirs


@pytest.mark.parametrize("name", KILLED)
def test_killed_from_outside_at_any_system_call_a_store_is_whole_and_the_next_try_ends_well(name, bases, tmp_path):
    """Killed at the n-th call of each kind, by whichever thread makes it first: strace counts for each thread."""
    before, killed = state(bases.of(name)), 0
    points = list(dict.fromkeys(chain.from_iterable(calls_of(name, bases, tmp_path))))
    for call, number in spread(points, SAMPLE):
        root = bases.fresh(name, tmp_path, f"{call}-{number}")
        done = traced(name, root, bases.away, "-e", f"inject={call}:signal=KILL:when={number}")
        check(root, OPERATIONS[name], before)
        finish(root, bases.away, OPERATIONS[name])
        shutil.rmtree(root)
        assert done.returncode == 0 or "SIGKILL" in done.stderr, done.stderr
        killed += done.returncode != 0
    assert killed
    tally(f"crash points: {name}, killed at a system call by strace", killed)
