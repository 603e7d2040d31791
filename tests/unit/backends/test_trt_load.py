import dataclasses
import sys

import msgspec
import pytest

from wszoo.backends.tensorrt_rtx import TensorRTRTXBackend
from wszoo.errors import IncompatibleError, MalformedError, MissingExtraError, StorageError

BACKEND = TensorRTRTXBackend()


def test_machine_without_a_gpu_is_refused_before_native_code_sees_the_plan(plan_of, monkeypatch):
    """Real: the installed tensorrt_rtx and cuda-bindings without a driver, or with the GPUs hidden."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(IncompatibleError, match="running a plan for rtx-sm89 with TensorRT-RTX needs an NVIDIA GPU"):
        BACKEND.load(plan_of())


@pytest.mark.parametrize("release", [(1, 6, 1, 116), (1, 7, 0, 116), (2, 7, 1, 116)])
def test_plan_of_another_release_is_refused(plan_of, fake_trt, release):
    with pytest.raises(IncompatibleError, match=r"wrote this plan, and 1\.7\.1 is installed"):
        BACKEND.load(plan_of(release=release))
    assert fake_trt.runtimes == []


def test_a_plan_that_carries_its_lean_runtime_is_refused_before_native_code_sees_it(plan_of, fake_trt):
    assembled = plan_of(version_compatible=True)
    target = msgspec.structs.replace(assembled.config.target, backend="tensorrt")
    config = msgspec.structs.replace(assembled.config, target=target)
    with pytest.raises(IncompatibleError, match="carries its lean runtime as host code"):
        BACKEND.load(dataclasses.replace(assembled, config=config))
    assert fake_trt.runtimes == []


def test_file_that_is_no_plan_is_malformed(plan_of, fake_trt):
    with pytest.raises(MalformedError, match="is no plan"):
        BACKEND.load(plan_of(tag=b"ptrt"))
    assert fake_trt.runtimes == []


def test_missing_runtime_names_the_extra(plan_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingExtraError, match="'tensorrt_rtx' is not installed, and running rtx-sm89 needs it"):
        BACKEND.load(plan_of())


def test_file_that_is_gone_is_a_storage_error(plan_of):
    assembled = plan_of()
    assembled.engine.unlink()
    with pytest.raises(StorageError, match="cannot read the plan"):
        BACKEND.load(assembled)


def test_cpu_is_refused(plan_of):
    with pytest.raises(IncompatibleError, match="runs on 'cuda', not on 'cpu'"):
        BACKEND.load(dataclasses.replace(plan_of(), device="cpu"))


def test_invalid_plan_is_refused_with_the_diagnostics_on_a_fake(plan_of, fake_trt):
    fake_trt.validity = (fake_trt.EngineValidity.INVALID, 2 | 4)
    with pytest.raises(IncompatibleError, match="another compute capability, the NVIDIA driver is too old") as error:
        BACKEND.load(plan_of())
    assert "--gpu auto" in error.value.hint
    assert "install a newer NVIDIA driver" in error.value.hint


@pytest.mark.parametrize("number", range(7))
def test_each_diagnostic_is_said_in_plain_words_with_what_to_do_on_a_fake(plan_of, fake_trt, number):
    flag = list(fake_trt.EngineInvalidityDiagnostics)[number]
    fake_trt.validity = (fake_trt.EngineValidity.INVALID, flag)
    kind = MalformedError if flag.name == "MALFORMED_ENGINE" else IncompatibleError
    with pytest.raises(kind) as error:
        BACKEND.load(plan_of())
    assert flag.name.lower().replace("_", " ") not in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("Error Code 1: the engine contains host code and engineHostCodeAllowed is off", "compiled host code"),
        ("Error Code 1: getPluginCreator could not find plugin MyPlugin version 1", "TensorRT plugin"),
        ("Error Code 2: OutOfMemory (Requested size was 1 bytes.)", "close what else uses the GPU"),
        ("Error Code 1: Serialization (Version tag does not match)", "install the release that wrote it"),
    ],
)
def test_refusals_say_what_to_do_on_a_fake(plan_of, fake_trt, reason, advice):
    fake_trt.refuse = f"IRuntime::deserializeCudaEngine: {reason}"
    with pytest.raises(IncompatibleError) as error:
        BACKEND.load(plan_of())
    assert advice in error.value.hint
    assert "--avoid" in error.value.hint


def test_invalid_plan_without_diagnostics_is_refused_on_a_fake(plan_of, fake_trt):
    fake_trt.validity = (fake_trt.EngineValidity.INVALID, 0)
    with pytest.raises(IncompatibleError, match="refuses the plan for rtx-sm89: it gave no reason"):
        BACKEND.load(plan_of())


def test_refused_deserialization_quotes_the_log_on_a_fake(plan_of, fake_trt):
    fake_trt.refuse = "IRuntime::deserializeCudaEngine: Error Code 1: no such kernel"
    with pytest.raises(IncompatibleError, match="refuses the plan for rtx-sm89: no such kernel"):
        BACKEND.load(plan_of())


def test_truncated_plan_is_refused_on_a_fake(plan_of, fake_trt):
    assembled = plan_of()
    assembled.engine.write_bytes(assembled.engine.read_bytes()[:-5])
    with pytest.raises(IncompatibleError, match="refuses the plan"):
        BACKEND.load(assembled)


def test_exception_of_the_runtime_is_wrapped_on_a_fake(plan_of, fake_trt, monkeypatch):
    def fail(*_):
        raise RuntimeError("[ERROR] Failed to open cuda driver.")

    monkeypatch.setattr(fake_trt.Runtime(None).__class__, "deserialize_cuda_engine", fail)
    with pytest.raises(IncompatibleError, match="Failed to open cuda driver") as error:
        BACKEND.load(plan_of())
    assert isinstance(error.value.__cause__, RuntimeError)


def test_host_code_is_never_allowed_on_a_fake(plan_of, fake_trt):
    BACKEND.load(plan_of())
    assert [runtime.engine_host_code_allowed for runtime in fake_trt.runtimes] == [False]
