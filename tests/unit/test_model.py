"""A pulled component that does not load here says what would."""

import pytest
from builders import around

from wszoo.distribution.pull import select_local
from wszoo.errors import IncompatibleError
from wszoo.model import Model
from wszoo.names import Ref
from wszoo.progress import Silent


def test_a_plan_that_does_not_load_names_the_next_best(origin, monkeypatch):
    """Real: TensorRT-RTX without a GPU, or with its GPUs hidden."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    model = Model(origin, select_local(origin, Ref.parse("net:1"), around("sm89")), Silent())
    with pytest.raises(IncompatibleError) as error:
        model["net"].load()
    assert "the next best plan is portable (" in error.value.hint
    assert f"wszoo pull net:1 --avoid {model['net'].plan.descriptor.digest}" in error.value.hint
