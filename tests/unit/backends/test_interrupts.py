import signal
import threading

import pytest

from wszoo.backends.interrupts import deferred_interrupt


def _press():
    signal.raise_signal(signal.SIGINT)


def _interrupted(reached):
    with deferred_interrupt() as seen:
        reached.append(len(seen))
        _press()
        _press()
        reached.append(len(seen))


def test_interrupt_waits_until_the_end():
    before, reached = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt):
        _interrupted(reached)
    assert reached == [0, 2]
    assert signal.getsignal(signal.SIGINT) is before


def _interrupted_and_failing():
    with deferred_interrupt():
        _press()
        raise ValueError("cancelled")


def test_interrupt_is_more_than_an_error_that_it_caused():
    with pytest.raises(KeyboardInterrupt) as error:
        _interrupted_and_failing()
    assert isinstance(error.value.__context__, ValueError)


def test_without_an_interrupt_nothing_is_raised():
    with deferred_interrupt() as seen:
        pass
    assert seen == []


def test_other_threads_are_left_alone():
    before, found = signal.getsignal(signal.SIGINT), []

    def work():
        with deferred_interrupt():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]
