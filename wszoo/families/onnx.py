"""The generic family ``onnx``: any ONNX file, or a folder of them, as it is.

A source folder looks like this; only the graphs are required::

    folder/
        model.onnx          one graph is the component "model"; with several, each is named by its file's stem
        model.onnx.data     external data of a graph
        assets/
            labels.txt      a class a line: the demo shows the best five
            samples.npz     arrays named like the inputs, and perhaps "labels": what the demo runs
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from wszoo.errors import NotFoundError, UsageError
from wszoo.families.profiles import profiles_for_components
from wszoo.families.protocol import DemoResult, Export, ExportedComponent
from wszoo.families.sources import check_names, check_options, read_assets
from wszoo.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wszoo.families.protocol import ExportRequest, Family, PulledModel
    from wszoo.progress import Progress
    from wszoo.weights.graph import Graph

_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class OnnxFamily:
    """ONNX graphs from elsewhere, published as they are."""

    name = "onnx"
    summary = "any ONNX file, or a folder with one graph for each component and an assets/ folder"

    def export(self, request: ExportRequest) -> Export:
        """Take the graphs apart; weights stay in their files until they are needed.

        Raises:
            UsageError: an option, a precision, a profile that does not fit, or an unusable file name.
            NotFoundError: no graph there.
            MalformedError: a file that is not an ONNX model.
            BuildError: onnx's checker refuses a graph.
            LimitError: an asset over 16 MiB, or 64 MiB together.
        """
        check_options(request.options, {"licence": "an SPDX expression, such as MIT or Apache-2.0"})
        if request.precision:
            raise UsageError(
                f"the family 'onnx' cannot change the precision to {request.precision!r}",
                hint="leave --precision out: a graph is published as it is; convert it with the tool that exported it",
            )
        files = _graph_files(request.source)
        assets = read_assets(request.source / "assets") if request.source.is_dir() else {}
        graphs = _graphs(files, request.progress)
        inputs = {name: graph.inputs for name, graph in graphs.items()}
        profiles = profiles_for_components(inputs, request.profiles, required=request.needs_profiles)
        return Export(
            components=[
                ExportedComponent(name=name, graph=graph, profiles=profiles[name]) for name, graph in graphs.items()
            ],
            assets=assets,
            licence=request.options.get("licence", ""),
            provenance=_provenance(),
        )

    def demo(self, model: PulledModel, arguments: Sequence[str], progress: Progress) -> DemoResult:
        """Run a component on samples, on what the user gives, or on seeded noise; see :mod:`wszoo.families.demo`.

        Raises:
            UsageError: the arguments make no sense.
            MalformedError, LimitError: an asset that is not what it should be.
        """
        from wszoo.families.demo import run_demo

        return run_demo(model, arguments, progress)


@hookimpl
def wszoo_families() -> Sequence[Family]:
    """The family ``onnx``."""
    return [OnnxFamily()]


def _graph_files(source: Path) -> dict[str, Path]:
    if source.is_file():
        return {"model": source}
    if not source.is_dir():
        raise NotFoundError(f"no such file or folder: {source}")
    paths = sorted(path for path in source.iterdir() if path.suffix.lower() == ".onnx" and path.is_file())
    if not paths:
        raise NotFoundError(f"no *.onnx file in {source}", hint="give the file itself, or the folder that holds it")
    if len(paths) == 1:
        return {"model": paths[0]}
    names = [path.stem for path in paths]
    check_names(names, "component")
    for name in names:
        if not _COMPONENT.fullmatch(name):
            raise UsageError(
                f"not a component's name: {name!r}",
                hint="rename the file: up to 100 letters, digits, '.', '_' and '-', starting with a letter or digit",
            )
    return dict(zip(names, paths, strict=True))


def _graphs(files: Mapping[str, Path], progress: Progress) -> dict[str, Graph]:
    from wszoo.families.checks import check_graph
    from wszoo.weights.graph import graph_from_file

    graphs = {}
    with progress.stage("read graphs", len(files), "graphs") as advance:
        for name, path in files.items():
            graphs[name] = graph_from_file(path)
            check_graph(graphs[name], str(path))
            advance(1)
    return graphs


def _provenance() -> dict[str, str]:
    import onnx

    return {"onnx": onnx.__version__}
