import ml_dtypes
import numpy as np
import pytest
import torch

from wszoo.backends import dlpack
from wszoo.errors import UsageError


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8", "uint8", "int64", "bool"])
def test_torch_tensor_is_viewed_without_a_copy(dtype):
    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
    array = dlpack.host_array("x", tensor)
    assert array.dtype == np.dtype(dtype)
    assert array.ctypes.data == tensor.data_ptr()
    np.testing.assert_array_equal(array, tensor.numpy())


def test_bfloat16_which_numpy_cannot_import_is_viewed():
    tensor = torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16)
    array = dlpack.host_array("x", tensor)
    assert array.dtype == ml_dtypes.bfloat16
    assert array.astype(np.float32).tolist() == [[1.5, -2.0]]


def test_strides_offsets_scalars_and_empty_tensors():
    base = torch.arange(24).reshape(4, 6)
    np.testing.assert_array_equal(dlpack.host_array("x", base[1:, ::2].T), base.numpy()[1:, ::2].T)
    assert dlpack.host_array("x", torch.tensor(5)).item() == 5
    assert dlpack.host_array("x", torch.empty(0, 3)).shape == (0, 3)


def test_view_keeps_the_memory_alive():
    array = dlpack.host_array("x", torch.full((1000,), 7.0))
    other = [torch.zeros(1000) for _ in range(50)]
    assert other
    assert (array == 7.0).all()


def test_view_is_read_only():
    with pytest.raises(ValueError, match="read-only"):
        dlpack.host_array("x", torch.zeros(3))[0] = 1


def test_tensor_that_needs_a_gradient_is_refused_with_torchs_reason():
    with pytest.raises(UsageError, match=r"'x' cannot be exported.*gradient") as error:
        dlpack.host_array("x", torch.zeros(3, requires_grad=True))
    assert error.value.__cause__ is not None


def test_complex_tensor_is_refused():
    with pytest.raises(UsageError, match="element type"):
        dlpack.host_array("x", torch.zeros(3, dtype=torch.complex64))


class _OnDevice:
    """Host memory that says it lies elsewhere."""

    def __init__(self, tensor, device):
        self.tensor, self.device, self.stream = tensor, device, None

    def __dlpack__(self, *, stream=None):
        self.stream = stream
        return self.tensor.__dlpack__()

    def __dlpack_device__(self):
        return (self.device, 0)


def test_array_on_a_gpu_is_borrowed_by_address():
    given = _OnDevice(torch.arange(12, dtype=torch.float32).reshape(3, 4)[1:], dlpack.CUDA)
    assert dlpack.on_gpu(given)
    array = dlpack.device_array("x", given, stream=77)
    assert (array.dtype, array.shape, array.pointer) == ("float32", (2, 4), given.tensor.data_ptr())
    assert given.stream == 77


def test_array_on_a_gpu_must_be_contiguous():
    with pytest.raises(UsageError, match="not contiguous"):
        dlpack.device_array("x", _OnDevice(torch.zeros(3, 4).T, dlpack.CUDA), stream=0)


def test_array_on_an_unknown_device_is_refused():
    with pytest.raises(UsageError, match="DLPack type 7"):
        dlpack.host_array("x", _OnDevice(torch.zeros(3), 7))


def test_numpy_array_is_not_on_a_gpu():
    assert not dlpack.on_gpu(np.zeros(3))
    assert not dlpack.on_gpu("text")
