"""What can be checked on a GPU that TensorRT-RTX does not support, such as an H200: prints a table in Markdown.

Run from the repository's root on the machine with the GPU; no network is needed::

    python tests/gpu/h200.py

It never fails half way: a check that does not come out as it should says so in its row, and the exit status is 1.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import arrays

import wszoo
from wszoo.backends.cuda_memory import Cuda
from wszoo.backends.protocol import Assembled
from wszoo.backends.tensorrt import TAG, TensorRTLeanBackend
from wszoo.backends.tensorrt_rtx import TensorRTRTXBackend
from wszoo.backends.trt_log import logger
from wszoo.digest import Digest
from wszoo.errors import IncompatibleError, MalformedError, WszooError
from wszoo.plans.source import MemorySource
from wszoo.schema.plan import Kind, PlanConfig, Target
from wszoo.surroundings import machine, runtimes
from wszoo.weights.apart import Graph

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
SAMPLES = ("digits-cnn", "digit-writer")


class Wrong(Exception):  # noqa: N818 - a finding, not a defect of this script
    """A check came out other than it should."""


def need(module: str) -> None:
    """Skip a check whose library is not here."""
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(f"not run: {module} is not installed here")


def facts() -> str:
    """NVML."""
    here = machine()
    if not here.gpus:
        raise Wrong(f"no GPU: {here.problem}")
    gpu = here.gpus[0]
    memory = f"{(gpu.memory_bytes or 0) / 2**30:.1f} GiB"
    return f"{gpu}, {memory}, {gpu.multiprocessors} SMs, driver {here.driver}, CUDA {here.cuda_driver}"


def installed() -> str:
    """Runtimes."""
    return ", ".join(f"{each.backend} {each.version}" for each in runtimes()) or "none"


def doctor() -> str:
    """The command itself."""
    done = subprocess.run(
        [sys.executable, "-m", "wszoo", "doctor", "--json"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode:
        raise Wrong(done.stderr.strip())
    return f"exit status 0, {len(done.stdout)} characters of JSON"


def choices(store: str) -> str:
    """The resolver on the sample zoo, every plan with its reason."""
    lines = []
    for name in SAMPLES:
        model = wszoo.Zoo(store).pull(name, source=str(ROOT / "store"))
        lines += [f"{name}: {choice.candidate.facts.target.name}: {choice.reason}" for choice in choices_of(model)]
        lines += [
            f"{name}: not {verdict.candidate}: {verdict.reason}"
            for verdict in model.resolution.verdicts
            if not verdict.accepted
        ]
    return "<br>".join(lines)


def choices_of(model: wszoo.Model) -> list:
    """The choices of a model."""
    return list(model.resolution.choices.values())


def portable(store: str) -> str:
    """The plan that the resolver chose, run."""
    need("onnxruntime")
    results = []
    for name in SAMPLES:
        model = wszoo.Zoo(store).pull(name, source=str(ROOT / "store"))
        found = model.demo().values["outputs"]
        results += [f"{name}: {each['name']} {each['shape']}, mean {each['mean']:.6g}" for each in found]
    return "<br>".join(results)


def lean_runtime() -> str:
    """TensorRT's lean runtime: imported, and a Runtime made."""
    need("tensorrt_lean")
    Cuda.open(extra="lean", purpose="this check")  # without a driver, making a Runtime of 11.4 ends the process
    lean = TensorRTLeanBackend().module("this check")
    _, theirs = logger(lean)
    runtime = lean.Runtime(theirs)
    if runtime is None:
        raise Wrong("no Runtime")
    return f"tensorrt_lean {lean.__version__}: Runtime made, host code allowed: {runtime.engine_host_code_allowed}"


def malformed_plan() -> str:
    """A header that is right and a body that is not: native code has to refuse it, as a typed error."""
    need("tensorrt_lean")
    backend = TensorRTLeanBackend()
    version = backend.module("this check").__version__
    header = (TAG + bytes(20) + bytes(int(part) & 255 for part in version.split(".")[:4])).ljust(64, b"\0")
    return _refusal(backend.load, _assembled("trt-sm90", "tensorrt", version, header + b"garbage" * 1000))


