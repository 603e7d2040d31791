import re
import sys
from pathlib import Path

import numpy as np
import pytest

from wszoo.backends import cuda_memory
from wszoo.backends.cuda_memory import Buffer, Cuda, Stream
from wszoo.errors import IncompatibleError, MissingExtraError


def test_machine_without_a_driver_is_told_so(monkeypatch):
    """Real: cuda-bindings on a machine without an NVIDIA driver, or with its GPUs hidden."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(IncompatibleError, match="testing needs an NVIDIA GPU and its driver") as error:
        Cuda.open(extra="rtx", purpose="testing")
    assert "portable" in error.value.hint


def test_missing_cuda_bindings_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(MissingExtraError, match=r"'cuda.bindings.runtime' is not installed"):
        Cuda.open(extra="rtx", purpose="testing")


def test_driver_without_a_gpu_on_a_fake(fake_trt):
    fake_trt.cuda.devices = 0
    with pytest.raises(IncompatibleError, match="the driver reports none"):
        Cuda.open(extra="rtx", purpose="testing")


def test_copies_there_and_back_on_a_fake(fake_trt):
    cuda = Cuda.open(extra="rtx", purpose="testing")
    stream, buffer = Stream(cuda), Buffer(cuda)
    given, back = np.arange(10.0), np.empty(10)
    cuda.to_device(buffer.reserve(given.nbytes), given, stream.handle)
    cuda.to_host(back, buffer.pointer, stream.handle)
    stream.synchronize()
    np.testing.assert_array_equal(back, given)


def test_buffer_grows_never_shrinks_and_is_freed_on_a_fake(fake_trt):
    cuda = Cuda.open(extra="rtx", purpose="testing")
    buffer, stream = Buffer(cuda), Stream(cuda)
    small = buffer.reserve(10)
    assert buffer.reserve(5) == small
    assert buffer.reserve(0) == small
    buffer.reserve(100)
    assert len(fake_trt.cuda.allocated) == 1
    del buffer, stream
    assert (fake_trt.cuda.allocated, fake_trt.cuda.streams) == ({}, 0)


def test_full_gpu_is_an_error_with_cudas_text_on_a_fake(fake_trt):
    fake_trt.cuda.room = 100
    buffer = Buffer(Cuda.open(extra="rtx", purpose="testing"))
    with pytest.raises(IncompatibleError, match="cudaMalloc failed: out of memory") as error:
        buffer.reserve(101)
    assert "close what else uses the GPU" in error.value.hint


def test_an_old_driver_is_told_with_what_to_do_on_a_fake(fake_trt):
    fake_trt.cuda.devices = None
    with pytest.raises(IncompatibleError, match="driver version is insufficient") as error:
        Cuda.open(extra="rtx", purpose="testing")
    assert "NVIDIA driver" in error.value.hint


def test_every_name_that_is_used_of_cuda_exists_in_its_bindings():
    """Real: the installed cuda-bindings, which import without a driver."""
    from cuda.bindings import runtime

    source = Path(cuda_memory.__file__).read_text("utf-8")
    used = set(re.findall(r"\"(cuda[A-Z]\w+)\"", source)) | set(re.findall(r"_runtime\.(cuda\w+)", source))
    assert {"cudaMemcpyAsync", "cudaStreamWaitEvent", "cudaGraphLaunch"} <= used
    assert {name for name in used if not hasattr(runtime, name)} == set()
    for kind, name in re.findall(r"_runtime\.(cuda\w+)\.(cuda\w+)", source):
        assert hasattr(getattr(runtime, kind), name)
