"""Outputs on the GPU, on any NVIDIA GPU: real CUDA memory, streams, events and graphs, read by PyTorch and CuPy.

TensorRT-RTX does not run on every such GPU, so where an engine takes part it is the fake of the backends' tests, whose
one kernel here is a real copy on the engine's stream. Part of ``h200.py``.
"""

from __future__ import annotations

import gc
import sys
import tempfile
from pathlib import Path

import numpy as np

from wszoo.backends.cuda_memory import Cuda, Stream
from wszoo.backends.gpu_arrays import GpuArray
from wszoo.backends.protocol import Assembled
from wszoo.backends.tensorrt_rtx import TensorRTRTXBackend
from wszoo.digest import Digest
from wszoo.errors import IncompatibleError
from wszoo.plans.source import MemorySource
from wszoo.schema.model import Value
from wszoo.schema.plan import Kind, PlanConfig, Target
from wszoo.weights.apart import Graph

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "backends"))  # the fake is imported by file

SIZE = 1 << 28  # bytes: long enough to see whether somebody waits, and whether they are freed
COPIES = 200


def lent() -> str:
    """Torch and CuPy take an output without a copy, and its memory goes with the last of them."""
    import cupy
    import torch

    cuda = Cuda.open(extra="rtx", purpose="this check")
    stream, taken = Stream(cuda), []
    for dtype in ("float32", "float16", "bfloat16", "int64", "uint8", "bool"):
        given = torch.arange(24).reshape(2, 3, 4).to(getattr(torch, dtype))
        array = GpuArray(cuda, stream, dtype, (2, 3, 4))
        cuda.to_device(array.pointer, given.view(torch.uint8).numpy(), stream.handle)
        array.written_at(cuda.event(stream.handle))
        read = torch.from_dlpack(array)
        assert read.data_ptr() == array.pointer
        assert torch.equal(read.cpu(), given)
        if dtype != "bfloat16":  # CuPy has no such type
            theirs = cupy.from_dlpack(array)
            assert theirs.data.ptr == array.pointer
            assert (theirs.get() == given.numpy()).all()
        taken.append(dtype)
    readers = f"PyTorch {torch.__version__} and CuPy {cupy.__version__}"
    return f"{readers} read {', '.join(taken)} where they are; {_freed(cuda, stream)}"


def _freed(cuda: Cuda, stream: Stream) -> str:
    import torch

    before, _ = torch.cuda.mem_get_info()
    array = GpuArray(cuda, stream, "uint8", (SIZE,))
    read = torch.from_dlpack(array)
    del array
    gc.collect()
    held, _ = torch.cuda.mem_get_info()
    assert before - held > SIZE // 2, "it was freed while a tensor had it"
    read.fill_(7)
    assert int(read[-1]) == 7
    del read
    gc.collect()
    after, _ = torch.cuda.mem_get_info()
    assert after - held > SIZE // 2, "it was not freed"  # PyTorch takes a few MiB of its own meanwhile
    return f"{SIZE >> 20} MiB stayed while a tensor had them, and were freed with it"


def too_large() -> str:
    """An output that the GPU has no room for is an error that says what to do, and the next one that fits is none."""
    cuda = Cuda.open(extra="rtx", purpose="this check")
    stream = Stream(cuda)
    try:
        GpuArray(cuda, stream, "uint8", (1 << 42,))
    except IncompatibleError as error:
        GpuArray(cuda, stream, "uint8", (SIZE,))
        return f"4 TiB: {error.message}; {error.hint}"
    raise AssertionError("it was taken")


