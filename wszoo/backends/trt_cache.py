"""Kernels that TensorRT-RTX compiled on this machine, kept for the next time.

A TensorRT-RTX plan holds no machine code: its kernels are compiled when they are first needed. The runtime cache keeps
them; the library itself refuses one of another GPU, driver or release, so a copied file does no harm. Has run only
with a fake of the runtime.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from wszoo.backends.kept import read_kept, write_kept

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_SAVES = 8  # new shapes after which the cache is written; an LLM's key-value cache has a new shape every token


class RuntimeCache:
    """The runtime cache of one engine, in one file. A lost, damaged or unwritable cache only costs time.

    Args:
        trt: ``tensorrt_rtx``, or a sibling without such a cache.
        engine: an ``ICudaEngine``.
        path: the file; its folder is made when needed.
        cuda_graphs: let TensorRT-RTX record runs as CUDA graphs by itself.
    """

    def __init__(self, trt: Any, engine: Any, path: Path, *, cuda_graphs: bool = False) -> None:  # noqa: ANN401 - untyped
        self._engine = engine
        self._path = path
        self._seen: set[frozenset[tuple[str, tuple[int, ...]]]] = set()
        self._config = engine.create_runtime_config() if hasattr(trt, "IRuntimeCache") else None
        self._cache = self._config.create_runtime_cache() if self._config else None
        self.records = False
        """The context records CUDA graphs by itself."""
        if cuda_graphs and self._config is not None and hasattr(trt, "CudaGraphStrategy"):
            self._config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self.records = True
        if self._cache and not self._restore():
            _LOG.debug("no runtime cache for this machine in %s", path)

    def context(self) -> Any:  # noqa: ANN401 - an IExecutionContext, or None when there is no memory for it
        """Make the engine's execution context, with the cache if there is one."""
        if self._cache is None or self._config is None:
            return self._engine.create_execution_context()
        self._config.set_runtime_cache(self._cache)
        return self._engine.create_execution_context(self._config)

    def save(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Write the cache if these shapes are new, which may have brought new kernels; only the first few times."""
        key = frozenset(shapes.items())
        if self._cache is None or key in self._seen or len(self._seen) >= _SAVES:
            return
        self._seen.add(key)
        data = self._cache.serialize()
        if data is None:
            return
        write_kept(self._path, bytes(data))

    def _restore(self) -> bool:
        data = read_kept(self._path)
        return bool(data and self._cache is not None and self._cache.deserialize(data))
