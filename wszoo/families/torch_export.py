"""From a torch module to a graph, and the proof that both compute the same.

Every family that exports through torch uses these two steps: :func:`export_module`, then :func:`compare`. The second
runs the exported graph in ONNX Runtime on seeded inputs, and nothing is published that differs from torch's own output.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from wszoo.backends.onnxruntime import reference
from wszoo.errors import BuildError, MissingExtraError
from wszoo.families.compare import TOLERANCES, Comparison, Tolerance, compare_outputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from wszoo.weights.graph import Graph

__all__ = ["TOLERANCES", "Comparison", "Tolerance", "compare", "export_module", "exporting", "require_torch"]

_MAX_REASON = 300


def require_torch() -> ModuleType:
    """Import torch.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise MissingExtraError("torch", "torch", "exporting this model") from error


def export_module(
    module: torch.nn.Module,
    example: Mapping[str, torch.Tensor],
    *,
    outputs: Sequence[str],
    folder: Path,
    name: str = "model",
    dynamic: Mapping[str, Mapping[int, str]] | None = None,
    opset: int | None = None,
) -> Graph:
    """Export a module's ``forward``.

    Weights go through one file in ``folder`` and are mapped from there, so that the module may be let go of before the
    graph is used: the weights are in memory once.

    Args:
        module: in evaluation mode.
        example: an argument of ``forward`` for each name; the graph's inputs are named likewise, in this order. A
            dynamic dimension must be 2 or more here: torch takes 0 and 1 for constants.
        outputs: names for what ``forward`` returns, in order.
        folder: where the weights may be written; must outlive the graph.
        name: for file names and messages.
        dynamic: for each input, the names of its dynamic dimensions by axis.
        opset: ONNX opset; torch's own choice when None.

    Raises:
        BuildError: torch cannot export it, made a dynamic dimension fixed, or made a graph that onnx's checker refuses.
        MissingExtraError: torch or onnxscript is not installed.
    """
    torch = require_torch()
    shapes = {key: dict(dynamic[key]) if dynamic and key in dynamic else None for key in example}
    path = folder / f"{name}.onnx"
    with exporting(repr(name)):
        program = torch.onnx.export(
            module,
            (),
            kwargs=dict(example),
            dynamic_shapes=shapes,
            input_names=list(example),
            output_names=list(outputs),
            opset_version=opset,
            dynamo=True,
            verbose=False,
            artifacts_dir=folder,  # reports of failures, which else land in the current folder
        )
        program.save(path, external_data=True)
    # Here, since they import onnx: who only pulls, and has a family installed that exports, would wait for it.
    from wszoo.families.checks import check_graph
    from wszoo.weights.graph import graph_from_file

    graph = graph_from_file(path)
    check_graph(graph, f"the export of {name!r}", full=True)
    _check_dynamic(graph, dynamic or {}, name)
    return graph


@contextmanager
def exporting(
    what: str, hint: str = "this architecture may need a change in the family; the whole story is chained to this error"
) -> Iterator[None]:
    """Run torch's exporter without its chatter, and say what it raises in wszoo's words.

    Args:
        what: is exported, for the message.
        hint: what to do when it cannot be.

    Raises:
        BuildError: torch cannot export it; the message has the first cause.
        MissingExtraError: torch or onnxscript is not installed.
    """
    torch = require_torch()
    try:
        with torch.inference_mode(), _quiet():
            yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "onnxscript", "torch", "exporting from torch") from error
    except Exception as error:  # the exporter raises its own, torch's and sympy's errors, by no common base
        cause = _innermost(error)
        raise BuildError(
            f"torch could not export {what}: {type(cause).__name__}: {str(cause).strip()[:_MAX_REASON]}", hint=hint
        ) from error


def compare(
    graph: Graph,
    module: torch.nn.Module,
    cases: Iterable[Mapping[str, NDArray[Any]]],
    *,
    tolerance: Tolerance,
    truth: torch.nn.Module | None = None,
    frugal: bool = False,
    name: str = "model",
) -> Comparison:
    """Run a graph in ONNX Runtime and the module in torch, and compare every output.

    Args:
        graph: what :func:`export_module` made; its weights are handed over where they lie.
        module: what it was made from.
        cases: inputs by name. Give several seeds, and every dynamic dimension at more than one size.
        tolerance: how far they may lie apart; see :data:`TOLERANCES`.
        truth: the same module in fp32, for exports in less: the export is compared with it, and may be three times as
            far off as ``module`` is. None compares with ``module`` alone.
        frugal: see :func:`wszoo.backends.onnxruntime.reference`.
        name: for messages.

    Raises:
        BuildError: they differ, either gives a number that is not finite, or no output depends on the inputs
            (:meth:`Comparison.require_meaning`); or ONNX Runtime refuses the graph.
        MissingExtraError: torch or onnxruntime is not installed.
    """
    torch = require_torch()
    session = reference(graph, name, frugal=frugal)
    result = Comparison(tolerance=tolerance)
    names = [value.name for value in graph.outputs]
    for case in cases:
        tensors = {key: _to_torch(torch, array) for key, array in case.items()}
        theirs, noise = _outputs(torch, module, tensors, names), {}
        if truth is not None:
            wide = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
            exact = _outputs(torch, truth, wide, names)
            noise = {key: float(abs(theirs[key] - exact[key]).max(initial=0)) for key in names}
            theirs = exact
        result = compare_outputs(result, session(**case), theirs, name, noise=noise)
    result.require_meaning(name)
    return result


def _innermost(error: BaseException) -> BaseException:
    # The exporter's own messages are pages of advice on how to change torch; the first cause is one line.
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _outputs(
    torch: ModuleType, module: torch.nn.Module, case: Mapping[str, torch.Tensor], names: Sequence[str]
) -> dict[str, NDArray[Any]]:
    with torch.inference_mode():
        found = module(**case)
    tensors = [found] if isinstance(found, torch.Tensor) else list(found)
    return {name: _to_numpy(tensor) for name, tensor in zip(names, tensors, strict=True)}


def _check_dynamic(graph: Graph, dynamic: Mapping[str, Mapping[int, str]], name: str) -> None:
    for value in graph.inputs:
        for axis, dim in dynamic.get(value.name, {}).items():
            if value.shape[axis] != dim:
                raise BuildError(
                    f"torch fixed the dimension {dim!r} of the input {value.name!r} of {name!r} to {value.shape[axis]}",
                    hint="the model's code depends on that size; export it at a fixed size",
                )


def _to_torch(torch: ModuleType, array: NDArray[Any]) -> torch.Tensor:
    if array.dtype.name == "bfloat16":  # torch cannot read ml_dtypes' arrays
        import numpy as np

        return torch.from_numpy(array.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array)


def _to_numpy(tensor: torch.Tensor) -> NDArray[np.generic]:
    torch = require_torch()
    plain = tensor.detach().cpu()
    array: NDArray[np.generic] = plain.float().numpy() if plain.dtype == torch.bfloat16 else plain.numpy()
    return array


@contextmanager
def _quiet() -> Iterator[None]:
    # torch's exporter warns about optional packages and its own deprecations; what matters is raised or compared.
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
