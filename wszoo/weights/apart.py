"""What is left of an ONNX model when its weights were taken out. Light: it does not import onnx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wszoo.schema.model import Value
    from wszoo.weights.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Graph:
    """A model taken apart.

    Attributes:
        proto: serialized ``ModelProto`` without weights.
        tensors: the weights, in the order in which the graph holds them; names are unique.
        inputs: what the caller feeds.
        outputs: what comes back.
    """

    proto: bytes
    tensors: tuple[Tensor, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]

    @property
    def weight_bytes(self) -> int:
        """Raw bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)
