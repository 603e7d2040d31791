"""The first bytes of a TensorRT plan: enough to tell a plan from something else, and which release wrote it."""

from __future__ import annotations

from dataclasses import dataclass

from wszoo.errors import MalformedError

HEADER = 64  # bytes; Runtime.engine_header_size of TensorRT-RTX 1.7
_TAG = slice(0, 4)
_VERSION = slice(24, 28)


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """What stands in a plan's header.

    The positions are those that ``trtexec --getPlanVersionOnly`` reads; the rest of the header is not documented.

    Attributes:
        tag: four bytes that tell the product, ``vtrt`` for TensorRT-RTX.
        version: major, minor, patch and build of the builder. The build is one byte, so its upper part is cut off.
    """

    tag: bytes
    version: tuple[int, int, int, int]

    @property
    def release(self) -> str:
        """The version without the build number: ``1.7.1``."""
        return ".".join(map(str, self.version[:3]))


def read_header(data: bytes | memoryview, tag: bytes, what: str) -> PlanHeader:
    """Read a plan's header.

    Args:
        data: the plan, or its first :data:`HEADER` bytes.
        tag: what a plan of this product begins with.
        what: the plan's name for messages.

    Raises:
        MalformedError: these bytes are no plan of this product.
    """
    head = bytes(data[:HEADER])
    if len(head) < HEADER or head[_TAG] != tag:
        raise MalformedError(f"{what} is no plan: it begins with {head[:4]!r}, not {tag!r}")
    major, minor, patch, build = head[_VERSION]
    return PlanHeader(head[_TAG], (major, minor, patch, build))


def release_of(version: str) -> str:
    """The first three parts of a version: ``1.7.1.116`` -> ``1.7.1``."""
    return ".".join(version.split(".")[:3])
