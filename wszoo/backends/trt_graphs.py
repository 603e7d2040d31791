"""CUDA graphs of an engine's runs: recorded at the second run with the same shapes and memory, launched from then on.

TensorRT-RTX records by itself, see :mod:`wszoo.backends.trt_cache`. Has run with real CUDA graphs on an H200, of copies
that a fake of the runtime started (``tests/gpu/arrays.py``).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from wszoo.backends.cuda_memory import Cuda, Graph

_KEPT = 8  # each holds a few MB; an LLM's key-value cache has a new shape every token


class Recorder:
    """Runs work on a stream, as a CUDA graph where that is possible.

    Args:
        cuda: the CUDA runtime.
        stream: of the engine.
    """

    def __init__(self, cuda: Cuda, stream: Any) -> None:  # noqa: ANN401 - an opaque handle
        self._cuda = cuda
        self._stream = stream
        self._graphs: OrderedDict[Hashable, Graph | None] = OrderedDict()
        self._seen: set[Hashable] = set()

    def run(self, key: Hashable, work: Callable[[], bool]) -> bool:
        """Start ``work``; False when it failed.

        The first run with a key is an ordinary one: TensorRT allocates and compiles there, which cannot be recorded.

        Args:
            key: shapes and addresses; a graph is good for one of each.
            work: starts the kernels.

        Raises:
            IncompatibleError: CUDA fails.
        """
        if key not in self._seen:
            self._seen = {key, *list(self._seen)[: _KEPT - 1]}
            return work()
        if key not in self._graphs:
            self._graphs[key] = self._cuda.capture(self._stream, work)
            while len(self._graphs) > _KEPT:
                self._graphs.popitem(last=False)
        graph = self._graphs[key]
        if graph is None:  # it cannot be recorded
            return work()
        graph.launch(self._stream)
        return True
