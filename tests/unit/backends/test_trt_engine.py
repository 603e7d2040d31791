"""All with a fake of the runtime (fake_tensorrt.py): none of this has run on a GPU."""

import ml_dtypes
import numpy as np
import pytest

from wszoo.backends.tensorrt_rtx import TensorRTRTXBackend
from wszoo.errors import IncompatibleError, UsageError

BACKEND = TensorRTRTXBackend()


@pytest.fixture
def engine(plan_of, fake_trt, profile):
    profiles = [profile("one", x=((1, 4), (1, 4), (1, 4))), profile("many", x=((1, 4), (8, 4), (16, 4)))]
    return BACKEND.load(plan_of(profiles))


def test_runs_and_follows_the_shapes(engine):
    for batch in (1, 8, 16, 2, 1):
        x = np.random.default_rng(batch).random((batch, 4), np.float32)
        np.testing.assert_array_equal(engine(x=x)["z"], x * 2)


def test_switches_profiles_only_when_needed(engine):
    for batch in (1, 1, 8, 16, 1):
        engine(x=np.zeros((batch, 4), np.float32))
    assert engine._context.switches == [1, 0]


def test_shape_outside_every_profile_lists_them(engine):
    with pytest.raises(IncompatibleError, match="covers x 17x4") as error:
        engine(x=np.zeros((17, 4), np.float32))
    assert "one: x 1x4 to 1x4; many: x 1x4 to 16x4" in error.value.hint


def test_wrong_inputs_are_refused(engine):
    with pytest.raises(UsageError, match="unknown input"):
        engine(y=np.zeros((1, 4), np.float32))
    with pytest.raises(UsageError, match="missing input"):
        engine()
    with pytest.raises(UsageError, match="takes float32, not float16"):
        engine(x=np.zeros((1, 4), np.float16))
    with pytest.raises(IncompatibleError, match="1x5"):
        engine(x=np.zeros((1, 5), np.float32))


def test_strided_input_is_copied_in_c_order(engine):
    x = np.arange(16, dtype=np.float32).reshape(4, 4).T
    np.testing.assert_array_equal(engine(x=x)["z"], x * 2)


class _OnGpu:
    """An array of another library in the fake's device memory."""

    def __init__(self, cuda, array, device=0):
        _, self.pointer = cuda.cudaMalloc(array.nbytes)
        cuda.cudaMemcpyAsync(self.pointer, array.ctypes.data, array.nbytes, 1, 0x5000)
        self.memory, self.device = np.ctypeslib.as_array(cuda.allocated[self.pointer]).view(array.dtype), device
        self.memory = self.memory.reshape(array.shape)

    def __dlpack__(self, *, stream=None):
        assert stream == 0x5000
        return self.memory.__dlpack__()

    def __dlpack_device__(self):
        return (2, self.device)


def test_array_on_the_gpu_is_read_where_it_is(engine, fake_trt):
    given = _OnGpu(fake_trt.cuda, np.arange(8, dtype=np.float32).reshape(2, 4))
    np.testing.assert_array_equal(engine(x=given)["z"], given.memory * 2)
    assert engine._context.addresses["x"] == given.pointer


def test_array_on_the_gpu_is_checked_like_any_other(engine, fake_trt):
    with pytest.raises(UsageError, match="not int64"):
        engine(x=_OnGpu(fake_trt.cuda, np.zeros((2, 4), np.int64)))
    with pytest.raises(IncompatibleError, match="17x4"):
        engine(x=_OnGpu(fake_trt.cuda, np.zeros((17, 4), np.float32)))


def test_bfloat16_has_its_type_on_both_sides(plan_of, fake_trt):
    engine = BACKEND.load(plan_of(kind="BF16", dtype="bfloat16"))
    assert engine.outputs[0].dtype == "bfloat16"
    assert engine(x=np.zeros((1, 4), ml_dtypes.bfloat16))["z"].dtype == ml_dtypes.bfloat16


def test_raw_is_the_engine_and_values_have_the_graphs_dimension_names(engine):
    assert engine.raw.num_io_tensors == 2
    assert engine.inputs[0].shape == ("batch", 4)


def test_device_memory_is_freed_with_the_engine(plan_of, fake_trt):
    engine = BACKEND.load(plan_of())
    engine(x=np.zeros((3, 4), np.float32))
    assert len(fake_trt.cuda.allocated) == 2
    del engine
    assert (fake_trt.cuda.allocated, fake_trt.cuda.streams) == ({}, 0)


def test_failed_run_is_an_error(engine, fake_trt):
    fake_trt.fail_run = True
    with pytest.raises(IncompatibleError, match="failed to run 'net'"):
        engine(x=np.zeros((1, 4), np.float32))


def test_full_gpu_is_an_error_at_load_and_at_run(plan_of, fake_trt):
    engine = BACKEND.load(plan_of())
    fake_trt.cuda.room = 100
    with pytest.raises(IncompatibleError, match="out of memory"):
        engine(x=np.zeros((30, 4), np.float32))
    fake_trt.no_context = True
    with pytest.raises(IncompatibleError, match="no room for the activations"):
        BACKEND.load(plan_of())


def test_plan_of_another_graph_is_refused(plan_of, fake_trt, fake):
    assembled = plan_of()
    assembled.engine.write_bytes(fake.make_plan({"sample": ("FLOAT", [1], None)}))
    with pytest.raises(IncompatibleError, match="it has no x"):
        BACKEND.load(assembled)


def test_output_whose_shape_depends_on_values_is_refused(plan_of, fake_trt, fake):
    assembled = plan_of()
    assembled.engine.write_bytes(fake.make_plan({"x": ("FLOAT", [1], None), "z": ("FLOAT", ["data"], "x")}))
    with pytest.raises(IncompatibleError, match="depends on values"):
        BACKEND.load(assembled)(x=np.zeros((1, 4), np.float32))


def test_4_bit_engine_types_are_refused(plan_of, fake_trt):
    with pytest.raises(IncompatibleError, match="element type INT4"):
        BACKEND.load(plan_of(kind="INT4"))
