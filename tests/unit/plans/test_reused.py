"""Operations of an earlier plan, tried on a new one: the digest if they restore it, and nothing else."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from builders import network, synthetic_plan

from wszoo.plans.reused import restored_tree
from wszoo.plans.splice.encode import encode
from wszoo.tree import CHUNK, leaf, tree_digest
from wszoo.weights.graph import graph_from_model


def made(seed, width=64):
    graph = graph_from_model(network(seed, width))
    return graph.tensors, synthetic_plan(graph, "rtx-sm89")


@pytest.fixture(scope="module")
def body():
    tensors, plan = made(0)
    return encode(np.frombuffer(plan, np.uint8), tensors).to_bytes()


def tried(tmp_path, body, tensors, plan):
    (tmp_path / "plan").write_bytes(plan)
    found = restored_tree(body, tensors, tmp_path / "plan")
    assert not [
        thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon
    ]
    return found


def test_new_weights_in_the_same_places_are_restored(tmp_path, body):
    tensors, plan = made(1)
    assert tried(tmp_path, body, tensors, plan) == tree_digest([leaf(plan)])


@pytest.mark.parametrize("at", [0, 100, -1])
def test_one_other_byte_is_noticed_wherever_it_stands(tmp_path, body, at):
    tensors, plan = made(1)
    changed = bytearray(plan)
    changed[at] ^= 1
    assert tried(tmp_path, body, tensors, bytes(changed)) is None


@pytest.mark.parametrize("more", [b"", b"x", bytes(CHUNK)])
def test_a_plan_of_another_size_is_another_plan(tmp_path, body, more):
    tensors, plan = made(1)
    assert tried(tmp_path, body, tensors, plan[:-1] + more * 2) is None


def test_other_tensors_and_no_program_restore_nothing(tmp_path, body):
    tensors, plan = made(1)
    assert tried(tmp_path, body, tensors[:1], plan) is None
    assert tried(tmp_path, body, made(1, 32)[0], plan) is None
    assert tried(tmp_path, b"no program", tensors, plan) is None
