"""Small real networks, for tests that build many of them."""

import json
import os
import subprocess
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from wszoo.building.request import BuildRequest
from wszoo.fleet.run import Job
from wszoo.names import Ref, TargetSpec


def network(path, seed=0, *, size=256, layers=1):
    """An ONNX file: a chain of fp16 matrix products with fixed shapes."""
    rng = np.random.default_rng(seed)
    nodes, weights = [], []
    for number in range(layers):
        weight = (rng.standard_normal((size, size)) / size**0.5).astype(np.float16)
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"m{number}"]))
        nodes.append(helper.make_node("Relu", [f"m{number}"], [f"x{number + 1}"]))
    values = [helper.make_tensor_value_info(f"x{at}", TensorProto.FLOAT16, [1, size]) for at in (0, layers)]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def job(tag, path, *targets):
    """A model to build from a file."""
    specs, ref = tuple(map(TargetSpec.parse, targets)), Ref.parse(tag)
    return Job(ref=ref, targets=specs, request=lambda: BuildRequest(family="onnx", source=path, ref=ref, targets=specs))


def states(report):
    """What became of each cell: ``{("net:1", "rtx-sm86"): "built"}``."""
    return {
        (model.ref.partition("@")[0], cell.target): str(cell.state) for model in report.models for cell in model.cells
    }


def start(store, *words):
    """The command line in a process of its own, in a store."""
    environment = {**os.environ, "WSZOO_STORE": str(store), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "wszoo", *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(store, *words):
    """The same, to its end: exit code, what ``--json`` printed (None without it), stderr."""
    with start(store, *words) as process:
        out, err = process.communicate(timeout=200)
    return process.returncode, json.loads(out) if "--json" in words else None, err
