"""Facts about a machine: plain values, so that resolving needs no driver and tests need no GPU."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

_VENDOR = re.compile(r"\bnvidia\b|\(tm\)|\(r\)")
_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
_NOT_WORD = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU, detected or looked up.

    Attributes:
        name: the product as the driver calls it (``NVIDIA GeForce RTX 4090``), or ``sm89`` when only that is known.
        compute_capability: dotted, ``8.9``.
        memory_bytes: device memory; None when unknown. From the SKU table it is the nominal size, a few percent more
            than a driver reports.
        multiprocessors: streaming multiprocessors; None when unknown.
        uuid: the driver's ``GPU-...`` identifier; None for a GPU that was looked up.
    """

    name: str
    compute_capability: str
    memory_bytes: int | None = None
    multiprocessors: int | None = None
    uuid: str | None = None

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a plan would run on.

    Attributes:
        os: ``linux``, ``windows``, ``darwin``.
        arch: ``x86_64``, ``aarch64``.
        gpus: usable GPUs in the driver's order.
        driver: the NVIDIA driver's version; empty without one.
        cuda_driver: the newest CUDA version that the driver supports, ``13.0``; empty without one.
        problem: why there is no GPU, or which ones were left out, as a clause; empty when all is well.
    """

    os: str
    arch: str
    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    cuda_driver: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """An installed library that runs plans.

    Attributes:
        backend: ``tensorrt_rtx``, ``tensorrt``, ``tensorrt_lean``, ``onnxruntime``, or a plugin's.
        version: dotted, to the build number where the library tells it.
        devices: where it can run: ``cuda``, ``cpu``.
    """

    backend: str
    version: str
    devices: tuple[str, ...] = ()


def bare() -> Machine:
    """This machine without its GPUs."""
    return Machine(os=platform.system().lower(), arch=architecture())


def architecture() -> str:
    """This machine's processor architecture: ``x86_64`` or ``aarch64``, whichever way its system spells it."""
    name = platform.machine().lower()
    return _ARCHITECTURES.get(name, name)


def product_key(name: str) -> str:
    """A product name without what differs between drivers: vendor, case, spaces, hyphens.

    Drivers before 2021 report ``GeForce RTX 3090``, later ones ``NVIDIA GeForce RTX 3090``.
    """
    return _NOT_WORD.sub("", _VENDOR.sub("", name.lower()))
