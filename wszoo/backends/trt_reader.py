"""An ``IStreamReaderV2`` over a plan's source: TensorRT reads and seeks, and the plan is never whole in host memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wszoo.errors import WszooError

if TYPE_CHECKING:
    from wszoo.plans.source import PlanSource

_READ = 64 << 20  # bytes at a time: every read is copied once more by TensorRT's binding


class Cursor:
    """What an ``IStreamReaderV2`` does, without the class itself, which cannot be made without a CUDA driver.

    Args:
        source: the plan, checked.

    Attributes:
        error: what went wrong, which must not travel through TensorRT's frames; else None.
        position: of the next read, in bytes.
    """

    def __init__(self, source: PlanSource) -> None:
        self._source = source
        self.error: WszooError | None = None
        self.position = 0

    def read(self, count: int) -> bytes:
        """At most ``count`` bytes; none at the plan's end or after an error, which TensorRT takes for a failure."""
        try:
            data = bytes(self._source.read(self.position, min(count, _READ)))
        except WszooError as error:
            self.error = error
            return b""
        self.position += len(data)
        return data

    def seek(self, offset: int, where: Any) -> bool:  # noqa: ANN401 - a SeekPosition
        """Move to ``offset`` bytes from where ``where`` says; False for places outside of the plan."""
        start = {"SET": 0, "CUR": self.position, "END": self._source.size}[where.name]
        if not 0 <= start + offset <= self._source.size:
            return False
        self.position = start + offset
        return True


def stream_reader(trt: Any, cursor: Cursor) -> Any:  # noqa: ANN401 - the module has no type information
    """Make a reader for ``Runtime.deserialize_cuda_engine``.

    Args:
        trt: ``tensorrt_rtx`` or a sibling.
        cursor: over the plan.

    Raises:
        RuntimeError: TensorRT finds no CUDA driver.
    """

    class Reader(trt.IStreamReaderV2):  # type: ignore[misc] # a class without type information
        def __init__(self) -> None:
            trt.IStreamReaderV2.__init__(self)

        def read(self, num_bytes: int, stream: int) -> bytes:  # noqa: ARG002 - TensorRT's signature
            return cursor.read(num_bytes)

        def seek(self, offset: int, where: Any) -> bool:  # noqa: ANN401
            return cursor.seek(offset, where)

    return Reader()
