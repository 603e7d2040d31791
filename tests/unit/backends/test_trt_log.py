import logging

import pytest

from wszoo.backends.trt_log import Log, clean, logger


def test_reason_quotes_errors_since_the_mark_without_noise():
    log = Log("test")
    log.add("ERROR", "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (old)")
    mark = log.mark()
    log.add("WARNING", "nothing to see")
    log.add(
        "ERROR", "ITensor::getDimensions: Error Code 4: API Usage Error (cat: types. In validate at /_src/a.cpp:32)"
    )
    log.add("ERROR", "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35)")
    assert log.reason(mark) == "cat: types"
    assert len(log.errors(mark)) == 2


def test_reason_without_any_message():
    assert Log("test").reason(0) == "it gave no reason"


def test_noise_is_better_than_nothing():
    log = Log("test")
    log.add("ERROR", "catchCudaError: no driver")
    assert "no driver" in log.reason(0)


@pytest.mark.parametrize(
    ("message", "cleaned"),
    [
        (
            "IX::y: Error Code 1: Myelin ([pass.cpp:3: f] No FP32. In compile at /_src/x.cpp:2012)",
            "[pass.cpp:3: f] No FP32",
        ),
        ("two\nlines", "two lines"),
        ("plain.", "plain"),
        (".", "."),
    ],
)
def test_positions_in_tensorrts_sources_are_cut(message, cleaned):
    assert clean(message) == cleaned


def test_everything_reaches_logging_below_warning(caplog):
    caplog.set_level(logging.DEBUG, "wszoo.some_module")
    log = Log("wszoo.some_module")
    for severity in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
        log.add(severity, "text")
    assert [record.levelname for record in caplog.records] == ["INFO"] * 3 + ["DEBUG"] * 2


def test_one_logger_a_module(fake_trt):
    log, theirs = logger(fake_trt)
    again, same = logger(fake_trt)
    assert log is again
    assert theirs is same
    assert isinstance(theirs, fake_trt.ILogger)
