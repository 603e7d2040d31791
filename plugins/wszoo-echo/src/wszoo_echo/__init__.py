"""The smallest family: a number in a text file becomes a network. ``docs/plugins.md`` builds this step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.errors import UsageError
from wszoo.families.profiles import profiles_for
from wszoo.families.protocol import DemoResult, Export, ExportedComponent
from wszoo.families.sources import check_options, read_asset
from wszoo.hookspecs import hookimpl
from wszoo.schema.plan import Profile, ShapeRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.families.protocol import ExportRequest, Family, PulledModel
    from wszoo.progress import Progress
    from wszoo.weights.graph import Graph

WIDTH = 64
LARGEST = (2 - 2**-23) * 2.0**127  # that fp32 holds
PRESETS = {"small": Profile(name="small", inputs={"x": ShapeRange(min=(1, WIDTH), opt=(1, WIDTH), max=(8, WIDTH))})}


class EchoFamily:
    """Networks that compute ``y = x * gain``."""

    name = "echo"
    summary = "a text file with one number becomes a network that multiplies by it"

    def export(self, request: ExportRequest) -> Export:
        """Make the graph; see :meth:`wszoo.families.protocol.Family.export`."""
        check_options(request.options, {})
        if request.precision not in {"", "fp32"}:
            raise UsageError(f"no precision {request.precision!r}", hint="the family 'echo' exports fp32")
        text = read_asset(request.source).decode(errors="replace").strip()
        graph = _graph(_gain(text))
        profiles = profiles_for(graph.inputs, request.profiles, presets=PRESETS, default="small")
        return Export(components=[ExportedComponent(name="model", graph=graph, profiles=profiles)])

    def demo(self, model: PulledModel, arguments: Sequence[str], progress: Progress) -> DemoResult:
        """Run it once, with the demo that any family may use."""
        from wszoo.families.demo import run_demo

        return run_demo(model, arguments, progress)


@hookimpl
def wszoo_families() -> Sequence[Family]:
    """The family ``echo``."""
    return [EchoFamily()]


def _gain(text: str) -> float:
    try:
        gain = float(text)
    except ValueError:
        gain = float("nan")
    if not abs(gain) <= LARGEST:  # this way round it refuses NaN too
        raise UsageError(f"not a number: {text[:40]!r}", hint="the source holds one number, such as 2.5")
    return gain


def _graph(gain: float) -> Graph:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from wszoo.weights.graph import graph_from_model

    shape = ["batch", WIDTH]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "gain"], ["y"])],
        "echo",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.full(WIDTH, gain, np.float32), "gain")],
    )
    return graph_from_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