def in_order() -> str:
    """Who takes an output waits for it on its own stream; Python does not, and without the wait it would be early."""
    import torch

    cuda = Cuda.open(extra="rtx", purpose="this check")
    stream = Stream(cuda)
    source = torch.full((SIZE,), 5, dtype=torch.uint8, device="cuda")
    busy = [torch.empty(SIZE, dtype=torch.uint8, device="cuda") for _ in range(2)]
    early, late = 0, 0
    for synchronized in (True, False):
        torch.cuda.synchronize()
        array = GpuArray(cuda, stream, "uint8", (SIZE,))
        cuda.call("cudaMemset", array.pointer, 0, SIZE)
        torch.cuda.synchronize()
        for _ in range(COPIES):
            cuda.on_device(busy[0].data_ptr(), busy[1].data_ptr(), SIZE, stream.handle)
        cuda.on_device(array.pointer, source.data_ptr(), SIZE, stream.handle)
        written = cuda.event(stream.handle)
        array.written_at(written)
        assert not cuda.has_happened(written), "Python waited, or the GPU was too quick to tell"
        reader = torch.cuda.Stream()
        with torch.cuda.stream(reader):
            capsule = array.__dlpack__(stream=reader.cuda_stream if synchronized else -1)
            read = torch.from_dlpack(capsule)[-1].clone()
        reader.synchronize()
        late, early = (int(read), early) if synchronized else (late, int(read))
        stream.synchronize()
    assert late == 5, f"read {late} before it was written"
    return f"a reader that waits through DLPack saw {late}; one that does not (stream -1) saw {early}"


def engine() -> str:
    """The engine's own code over real CUDA: torch tensors in, torch tensors out, as they are and as CUDA graphs."""
    import torch

    lines = []
    for graphs in (False, True):
        loaded, copies = _engine(cuda_graphs=graphs)
        kept = []
        for number in range(6):
            x = torch.full((4, 1024), float(number), device="cuda")
            kept.append((number, torch.from_dlpack(loaded.on_gpu(x=x)["z"])))
            del x
        for number, z in kept:
            assert bool((z == number).all()), f"run {number} gave {z[0, 0].item()}"
        host = loaded(x=np.full((4, 1024), 9, np.float32))["z"]
        assert (host == 9).all()
        lines.append(f"{'CUDA graphs' if graphs else 'plain runs'}: 7 right, kernel started {copies.count} times by us")
    return "; ".join(lines)


class _Copies:
    """The one kernel: ``z`` is a copy of ``x``, on the engine's stream."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda, self.count = cuda, 0

    def __call__(self, context: object, stream: int) -> bool:
        from cuda.bindings.runtime import cudaStream_t

        self.count += 1
        size = int(np.prod(context.shapes["x"])) * 4
        self.cuda.on_device(context.addresses["z"], context.addresses["x"], size, cudaStream_t(stream))
        return True


def _engine(*, cuda_graphs: bool) -> tuple:
    import fake_tensorrt

    copies = _Copies(Cuda.open(extra="rtx", purpose="this check"))
    fake_tensorrt.Context.execute_async_v3 = lambda *run: copies(*run)  # noqa: PLW0108 - a method, which binds
    module = fake_tensorrt.FakeTensorRT(None)
    if hasattr(fake_tensorrt.FakeTensorRT, "IRuntimeCache"):  # as classic TensorRT, where wszoo records graphs itself
        del fake_tensorrt.FakeTensorRT.IRuntimeCache
    sys.modules["tensorrt_rtx"] = module
    plan = fake_tensorrt.make_plan({"x": ("FLOAT", ["n", 1024], None), "z": ("FLOAT", ["n", 1024], "x")})
    values = [Value(name=name, dtype="float32", shape=("n", 1024)) for name in "xz"]
    config = PlanConfig(
        component="net",
        target=Target(name="rtx-sm89", backend="tensorrt_rtx", version="1.7.1.116"),
        kind=Kind.SPLICE.value,
        engine_digest=Digest.of(plan),
        engine_bytes=len(plan),
        graph=Digest.of(plan),
        weights=Digest.of(plan),
    )
    assembled = Assembled(
        config=config,
        device="cuda",
        engine=None,
        graph=Graph(b"", (), (values[0],), (values[1],)),
        cache=Path(tempfile.mkdtemp()),
        source=MemorySource(plan, "a fake plan"),
        cuda_graphs=cuda_graphs,
    )
    try:
        return TensorRTRTXBackend().load(assembled), copies
    finally:
        del sys.modules["tensorrt_rtx"]
