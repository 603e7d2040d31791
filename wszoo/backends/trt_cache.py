"""Kernels that TensorRT-RTX compiled on this machine, kept for the next time.

A TensorRT-RTX plan holds no machine code: its kernels are compiled when they are first needed. The runtime cache keeps
them; the library itself refuses one of another GPU, driver or release. Has run only with a fake of the runtime.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from wszoo.store.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_SAVES = 8  # new shapes after which the cache is written; an LLM's key-value cache has a new shape every token
_MOST = 1 << 30  # bytes read: more is damage, not a cache


class RuntimeCache:
    """The runtime cache of one engine, in one file. A lost, damaged or unwritable cache only costs time.

    Args:
        trt: ``tensorrt_rtx``, or a sibling without such a cache.
        engine: an ``ICudaEngine``.
        path: the file; its folder is made when needed.
    """

    def __init__(self, trt: Any, engine: Any, path: Path) -> None:  # noqa: ANN401 - untyped
        self._engine = engine
        self._path = path
        self._seen: set[frozenset[tuple[str, tuple[int, ...]]]] = set()
        self._config = engine.create_runtime_config() if hasattr(trt, "IRuntimeCache") else None
        self._cache = self._config.create_runtime_cache() if self._config else None
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
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, bytes(data), self._path.parent)
        except OSError as error:
            _LOG.debug("cannot keep the runtime cache %s: %s", self._path, error)

    def _restore(self) -> bool:
        try:
            if self._path.stat().st_size > _MOST:
                return False
            return bool(self._cache.deserialize(self._path.read_bytes()))  # type: ignore[union-attr] # checked before
        except OSError:
            return False
