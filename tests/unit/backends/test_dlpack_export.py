"""Capsules read for real by NumPy and PyTorch, from host memory: nobody here could read those with a GPU's address."""

import ctypes
import gc
import threading
import weakref

import ml_dtypes
import numpy as np
import pytest
import torch

from wszoo.backends import dlpack_export
from wszoo.backends.dlpack import CPU


class _Owner:
    """What keeps the memory alive."""


class _Lender:
    """A host array, lent the way an output on a GPU is."""

    def __init__(self, array, dtype=None):
        self.array, self.owner = array, _Owner()
        self.owner.array, self.dtype = array, dtype or str(array.dtype)

    def __dlpack_device__(self):
        return CPU, 0

    def __dlpack__(self, **_):
        array = self.array
        return dlpack_export.export(array.ctypes.data, self.dtype, array.shape, (CPU, 0), self.owner)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"])
@pytest.mark.parametrize("read", [np.from_dlpack, torch.from_dlpack])
def test_numpy_and_torch_take_it_without_a_copy(dtype, read):
    array = (np.arange(24) % 2 if dtype == "bool" else np.arange(24)).astype(dtype).reshape(2, 3, 4)
    taken = read(_Lender(array))
    np.testing.assert_array_equal(np.asarray(taken), array)
    address = taken.ctypes.data if isinstance(taken, np.ndarray) else taken.data_ptr()
    assert address == array.ctypes.data


def test_torch_takes_bfloat16_which_numpy_does_not_know():
    array = np.array([[1.5, -2.0]], ml_dtypes.bfloat16)
    taken = torch.from_dlpack(_Lender(array))
    assert (taken.dtype, taken.float().tolist()) == (torch.bfloat16, [[1.5, -2.0]])


@pytest.mark.parametrize("shape", [(), (0, 3), (1,)])
@pytest.mark.parametrize("read", [np.from_dlpack, torch.from_dlpack])
def test_scalars_and_empty_arrays(shape, read):
    assert tuple(read(_Lender(np.ones(shape, np.float32))).shape) == shape


@pytest.mark.parametrize("read", [np.from_dlpack, torch.from_dlpack])
def test_the_memory_lives_as_long_as_what_was_made_of_it(read):
    lender = _Lender(np.full(1000, 7.0))
    alive, taken = weakref.ref(lender.owner), read(lender)
    del lender
    gc.collect()
    assert alive() is not None
    assert (np.asarray(taken) == 7.0).all()
    del taken
    gc.collect()
    assert alive() is None


def test_a_capsule_that_nobody_took_lets_go_of_the_memory():
    lender = _Lender(np.ones(3))
    capsule, alive = lender.__dlpack__(), weakref.ref(lender.owner)
    del lender
    assert alive() is not None
    del capsule
    assert alive() is None
    assert dlpack_export._lent == {}


def test_two_capsules_of_one_array_are_let_go_of_one_by_one():
    lender = _Lender(np.arange(5.0))
    first, second, alive = np.from_dlpack(lender), torch.from_dlpack(lender), weakref.ref(lender.owner)
    del lender, first
    assert second.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    del second
    assert alive() is None


def test_the_last_reader_may_go_in_another_thread():
    lender = _Lender(np.ones(3))
    held, alive = [torch.from_dlpack(lender)], weakref.ref(lender.owner)
    del lender
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert alive() is None


def test_many_are_lent_and_let_go_of():
    for number in range(2000):
        assert np.from_dlpack(_Lender(np.full(4, number)))[3] == number
    assert dlpack_export._lent == {}


@pytest.mark.parametrize("dtype", ["complex64", "int4", "float8_e4m3fn", "string"])
def test_an_element_type_that_dlpack_does_not_know_is_refused_as_the_protocol_says(dtype):
    with pytest.raises(BufferError, match=dtype):
        _Lender(np.ones(3), dtype).__dlpack__()


def test_the_struct_is_as_large_as_dlpack_says():
    assert ctypes.sizeof(dlpack_export.Tensor) == 48
    assert ctypes.sizeof(dlpack_export._Managed) == 64
