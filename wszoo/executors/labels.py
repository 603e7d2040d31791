"""Labels: what a node says of itself, in words that tasks select by.

::

    wszoo-rtx=1.7.1.116             a builder by its target prefix, with its version
    wszoo-portable=1.32.0
    wszoo-cc=8.9                    compute capability of its GPU
    wszoo-sku=NVIDIA-GeForce-RTX-4090
    wszoo-driver=580.65.06

Values are letters, digits, ``.``, ``_`` and ``-``, 63 at most, as in Kubernetes: what a name has besides becomes ``-``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from wszoo.names import capability_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wszoo.backends.protocol import Backend
    from wszoo.executors.protocol import Node
    from wszoo.gpu.machine import Machine

PREFIX = "wszoo-"
CAPABILITY = f"{PREFIX}cc"
PRODUCT = f"{PREFIX}sku"
DRIVER = f"{PREFIX}driver"
_LENGTH = 63
_OTHER = re.compile(r"[^A-Za-z0-9._-]+")


def builder_label(prefix: str) -> str:
    """The label that tells a builder's version."""
    return PREFIX + prefix


def label_value(text: str) -> str:
    """A text as a label's value: ``NVIDIA GeForce RTX 4090`` becomes ``NVIDIA-GeForce-RTX-4090``."""
    return _OTHER.sub("-", text)[:_LENGTH].strip("-._")


def labels_of(machine: Machine, backends: Iterable[Backend]) -> dict[str, str]:
    """What a machine has to say.

    Of several GPUs the first counts, which is the one that builders use; see :func:`differing_gpus`.
    """
    installed = ((backend.prefix, backend.runtime()) for backend in backends)
    labels = {builder_label(prefix): label_value(found.version) for prefix, found in installed if found is not None}
    if machine.gpus:
        gpu = machine.gpus[0]
        labels |= {CAPABILITY: gpu.compute_capability, PRODUCT: label_value(gpu.name)}
        labels |= {DRIVER: label_value(machine.driver)} if machine.driver else {}
    return labels


def differing_gpus(machine: Machine) -> tuple[str, ...]:
    """The products of a machine's GPUs where they are not all the same: one node's labels cannot tell of them."""
    names = dict.fromkeys(gpu.name for gpu in machine.gpus)
    return tuple(names) if len(names) > 1 else ()


def as_text(labels: Mapping[str, str]) -> str:
    """As ``ray start --labels`` takes them."""
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def seen(nodes: Iterable[Node]) -> str:
    """The labels of nodes, for messages: what a target that cannot be served is compared with."""
    shown = []
    for node in nodes:
        ours = {name: value for name, value in node.labels.items() if name.startswith(PREFIX)}
        gpus = f", {node.gpus} GPUs" if node.gpus else ""
        shown.append(f"{node.name}: {as_text(ours) or 'no wszoo labels'}{gpus}")
    return "; ".join(shown) or "no node at all"


def newest(values: Iterable[str]) -> str:
    """The highest of some versions."""
    return max(values, key=_version_key)


def _version_key(text: str) -> tuple[int, ...]:
    return capability_key(".".join(re.findall(r"\d+", text)) or "0")
