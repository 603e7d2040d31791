"""Detection against the NVML of this machine, whatever it has, and against a fake for errors that need real faults."""

from __future__ import annotations

import platform
import sys
from types import SimpleNamespace

import pynvml
import pytest

from wszoo.gpu.nvml import detect


class FakeNvml:
    """Answers like the module pynvml for a machine with one H200; not NVML.

    Args:
        count: how many GPUs.
        errors: function name, or (function name, GPU index), -> the NVML error code that it fails with.
    """

    NVMLError = pynvml.NVMLError

    def __init__(self, *, count=1, errors=None):
        self.count = count
        self.errors = errors or {}
        self.open = 0

    def __getattr__(self, name):
        if name.startswith("NVML_ERROR_"):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def _fail(self, function, index=None):
        code = self.errors.get(function, self.errors.get((function, index)))
        if code is not None:
            raise pynvml.NVMLError(code)

    def nvmlInit(self):  # noqa: N802 - NVML's names
        self._fail("nvmlInit")
        self.open += 1

    def nvmlShutdown(self):  # noqa: N802
        self.open -= 1
        self._fail("nvmlShutdown")

    def nvmlDeviceGetCount(self):  # noqa: N802
        self._fail("nvmlDeviceGetCount")
        return self.count

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        self._fail("nvmlSystemGetDriverVersion")
        return "580.159.04"

    def nvmlSystemGetCudaDriverVersion_v2(self):  # noqa: N802
        self._fail("nvmlSystemGetCudaDriverVersion_v2")
        return 13000

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        self._fail("nvmlDeviceGetHandleByIndex", index)
        return index

    def nvmlDeviceGetCudaComputeCapability(self, handle):  # noqa: N802
        self._fail("nvmlDeviceGetCudaComputeCapability", handle)
        return 9, 0

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        self._fail("nvmlDeviceGetName", handle)
        return "NVIDIA H200"

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        self._fail("nvmlDeviceGetMemoryInfo", handle)
        return SimpleNamespace(total=143771 << 20)

    def nvmlDeviceGetNumGpuCores(self, handle):  # noqa: N802
        self._fail("nvmlDeviceGetNumGpuCores", handle)
        return 16896

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        self._fail("nvmlDeviceGetUUID", handle)
        return f"GPU-{handle}"


@pytest.fixture
def install(monkeypatch):
    def install(**arguments):
        fake = FakeNvml(**arguments)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return install


def test_this_machine_is_described_without_raising():
    machine = detect()
    assert machine.os == platform.system().lower()
    assert machine.arch in {"x86_64", "aarch64"}
    assert bool(machine.gpus) or machine.problem
    assert bool(machine.gpus) <= bool(machine.driver and machine.cuda_driver)
    for gpu in machine.gpus:
        assert gpu.uuid is not None
        assert gpu.uuid.startswith("GPU-")


def test_an_h200_is_read_in_full(install):
    fake = install()
    machine = detect()
    (gpu,) = machine.gpus
    assert (gpu.name, gpu.compute_capability, gpu.multiprocessors) == ("NVIDIA H200", "9.0", 132)
    assert (gpu.memory_bytes, gpu.uuid) == (143771 << 20, "GPU-0")
    assert (machine.driver, machine.cuda_driver, machine.problem) == ("580.159.04", "13.0", "")
    assert fake.open == 0


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "the NVIDIA driver is not installed (NVML library not found)"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "the NVIDIA driver is installed but not loaded"),
        (
            pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
            "the NVIDIA driver was updated and the old one still runs: restart",
        ),
        (pynvml.NVML_ERROR_NO_PERMISSION, "this user may not read the GPU's facts (NVML: insufficient permissions)"),
        (pynvml.NVML_ERROR_UNKNOWN, "NVML failed: Unknown Error"),
    ],
)
@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount"])
def test_why_there_is_no_gpu_is_said_in_words(install, function, code, problem):
    fake = install(errors={function: code})
    machine = detect()
    assert (machine.gpus, machine.problem) == ((), problem)
    assert fake.open == 0


def test_a_driver_without_gpus_is_said(install):
    install(count=0)
    assert detect().problem == "the NVIDIA driver finds no GPU"


def test_a_lost_gpu_is_left_out_and_the_others_stay(install):
    fake = install(count=3, errors={("nvmlDeviceGetHandleByIndex", 1): pynvml.NVML_ERROR_GPU_IS_LOST})
    machine = detect()
    assert [gpu.uuid for gpu in machine.gpus] == ["GPU-0", "GPU-2"]
    assert machine.problem == "GPU 1 is left out (GPU is lost)"
    assert fake.open == 0


def test_when_every_gpu_fails_each_is_named(install):
    install(count=2, errors={"nvmlDeviceGetCudaComputeCapability": pynvml.NVML_ERROR_RESET_REQUIRED})
    machine = detect()
    assert machine.gpus == ()
    assert machine.problem == "GPU 0 is left out (GPU requires restart); GPU 1 is left out (GPU requires restart)"


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetMemoryInfo", "memory_bytes"),
        ("nvmlDeviceGetNumGpuCores", "multiprocessors"),
        ("nvmlDeviceGetUUID", "uuid"),
    ],
)
@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND])
def test_a_fact_that_the_gpu_does_not_tell_is_none(install, function, field, code):
    install(errors={function: code})
    (gpu,) = detect().gpus
    assert getattr(gpu, field) is None


def test_a_gpu_without_a_name_is_called_by_its_index(install):
    install(errors={"nvmlDeviceGetName": pynvml.NVML_ERROR_NOT_SUPPORTED})
    assert detect().gpus[0].name == "GPU 0"


def test_an_old_driver_that_tells_no_versions_is_tolerated(install):
    functions = ("nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion_v2")
    install(errors=dict.fromkeys(functions, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND))
    machine = detect()
    assert (machine.driver, machine.cuda_driver, len(machine.gpus)) == ("", "", 1)


def test_a_failing_shutdown_is_not_the_users_problem(install):
    install(errors={"nvmlShutdown": pynvml.NVML_ERROR_UNKNOWN})
    assert len(detect().gpus) == 1


def test_nvml_is_shut_down_when_reading_breaks(install, monkeypatch):
    fake = install()
    monkeypatch.setattr(fake, "nvmlDeviceGetHandleByIndex", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        detect()
    assert fake.open == 0


def test_without_the_nvml_package_the_machine_has_no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert detect().problem == "the Python package nvidia-ml-py is not installed"


@pytest.mark.parametrize(
    ("system", "processor", "expected"),
    [
        ("Windows", "AMD64", ("windows", "x86_64")),
        ("Windows", "ARM64", ("windows", "aarch64")),
        ("Linux", "x86_64", ("linux", "x86_64")),
        ("Linux", "aarch64", ("linux", "aarch64")),
        ("Darwin", "arm64", ("darwin", "aarch64")),
    ],
)
def test_system_and_processor_have_one_spelling(install, monkeypatch, system, processor, expected):
    install(count=0)
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: processor)
    machine = detect()
    assert (machine.os, machine.arch) == expected
