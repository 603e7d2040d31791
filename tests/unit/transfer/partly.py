"""Two models of which the second is fetched only in part by who has the first."""

from __future__ import annotations

from builders import onnx_model, publish_model, weights
from onnx import helper

from wszoo.store.store import Store

WIDTH = 256


def model(last):
    """Six large weights, of which only the last depends on ``last``."""
    seeds = [0, 1, 2, 3, 4, last]
    inits = [(f"w{i}", weights(seed, (WIDTH, WIDTH))[0]) for i, seed in enumerate(seeds)]
    nodes = [helper.make_node("MatMul", [f"x{i}" if i else "x", f"w{i}"], [f"x{i + 1}"]) for i in range(6)]
    return onnx_model(nodes, [("x", 1, ["n", WIDTH])], [("x6", 1, ["n", WIDTH])], inits)


def publish_two(folder):
    """Two stores whose models share five of six tensors, and nothing of their packs."""
    made = {}
    for name, last in (("a", 100), ("b", 200)):
        made[name] = Store(folder / name)
        publish_model(made[name], f"{name}:1", targets=("rtx-sm89",), model=model(last))
    return made
