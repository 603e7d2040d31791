"""The local executor: processes that may die, and memory that they have to share."""

import os
import sys
import time
from concurrent.futures import wait

import pytest

from wszoo.errors import UsageError
from wszoo.executors.inline import InlineExecutor
from wszoo.executors.local import LARGE, LocalCrew, LocalExecutor
from wszoo.executors.protocol import Lost, Need

NOTHING = Need()


@pytest.fixture
def crew(tmp_path):
    made = LocalCrew(2, 4 * LARGE, tmp_path)
    yield made
    made.close()


def _from_workers(name):
    import workers

    return getattr(workers, name)


def test_a_task_runs_in_another_process_and_its_result_comes_back(crew):
    pid = crew.submit(_from_workers("own_pid"), None, NOTHING).result(30)
    assert pid != os.getpid()


def test_what_a_task_raises_comes_back_and_its_process_lives_on(crew):
    before = crew.submit(_from_workers("own_pid"), None, NOTHING).result(30)
    with pytest.raises(ZeroDivisionError):
        crew.submit(_from_workers("divide"), 0, NOTHING).result(30)
    assert crew.submit(_from_workers("own_pid"), None, NOTHING).result(30) == before


@pytest.mark.skipif(sys.platform == "win32", reason="a process ends with another status there")
def test_a_crash_is_one_lost_task_with_what_was_printed(crew):
    with pytest.raises(Lost, match=r"by signal 6 \(SIGABRT\)") as lost:
        crew.submit(_from_workers("crash"), "the builder gives up", NOTHING).result(30)
    assert lost.value.log == "the builder gives up"
    assert crew.submit(_from_workers("own_pid"), None, NOTHING).result(30)


def test_small_tasks_run_at_once_and_a_big_one_alone(crew, tmp_path):
    task = _from_workers("count_running")
    small = [crew.submit(task, str(tmp_path / "small"), Need(memory=LARGE // 2)) for _ in range(2)]
    assert max(future.result(30) for future in small) == 2
    mixed = [
        crew.submit(task, str(tmp_path / "mixed"), Need(memory=size)) for size in (9 * LARGE, 2 * LARGE, 9 * LARGE)
    ]
    assert max(future.result(30) for future in mixed) == 1


def test_a_process_that_built_something_large_ends(crew):
    first = crew.submit(_from_workers("own_pid"), None, Need(memory=LARGE)).result(30)
    assert crew.submit(_from_workers("own_pid"), None, Need(memory=LARGE)).result(30) != first


def test_closing_stops_what_runs(tmp_path):
    crew = LocalCrew(1, LARGE, tmp_path)
    running = crew.submit(_from_workers("sleep"), str(tmp_path / "started"), NOTHING)
    waiting = crew.submit(_from_workers("sleep"), str(tmp_path / "never"), NOTHING)
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    started = time.monotonic()
    crew.close()
    wait([running], 10)
    assert time.monotonic() - started < 10
    assert waiting.cancelled()
    assert isinstance(running.exception(), Lost)
    assert not (tmp_path / "never").exists()


def test_addresses_and_numbers_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="no address"), LocalExecutor().open("host:1", None):
        pass
    with pytest.raises(UsageError, match="one plan after the other"), InlineExecutor().open("", 2):
        pass


def test_inline_runs_in_this_process():
    with InlineExecutor().open("", None) as crew:
        assert crew.submit(_from_workers("own_pid"), None, NOTHING).result(0) == os.getpid()
        assert isinstance(crew.submit(_from_workers("divide"), 0, NOTHING).exception(), ZeroDivisionError)
