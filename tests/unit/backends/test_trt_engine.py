"""All with a fake of the runtime (fake_tensorrt.py): none of this has run on a GPU."""

import ctypes
import dataclasses
import weakref

import ml_dtypes
import numpy as np
import pytest

from wszoo.backends import dlpack
from wszoo.backends.protocol import RunsOnGpu
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


def _read(array):
    """An output's elements, from the fake's device memory through the capsule."""
    borrowed = dlpack.device_array("z", array, stream=0x77)
    size = int(np.prod(borrowed.shape)) * 4
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(borrowed.pointer))
    return memory.view(borrowed.dtype).reshape(borrowed.shape), borrowed


def test_outputs_stay_on_the_gpu_when_asked(engine, fake_trt):
    x = np.random.default_rng(0).random((8, 4), np.float32)
    z = engine.on_gpu(x=x)["z"]
    elements, borrowed = _read(z)
    np.testing.assert_array_equal(elements, x * 2)
    assert (borrowed.device, borrowed.pointer, z.shape, z.dtype) == (0, z.pointer, (8, 4), "float32")
    assert engine._context.addresses["z"] == z.pointer, "written where it stays"
    np.testing.assert_array_equal(z.numpy(), x * 2)


@pytest.mark.parametrize(("stream", "waits"), [(None, [1]), (1, [1]), (2, [2]), (0x77, [0x77]), (-1, [])])
def test_the_readers_stream_waits_for_the_output(engine, fake_trt, stream, waits):
    engine.on_gpu(x=np.zeros((1, 4), np.float32))["z"].__dlpack__(stream=stream)
    assert fake_trt.cuda.waits == waits


def test_what_the_protocol_forbids_is_refused(engine):
    z = engine.on_gpu(x=np.zeros((1, 4), np.float32))["z"]
    with pytest.raises(ValueError, match="stream 0"):
        z.__dlpack__(stream=0)
    for wish in ({"copy": True}, {"dl_device": (1, 0)}):
        with pytest.raises(BufferError, match="lends its arrays where they are"):
            z.__dlpack__(**wish)
    assert z.__dlpack__(stream=-1, copy=False, dl_device=(2, 0), max_version=(1, 1))


def test_each_output_has_memory_of_its_own(engine):
    first = engine.on_gpu(x=np.full((1, 4), 1, np.float32))["z"]
    second = engine.on_gpu(x=np.full((1, 4), 2, np.float32))["z"]
    engine(x=np.full((1, 4), 3, np.float32))
    assert (first.numpy()[0, 0], second.numpy()[0, 0]) == (2, 4)


def test_an_output_is_the_next_runs_input_without_leaving_the_gpu(engine, fake_trt):
    x = np.ones((2, 4), np.float32)
    once = engine.on_gpu(x=x)["z"]
    np.testing.assert_array_equal(engine(x=once)["z"], x * 4)
    assert engine._context.addresses["x"] == once.pointer
    assert fake_trt.cuda.waits == [0x5000]


def test_output_memory_belongs_to_the_capsule_also_when_the_engine_is_gone(plan_of, fake_trt):
    engine = BACKEND.load(plan_of())
    z = engine.on_gpu(x=np.ones((1, 4), np.float32))["z"]
    elements, borrowed = _read(z)
    del engine, z
    assert len(fake_trt.cuda.allocated) == 1
    assert elements[0, 0] == 2
    del borrowed
    assert fake_trt.cuda.allocated == {}
    assert fake_trt.cuda.events == set()


def test_inputs_are_held_until_the_gpu_has_read_them(engine, fake_trt):
    given = _OnGpu(fake_trt.cuda, np.ones((1, 4), np.float32))
    alive = weakref.ref(given)
    fake_trt.cuda.busy = True
    engine.on_gpu(x=given)
    del given
    engine.on_gpu(x=np.ones((1, 4), np.float32))
    assert alive() is not None
    fake_trt.cuda.busy = False
    engine.on_gpu(x=np.ones((1, 4), np.float32))
    assert alive() is None


def test_an_engine_waits_for_the_gpu_before_it_lets_go_of_inputs(plan_of, fake_trt, monkeypatch):
    engine, waited = BACKEND.load(plan_of()), []
    engine.on_gpu(x=np.ones((1, 4), np.float32))
    monkeypatch.setattr(fake_trt.cuda, "cudaStreamSynchronize", lambda stream: waited.append(stream) or (0,))
    del engine
    assert waited == [0x5000]


def test_a_cuda_graph_writes_where_it_was_recorded_and_outputs_are_copied_from_there(plan_of, fake_trt, monkeypatch):
    monkeypatch.delattr(fake_trt.__class__, "IRuntimeCache")  # as classic TensorRT, which does not record by itself
    engine = BACKEND.load(dataclasses.replace(plan_of(), cuda_graphs=True))
    outputs = [engine.on_gpu(x=np.full((1, 4), number, np.float32))["z"] for number in range(5)]
    assert [z.numpy()[0, 0] for z in outputs] == [0, 2, 4, 6, 8]
    assert (fake_trt.cuda.graphs, fake_trt.cuda.launches) == (1, 4)
    assert engine._context.addresses["z"] not in {z.pointer for z in outputs}


def test_no_room_for_an_output_is_an_error(engine, fake_trt):
    engine.on_gpu(x=np.zeros((1, 4), np.float32))
    fake_trt.cuda.room = 0
    with pytest.raises(IncompatibleError, match="out of memory"):
        engine.on_gpu(x=np.zeros((16, 4), np.float32))


def test_the_power_to_leave_outputs_on_the_gpu_can_be_asked_for(engine):
    assert isinstance(engine, RunsOnGpu)


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
