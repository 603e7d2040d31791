import platform
import subprocess
import sys

import pytest

from wszoo.backends import trt_backend
from wszoo.backends.tensorrt_rtx import TensorRTRTXBackend, wszoo_backends
from wszoo.errors import MissingExtraError, UsageError
from wszoo.names import TargetSpec

BACKEND = TensorRTRTXBackend()


def test_importing_the_backends_loads_no_heavy_library():
    code = (
        "import sys, wszoo.backends.tensorrt_rtx as r, wszoo.backends.onnxruntime as o;"
        "r.TensorRTRTXBackend().runtime(); o.OnnxRuntimeBackend().runtime();"
        "print({'tensorrt_rtx', 'onnx', 'onnxruntime', 'torch', 'cuda'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_runtime_is_the_installed_package():
    runtime = BACKEND.runtime()
    assert (runtime.backend, runtime.devices) == ("tensorrt_rtx", ("cuda",))
    assert runtime.version.count(".") == 3


def test_not_installed(monkeypatch):
    monkeypatch.setattr(trt_backend, "installed_version", lambda *_: "")
    assert BACKEND.runtime() is None
    with pytest.raises(MissingExtraError, match="'tensorrt_rtx' is not installed, and building rtx-sm89 needs it"):
        BACKEND.target(TargetSpec.parse("rtx-sm89"))


def test_target_has_the_builders_version_and_no_operating_system():
    target = BACKEND.target(TargetSpec.parse("rtx-sm120-sm86"))
    assert (target.name, target.backend, target.os) == ("rtx-sm86-sm120", "tensorrt_rtx", "")
    assert target.compute_capabilities == ("8.6", "12.0")
    assert target.version == BACKEND.runtime().version


@pytest.mark.parametrize(("machine", "arch"), [("AMD64", "x86_64"), ("x86_64", "x86_64"), ("arm64", "aarch64")])
def test_arch_is_spelled_alike_on_every_system(monkeypatch, machine, arch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert BACKEND.target(TargetSpec.parse("rtx-sm89")).arch == arch


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rtx-sm90", "does not build for sm90"),
        ("rtx-sm89-sm61", "does not build for sm61"),
        ("rtx", "no compute capability in 'rtx'"),
        ("rtx-sm80+", "has no '\\+' plans"),
    ],
)
def test_impossible_target_is_refused_with_those_that_exist(text, problem):
    with pytest.raises(UsageError, match=problem) as error:
        BACKEND.target(TargetSpec.parse(text))
    assert "sm75, sm80, sm86, sm89, sm120, sm121" in error.value.hint


def test_hook_gives_the_backend():
    assert [backend.prefix for backend in wszoo_backends()] == ["rtx"]
