"""Documents are read within bounds of time, also from remotes that cannot be stopped."""

from __future__ import annotations

import _thread
import threading
import time

import pytest

from wszoo.digest import Digest
from wszoo.errors import LimitError, NotFoundError, RemoteError
from wszoo.schema.oci import Descriptor
from wszoo.transfer import RemoteDocuments, Tuning

DATA = bytes(range(256)) * 4
BLOB = Descriptor(media_type="application/x", digest=Digest.of(DATA), size=len(DATA))
TUNING = Tuning(backoff=0.001, backoff_cap=0.01, attempts=2, stall=0.3)


class Generator:
    """A remote whose ``open`` is a plain generator, which no other thread can close."""

    url = "mem"
    trusted = True

    def __init__(self, answer):
        self._answer = answer
        self.asked = 0

    def open(self, descriptor, offset=0, length=None):
        self.asked += 1
        yield from self._answer()


@pytest.fixture
def forever():
    """A function that sends half and then nothing until the test is over."""
    over = threading.Event()

    def answer():
        yield DATA[:100]
        over.wait(60)

    yield answer
    over.set()


def read(remote, *mirrors, tuning=TUNING, limit=1 << 20):
    return RemoteDocuments(remote, mirrors, tuning).read(BLOB, limit=limit)


def test_a_remote_that_falls_silent_is_given_up(forever):
    remote, began = Generator(forever), time.monotonic()
    with pytest.raises(RemoteError, match=r"sent nothing for 0\.3 s"):
        read(remote)
    assert remote.asked == TUNING.attempts
    assert time.monotonic() - began < 3


def test_a_mirror_answers_for_a_remote_that_is_silent(forever):
    assert read(Generator(forever), Generator(lambda: [DATA])) == DATA


def test_ctrl_c_ends_a_read_that_is_blocked(forever):
    timer, began = threading.Timer(0.3, _thread.interrupt_main), time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        read(Generator(forever), tuning=Tuning(stall=30.0))
    assert time.monotonic() - began < 3


def test_slow_is_not_silent():
    def slow():
        for start in range(0, len(DATA), 128):
            time.sleep(0.15)
            yield DATA[start : start + 128]

    assert read(Generator(slow)) == DATA


def test_pieces_without_bytes_are_silence():
    def empty():
        while True:
            time.sleep(0.01)
            yield b""

    with pytest.raises(RemoteError, match="sent nothing"):
        read(Generator(empty))


def test_what_the_remote_raises_and_what_is_too_long_reaches_the_caller():
    def lacking():
        raise NotFoundError("no such blob")
        yield

    with pytest.raises(NotFoundError, match="no such blob"):
        read(Generator(lacking))
    with pytest.raises(LimitError):
        read(Generator(lambda: [DATA]), limit=1000)
