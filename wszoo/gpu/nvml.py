"""Reads a machine's GPU facts from NVML, the library of the NVIDIA driver behind ``nvidia-smi``.

No CUDA context is made, so this takes milliseconds and no GPU memory.
"""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from wszoo.gpu.machine import Gpu, bare

if TYPE_CHECKING:
    from collections.abc import Callable

    from wszoo.gpu.machine import Machine

# FP32 cores of one multiprocessor, from the CUDA programming guide's table of compute capabilities. NVML tells cores
# only (H200: 16896, 132 multiprocessors); its nvmlDeviceGetAttributes_v2 answers for MIG slices alone.
_CORES = {
    **dict.fromkeys(("6.0", "7.0", "7.2", "7.5", "8.0"), 64),
    **dict.fromkeys(("5.0", "5.2", "6.1", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1"), 128),
}

_PROBLEMS = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": "the NVIDIA driver is not installed (NVML library not found)",
    "NVML_ERROR_DRIVER_NOT_LOADED": "the NVIDIA driver is installed but not loaded",
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": "the NVIDIA driver was updated and the old one still runs: restart",
    "NVML_ERROR_NO_PERMISSION": "this user may not read the GPU's facts (NVML: insufficient permissions)",
}


def detect() -> Machine:
    """The facts of this machine. Never raises: what is wrong stands in :attr:`Machine.problem`."""
    machine = bare()
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return replace(machine, problem="the Python package nvidia-ml-py is not installed")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return replace(machine, problem=_why(nvml, error))
    try:
        return _read(nvml, machine)
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _why(nvml: Any, error: Exception) -> str:  # noqa: ANN401 - the module
    """The error as a clause that says what is wrong with the machine."""
    known = {getattr(nvml, name): clause for name, clause in _PROBLEMS.items()}
    return known.get(getattr(error, "value", None), f"NVML failed: {error}")


def _read(nvml: Any, machine: Machine) -> Machine:  # noqa: ANN401 - the module
    try:
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        return replace(machine, problem=_why(nvml, error))
    gpus, problems = [], []
    for index in range(count):
        try:
            gpus.append(_gpu(nvml, index))
        except nvml.NVMLError as error:
            problems.append(f"GPU {index} is left out ({error})")
    version = _optional(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)
    return replace(
        machine,
        gpus=tuple(gpus),
        driver=_optional(nvml, nvml.nvmlSystemGetDriverVersion) or "",
        cuda_driver=f"{version // 1000}.{version % 1000 // 10}" if version else "",
        problem="; ".join(problems) if count else "the NVIDIA driver finds no GPU",
    )


def _gpu(nvml: Any, index: int) -> Gpu:  # noqa: ANN401 - the module
    """One GPU; raises ``NVMLError`` when not even its compute capability can be read."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    capability = f"{major}.{minor}"
    memory = _optional(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)  # not supported where memory is shared (GB10)
    cores = _optional(nvml, nvml.nvmlDeviceGetNumGpuCores, handle)  # missing from drivers before 510
    per_unit = _CORES.get(capability)
    return Gpu(
        name=_optional(nvml, nvml.nvmlDeviceGetName, handle) or f"GPU {index}",
        compute_capability=capability,
        memory_bytes=memory.total if memory else None,
        multiprocessors=cores // per_unit if cores and per_unit else None,
        uuid=_optional(nvml, nvml.nvmlDeviceGetUUID, handle),
    )


def _optional(nvml: Any, query: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - whatever NVML tells
    """The answer, or None when this GPU or driver does not tell."""
    try:
        return query(*arguments)
    except (nvml.NVMLError, UnicodeDecodeError):
        return None
