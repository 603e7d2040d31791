"""CUDA graphs, with a fake of the runtime: none of this has run on a GPU."""

import dataclasses

import numpy as np
import pytest
from fake_tensorrt import FakeTensorRT

from wszoo.backends.tensorrt_rtx import TensorRTRTXBackend

BACKEND = TensorRTRTXBackend()


@pytest.fixture
def engine(plan_of, fake_trt):
    return BACKEND.load(dataclasses.replace(plan_of(), cuda_graphs=True))


def _run(engine, batch, value=1.0):
    x = np.full((batch, 4), value, np.float32)
    np.testing.assert_array_equal(engine(x=x)["z"], x * 2)


def test_runs_of_the_same_shapes_are_recorded_at_the_second_and_launched_from_then_on_on_a_fake(engine, fake_trt):
    for value in range(5):
        _run(engine, 3, value)
    assert (fake_trt.cuda.graphs, fake_trt.cuda.launches) == (1, 4)


def test_other_shapes_have_a_graph_of_their_own_on_a_fake(engine, fake_trt):
    for batch in (3, 2, 3, 2, 3, 2):
        _run(engine, batch)
    assert (fake_trt.cuda.graphs, fake_trt.cuda.launches) == (2, 4)


def test_what_cannot_be_recorded_is_run_as_it_is_on_a_fake(engine, fake_trt):
    fake_trt.cuda.no_capture = True
    for _ in range(4):
        _run(engine, 3)
    assert (fake_trt.cuda.graphs, fake_trt.cuda.launches) == (0, 0)


def test_only_a_few_graphs_are_kept_on_a_fake(engine, fake_trt):
    for batch in range(1, 20):
        _run(engine, batch)
        _run(engine, batch)
    assert fake_trt.cuda.graphs == 8


def test_graphs_go_with_the_engine_on_a_fake(plan_of, fake_trt):
    engine = BACKEND.load(dataclasses.replace(plan_of(), cuda_graphs=True))
    for _ in range(3):
        _run(engine, 3)
    del engine
    assert (fake_trt.cuda.graphs, fake_trt.cuda.allocated) == (0, {})


def test_tensorrt_rtx_records_by_itself_on_a_fake(plan_of, fake_trt, monkeypatch):
    strategies = type("CudaGraphStrategy", (), {"WHOLE_GRAPH_CAPTURE": "whole"})
    monkeypatch.setattr(FakeTensorRT, "CudaGraphStrategy", strategies, raising=False)
    engine = BACKEND.load(dataclasses.replace(plan_of(), cuda_graphs=True))
    for _ in range(3):
        _run(engine, 3)
    assert engine.raw.configs[0].cuda_graph_strategy == "whole"
    assert fake_trt.cuda.graphs == 0
