"""Labels: what a machine says of itself, in letters that Ray and Kubernetes take."""

import pytest

from wszoo.executors.labels import as_text, differing_gpus, label_value, labels_of, newest, seen
from wszoo.executors.protocol import Need, Node
from wszoo.gpu.machine import Gpu, Machine, Runtime


class _Backend:
    def __init__(self, prefix, version):
        self.prefix, self.version = prefix, version

    def runtime(self):
        return Runtime(backend=self.prefix, version=self.version, devices=("cuda",)) if self.version else None


ADA = Gpu(name="NVIDIA GeForce RTX 4090", compute_capability="8.9")
BACKENDS = (_Backend("rtx", "1.7.1.116"), _Backend("trt", ""))


def test_builders_product_capability_and_driver_are_told():
    machine = Machine(os="linux", arch="x86_64", gpus=(ADA,), driver="580.65.06")
    text = as_text(labels_of(machine, BACKENDS))
    assert text == "wszoo-cc=8.9,wszoo-driver=580.65.06,wszoo-rtx=1.7.1.116,wszoo-sku=NVIDIA-GeForce-RTX-4090"


def test_a_machine_without_a_gpu_tells_its_builders_only():
    assert labels_of(Machine(os="linux", arch="x86_64"), BACKENDS) == {"wszoo-rtx": "1.7.1.116"}


@pytest.mark.parametrize("text", ["NVIDIA RTX(tm) A6000, 48 GB", "x" * 100, "--a b--", "1.32.0+cu130", "ä"])
def test_values_are_what_ray_accepts(text):
    label_utils = pytest.importorskip("ray._private.label_utils")
    value = label_value(text)
    assert not value or label_utils.LABEL_REGEX.fullmatch(value)


def test_different_gpus_in_one_machine_are_noticed():
    other = Gpu(name="NVIDIA L40S", compute_capability="8.9")
    assert differing_gpus(Machine(os="linux", arch="x86_64", gpus=(ADA, ADA))) == ()
    assert differing_gpus(Machine(os="linux", arch="x86_64", gpus=(ADA, other))) == (ADA.name, other.name)


def test_a_node_serves_what_its_labels_and_gpus_fit():
    node = Node(name="n", labels={"wszoo-rtx": "1.7"}, memory=1, gpus=0)
    assert node.serves(Need(labels={"wszoo-rtx": ("1.7", "1.8")}))
    assert not node.serves(Need(labels={"wszoo-rtx": ("1.8",)}))
    assert not node.serves(Need(labels={"wszoo-trt": ("1.7",)}))
    assert not node.serves(Need(gpu=True))
    assert not node.serves(Need(memory=2))


def test_versions_are_compared_as_numbers():
    assert newest(["1.7.1.116", "1.10.0", "1.9"]) == "1.10.0"


def test_labels_that_were_seen_name_each_node_and_only_what_is_ours():
    nodes = [
        Node(name="a", labels={"wszoo-rtx": "1.7", "ray.io/node-id": "0"}, memory=1),
        Node(name="b", labels={}, memory=1, gpus=2),
    ]
    assert seen(nodes) == "a: wszoo-rtx=1.7; b: no wszoo labels, 2 GPUs"
    assert seen([]) == "no node at all"
