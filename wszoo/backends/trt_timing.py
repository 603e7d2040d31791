"""What TensorRT measured of its kernels, kept so that the next build on the same GPU need not measure again.

TensorRT-RTX measures nothing while building (its timing caches do nothing since 1.2), so only classic TensorRT has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wszoo.backends.kept import read_kept, write_kept
from wszoo.gpu.machine import product_key

if TYPE_CHECKING:
    from pathlib import Path


class TimingCache:
    """The timing cache of one product, version and GPU, in one file. A lost or unwritable cache only costs time.

    Args:
        folder: where caches are kept; None keeps none.
        module: the module's name.
        version: the builder's version.
        sku: the GPU's name.
    """

    def __init__(self, folder: Path | None, module: str, version: str, sku: str) -> None:
        self._path = folder / f"{module}-{version}-{product_key(sku) or 'gpu'}.timing" if folder else None
        self._config: Any = None
        self._cache: Any = None

    def attach(self, config: Any) -> None:  # noqa: ANN401 - an IBuilderConfig
        """Give a builder's configuration what is known; a cache that TensorRT refuses is begun anew."""
        if self._path is None:
            return
        self._config = config
        self._cache = config.create_timing_cache(read_kept(self._path)) or config.create_timing_cache(b"")
        if not config.set_timing_cache(self._cache, ignore_mismatch=False):
            self._cache = config.create_timing_cache(b"")
            config.set_timing_cache(self._cache, ignore_mismatch=False)

    def save(self) -> None:
        """Keep what the last build measured."""
        if self._path is None or self._config is None:
            return
        cache = self._config.get_timing_cache()
        data = cache.serialize() if cache is not None else None
        if data is None:
            return
        write_kept(self._path, bytes(data))
