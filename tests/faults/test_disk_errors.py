"""Every operation of a store meets every error of a disk at each of its steps.

In CI a sample of the steps is tried; ``make torture`` tries all of them with all errors.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress

import pytest
from faults.operations import OPERATIONS, check, finish, state
from faults.tally import LONG, tally
from faults.trials import chosen, run_and_fail

from wszoo.errors import WszooError

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
    before, steps = state(bases.of(name)), bases.steps_of(name, tmp_path)
    wanted = [step.number for step in steps if kinds is None or step.kind in kinds]
    for number in [wanted[each - 1] for each in chosen(wanted, seed=code, sample=4)]:
        failed = []

        def fail(step, number=number, failed=failed):
            hit = step.number >= number if lasting else step.number == number
            if hit and (kinds is None or step.kind in kinds):
                failed.append(step)
                raise OSError(code, os.strerror(code), step.path)

        root = bases.fresh(name, tmp_path, number)
        # Told; or the operation's own expectation, of a repair that leaves nothing.
        with suppress(WszooError, AssertionError):
            run_and_fail(name, root, bases.away, fail)
        check(root, OPERATIONS[name], before, index=not failed)
        finish(root, bases.away, OPERATIONS[name])
        shutil.rmtree(root)
        tally(f"faults injected: {name}, {error}", len(failed))