def other_tag() -> str:
    """A plan of another product: refused before native code sees it."""
    need("tensorrt_lean")
    made = _assembled("trt-sm90", "tensorrt", "11.4.0.106", b"vtrt".ljust(128, b"\0"))
    return _refusal(TensorRTLeanBackend().load, made, MalformedError)


def rtx_runtime() -> str:
    """TensorRT-RTX on a GPU that it does not support: its own refusal of a real plan."""
    need("tensorrt_rtx")
    store = tempfile.mkdtemp()
    model = wszoo.Zoo(store).pull("digits-cnn", source=str(ROOT / "store"), gpu="sm89")
    return _refusal(lambda component: component.load(), model["model"])


def rtx_strip() -> str:
    """Whether TensorRT-RTX strips here: it should not."""
    need("tensorrt_rtx")
    from wszoo.backends.protocol import BuildJob
    from wszoo.names import TargetSpec
    from wszoo.progress import Silent

    store = tempfile.mkdtemp()
    model = wszoo.Zoo(store).pull("digits-cnn", source=str(ROOT / "store"), gpu="sm89")
    component = model["model"]
    backend = TensorRTRTXBackend()
    job = BuildJob(
        component="model",
        graph=component._assembled.graph,  # with its weights
        target=backend.target(TargetSpec.parse("rtx-sm89.strip")),
        profiles=component.plan.config.profiles,
        progress=Silent(),
    )
    return _refusal(lambda job: backend.build(job, Path(store) / "plan"), job, WszooError)


def _assembled(name: str, backend: str, version: str, data: bytes) -> Assembled:
    digest = Digest.of(data)
    config = PlanConfig(
        component="net",
        target=Target(name=name, backend=backend, version=version, version_compatible=True, lean_excluded=True),
        kind=Kind.SPLICE.value,
        engine_digest=digest,
        engine_bytes=len(data),
        graph=digest,
        weights=digest,
    )
    graph = Graph(b"", (), (), ())
    source = MemorySource(data, "a malformed plan")
    return Assembled(config=config, device="cuda", engine=None, graph=graph, cache=Path(), source=source)


def _refusal(action: Callable[[Any], object], given: object, kind: type[WszooError] = IncompatibleError) -> str:
    try:
        action(given)
    except kind as error:
        hint = f"; {error.hint}" if error.hint else ""
        return f"{type(error).__name__}: {error.message}{hint}"
    raise Wrong("it was taken")


def say(line: str) -> None:
    """Print a line at once: the next check may end the process."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run every check; 1 when one came out wrong."""
    store = tempfile.mkdtemp()
    checks: list[tuple[str, Callable[[], str]]] = [
        ("NVML facts", facts),
        ("runtimes", installed),
        ("`wszoo doctor --json`", doctor),
        ("resolver on the sample zoo", lambda: choices(store)),
        ("the chosen plans, run", lambda: portable(store)),
        ("outputs on the GPU, lent", arrays.lent),
        ("outputs on the GPU, too large", arrays.too_large),
        ("outputs on the GPU, streams", arrays.in_order),
        ("outputs on the GPU, a fake engine over real CUDA", arrays.engine),
        ("lean runtime", lean_runtime),
        ("lean runtime, malformed plan", malformed_plan),
        ("lean runtime, a TensorRT-RTX plan", other_tag),
        ("TensorRT-RTX, a real plan for sm89", rtx_runtime),
        ("TensorRT-RTX, strip", rtx_strip),
    ]
    wrong = 0
    say("| check | result |")
    say("|---|---|")
    for name, check in checks:
        try:
            result = check()
        except ModuleNotFoundError as error:
            result = str(error)
        except Exception as error:  # noqa: BLE001 - the table should have all of its rows
            wrong += 1
            result = f"**wrong** {type(error).__name__}: {error}"
        say(f"| {name} | {result.replace('|', '/').replace(chr(10), ' ')} |")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
