"""Runtime caches that travel with a model: kernels that TensorRT-RTX compiled for one GPU product.

A manifest of its own in the model's index, with these facts as its config, and in its descriptor's annotation so that a
client sees from the index alone which are for its GPU.
"""

from __future__ import annotations

import msgspec

from wszoo.digest import Digest
from wszoo.schema.oci import Size

ARTIFACT = "application/vnd.wszoo.runtime-cache.v1"
CONFIG = "application/vnd.wszoo.runtime-cache.config.v1+json"
LAYER = "application/vnd.wszoo.runtime-cache.kernels.v1+zstd"
ANNOTATION = "org.wszoo.runtime-cache"


class RuntimeCacheFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime cache is for.

    Attributes:
        engine: what the plan that it was compiled from is kept as: a spliced one's tree digest.
        backend: ``tensorrt_rtx``.
        version: the runtime's.
        product: the GPU product, as :func:`wszoo.gpu.machine.product_key` writes it.
        cuda: the newest CUDA version that the driver supported, ``13.0``; TensorRT-RTX wants that or a newer one.
        size: of the cache, in bytes.
        digest: of its bytes.
    """

    engine: Digest
    backend: str
    version: str
    product: str
    cuda: str
    size: Size
    digest: Digest

    @property
    def slot(self) -> tuple[str, ...]:
        """What two caches of one index may not have in common."""
        return self.engine, self.backend, self.version, self.product
