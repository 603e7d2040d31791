"""Which nodes a target is for: with a fake crew, since no cluster at hand has GPUs."""

from concurrent.futures import Future

import pytest

from wszoo.errors import IncompatibleError, UsageError
from wszoo.executors.protocol import Lost, Node
from wszoo.fleet.placing import Unserved, place
from wszoo.fleet.work import Problem
from wszoo.names import TargetSpec
from wszoo.plugins import registry
from wszoo.schema.plan import Target

ADA = {"wszoo-trt": "11.4.0.106", "wszoo-rtx": "1.7.1.116", "wszoo-cc": "8.9"}
RTX_4090, L40S = ({**ADA, "wszoo-sku": name} for name in ("NVIDIA-GeForce-RTX-4090", "NVIDIA-L40S"))
CPU = {"wszoo-rtx": "1.7.1.116", "wszoo-portable": "1.32.0"}


class FakeCrew:
    """Nodes that answer as their labels say, or as they were told to."""

    shares_store = False

    def __init__(self, *labels, answer=None):
        self._nodes = [
            Node(name=f"n{at}", labels=each, memory=1, gpus="wszoo-cc" in each) for at, each in enumerate(labels)
        ]
        self._answer = answer
        self.asked = []

    def nodes(self):
        return self._nodes

    def submit(self, function, argument, need):
        self.asked.append(need)
        node = next(node for node in self._nodes if node.serves(need))
        future = Future()
        answer = self._answer or _completed
        try:
            future.set_result(answer(argument, node.labels))
        except Lost as error:
            future.set_exception(error)
        return future


def _completed(spec, labels):
    prefix = TargetSpec.parse(spec).prefix
    sku = labels.get("wszoo-sku", "") if prefix == "trt" and "same-cc" not in spec and "+" not in spec else ""
    return Target(name=spec, backend=prefix, version=labels[f"wszoo-{prefix}"], sku=sku)


def placed(crew, text):
    return place(crew, registry(), TargetSpec.parse(text))


def test_whole_rtx_plans_are_built_on_any_node_and_take_no_gpu():
    crew = FakeCrew(CPU, RTX_4090)
    (where,) = placed(crew, "rtx-sm120")
    assert where.need.labels == {"wszoo-rtx": ("1.7.1.116",)}
    assert not where.need.gpu


def test_stripped_rtx_plans_take_a_gpu_of_that_capability():
    (where,) = placed(FakeCrew(CPU, RTX_4090), "rtx-sm89.strip")
    assert where.need.gpu
    assert where.need.labels["wszoo-sku"] == ("NVIDIA-GeForce-RTX-4090",)
    assert isinstance(placed(FakeCrew(CPU, RTX_4090), "rtx-sm86.strip"), Unserved)


def test_classic_plans_are_built_once_on_every_product_that_there_is():
    found = placed(FakeCrew(CPU, RTX_4090, L40S, RTX_4090), "trt-sm89")
    assert [each.target.sku for each in found] == ["NVIDIA-GeForce-RTX-4090", "NVIDIA-L40S"]
    assert all(each.need.gpu for each in found)


@pytest.mark.parametrize("target", ["trt-sm89.same-cc", "trt-sm80+"])
def test_plans_that_several_products_share_are_built_on_one(target):
    assert len(placed(FakeCrew(RTX_4090, L40S), target)) == 1


def test_the_newest_builder_is_taken():
    (where,) = placed(FakeCrew({"wszoo-rtx": "1.7.1"}, {"wszoo-rtx": "1.10.0"}), "rtx-sm86")
    assert where.target.version == "1.10.0"


def test_a_target_without_a_node_is_said_with_all_labels():
    answer = placed(FakeCrew(CPU), "trt-sm89")
    assert isinstance(answer, Unserved)
    assert "no node can build trt-sm89 beside such a GPU; there is: n0: wszoo-portable=1.32.0,wszoo-rtx" in answer.why


def test_a_node_with_another_version_than_its_label_is_refused():
    crew = FakeCrew(CPU, answer=lambda spec, _: Target(name=spec, backend="rtx", version="1.6.0"))
    with pytest.raises(IncompatibleError, match=r"labelled wszoo-rtx=1\.7\.1\.116 and has tensorrt_rtx 1\.6\.0"):
        placed(crew, "rtx-sm86")


def test_what_a_node_says_against_a_target_is_raised_as_it_was_there():
    crew = FakeCrew(CPU, answer=lambda *_: Problem(kind="UsageError", message="does not build for sm90", hint="others"))
    with pytest.raises(UsageError, match="does not build for sm90"):
        placed(crew, "rtx-sm90")


def test_a_node_that_dies_when_it_is_asked_is_an_error():
    def die(*_):
        raise Lost("the raylet is gone")

    with pytest.raises(IncompatibleError, match="died: the raylet is gone"):
        placed(FakeCrew(CPU, answer=die), "rtx-sm86")
