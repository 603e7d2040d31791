"""A fake of the TensorRT runtime and of cuda.bindings.runtime, for machines without an RTX GPU.

It is a fake: it shows that wszoo calls in the right order with the right arguments, not that TensorRT accepts them. Its
signatures, return values and refusals follow tensorrt_rtx 1.7.1 and cuda-bindings 13. A plan is a real header and JSON;
every output is its input doubled, or times the plan's weights if it has some. "Device memory" is host memory of its
own, and every copy is checked against its bounds. The builder and the refitter are in fake_tensorrt_builder.py.
"""

import ctypes
import enum
import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np

HEADER_BYTES = 64
_TYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "BF16": np.uint16}


def install(module, monkeypatch):
    """Put a fake module and its fake CUDA in place of the real ones, with a fresh log."""
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", module.cuda)
    monkeypatch.setattr("wszoo.backends.trt_log._LOGS", {})
    return module


def make_plan(tensors, profiles=(), *, release=(1, 7, 1, 116), tag=b"vtrt", weights=None):
    """A fake plan: ``tensors`` maps a name to (dtype, shape, name of the input that it doubles or None).

    ``weights`` maps a name to (dtype, count, hexadecimal bytes, or None when stripped); outputs are inputs times the
    product of all of them.
    """
    body = json.dumps({"tensors": tensors, "profiles": list(profiles), "weights": weights or {}}).encode()
    head = tag + bytes(12) + (64 + len(body)).to_bytes(8, "little") + bytes(release)
    return head.ljust(64, b"\0") + body


class FakeCuda(ModuleType):
    class cudaStreamCaptureMode(enum.IntEnum):  # noqa: N801
        cudaStreamCaptureModeThreadLocal = 1  # noqa: N815

    class cudaMemcpyKind(enum.IntEnum):  # noqa: N801
        cudaMemcpyHostToDevice = 1  # noqa: N815
        cudaMemcpyDeviceToHost = 2  # noqa: N815
        cudaMemcpyDeviceToDevice = 3  # noqa: N815

    class cudaError_t(enum.IntEnum):  # noqa: N801
        cudaErrorNotReady = 600  # noqa: N815

    cudaEventDisableTiming = 2  # noqa: N815

    def __init__(self, devices=1, room=1 << 30):
        super().__init__("cuda.bindings.runtime")
        self.devices, self.room, self.allocated, self.streams = devices, room, {}, 0
        self.product = b"NVIDIA GeForce RTX 4090"
        self.recorded, self.graphs, self.launches, self.no_capture = None, 0, 0, False
        self.events, self.waits, self.busy = set(), [], False

    def cudaGetDeviceCount(self):  # noqa: N802
        return (0, self.devices) if self.devices is not None else (35, None)

    def cudaGetDeviceProperties(self, device):  # noqa: N802
        return 0, SimpleNamespace(name=self.product)

    def cudaDriverGetVersion(self):  # noqa: N802
        return 0, 13000

    def cudaStreamBeginCapture(self, stream, mode):  # noqa: N802
        assert (stream, mode, self.recorded) == (0x5000, 1, None)
        self.recorded = []
        return (0,)

    def cudaStreamEndCapture(self, stream):  # noqa: N802
        work, self.recorded = self.recorded, None
        return (0, work) if not self.no_capture else (900, None)

    def cudaGraphInstantiate(self, graph, flags):  # noqa: N802
        self.graphs += 1
        return 0, graph

    def cudaGraphLaunch(self, graph, stream):  # noqa: N802
        self.launches += 1
        return (0,) if all(work() for work in graph) else (1,)

    def cudaGraphExecDestroy(self, graph):  # noqa: N802
        self.graphs -= 1
        return (0,)

    def cudaGraphDestroy(self, graph):  # noqa: N802
        return (0,)

    def cudaGetErrorString(self, status):  # noqa: N802
        names = {35: b"CUDA driver version is insufficient for CUDA runtime version", 2: b"out of memory"}
        return 0, names.get(int(status), b"invalid argument")

    def cudaMalloc(self, size):  # noqa: N802
        if size + sum(map(ctypes.sizeof, self.allocated.values())) > self.room:
            return 2, None
        memory = (ctypes.c_uint8 * size)(*([0xCD] * min(size, 64)))
        self.allocated[ctypes.addressof(memory)] = memory
        return 0, ctypes.addressof(memory)

    def cudaFree(self, pointer):  # noqa: N802
        return (0,) if self.allocated.pop(pointer, None) is not None else (1,)

    def cudaStreamCreate(self):  # noqa: N802
        self.streams += 1
        return 0, 0x5000

    def cudaStreamDestroy(self, stream):  # noqa: N802
        self.streams -= 1
        return (0,)

    def cudaStreamSynchronize(self, stream):  # noqa: N802
        return (0,) if stream == 0x5000 else (1,)

    def cudaEventCreateWithFlags(self, flags):  # noqa: N802
        assert flags == 2
        self.events.add(handle := 0xE000 + len(self.events))
        return 0, handle

    def cudaEventRecord(self, event, stream):  # noqa: N802
        return (0,) if event in self.events and stream == 0x5000 else (1,)

    def cudaEventQuery(self, event):  # noqa: N802
        assert event in self.events
        return (600,) if self.busy else (0,)

    def cudaEventDestroy(self, event):  # noqa: N802
        self.events.remove(event)
        return (0,)

    def cudaStreamWaitEvent(self, stream, event, flags):  # noqa: N802
        assert flags == 0
        assert event in self.events
        self.waits.append(stream)
        return (0,)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):  # noqa: N802
        devices = {1: [target], 2: [source], 3: [target, source]}[kind]
        if not all(self.inside(device, size) for device in devices) or stream != 0x5000:
            return (1,)
        ctypes.memmove(target, source, size)
        return (0,)

    def inside(self, pointer, size):
        return any(
            start <= pointer and pointer + size <= start + ctypes.sizeof(memory)
            for start, memory in self.allocated.items()
        )


class ILogger:
    pass


class IStreamReaderV2:
    pass


class IRuntimeCache:
    def __init__(self):
        self.data = b""

    def deserialize(self, blob):
        self.data = bytes(blob) if bytes(blob).startswith(b"cache") else b""
        return bool(self.data)

    def serialize(self):
        return memoryview(b"cache of kernels")


class EngineValidity(enum.Enum):
    VALID = 0
    SUBOPTIMAL = 1
    INVALID = 2


class EngineInvalidityDiagnostics(enum.IntFlag):
    VERSION_MISMATCH = 1
    UNSUPPORTED_CC = 2
    OLD_CUDA_DRIVER = 4
    OLD_CUDA_RUNTIME = 8
    INSUFFICIENT_GPU_MEMORY = 16
    MALFORMED_ENGINE = 32
    CUDA_ERROR = 64


class SerializationFlag(enum.Enum):
    EXCLUDE_WEIGHTS = 0
    EXCLUDE_LEAN_RUNTIME = 1
    INCLUDE_REFIT = 2


class SeekPosition(enum.Enum):
    SET = 0
    CUR = 1
    END = 2


class FakeTensorRT(ModuleType):
    """The module: what wszoo uses of it for loading and running."""

    ILogger, IStreamReaderV2, IRuntimeCache = ILogger, IStreamReaderV2, IRuntimeCache
    EngineValidity, EngineInvalidityDiagnostics = EngineValidity, EngineInvalidityDiagnostics
    __version__ = "1.7.1.116"

    def __init__(self, cuda, name="tensorrt_rtx"):
        super().__init__(name)
        self.cuda = cuda
        self.validity, self.refuse, self.no_context, self.fail_run = (EngineValidity.VALID, 0), "", False, False
        self.runtimes, self.serialized = [], []
        self.product = {"release": (1, 7, 1, 116), "tag": b"vtrt"}

    def Runtime(self, logger):  # noqa: N802
        self.runtimes.append(Runtime(self, logger))
        return self.runtimes[-1]


class Runtime:
    engine_header_size = 64
    engine_host_code_allowed = False

    def __init__(self, module, logger):
        self.module, self.logger = module, logger

    def get_engine_validity(self, header):
        assert len(header) == 64
        return self.module.validity

    def deserialize_cuda_engine(self, reader):
        assert isinstance(reader, IStreamReaderV2)
        assert reader.seek(0, SeekPosition.END)
        assert reader.seek(0, SeekPosition.SET)
        head = reader.read(64, 0)
        size = int.from_bytes(head[16:24], "little") - 64
        parts = []
        while size > 0:
            part = reader.read(min(7 if len(parts) < 20 else 1 << 20, size), 0)  # many small reads, then large ones
            if not part:
                return None
            parts.append(part)
            size -= len(part)
        if self.module.refuse:
            self.logger.log(SimpleNamespace(name="ERROR"), self.module.refuse)
            return None
        return Engine(self.module, json.loads(b"".join(parts)))


class Engine:
    def __init__(self, module, facts):
        self.module, self.facts = module, facts
        self.tensors, self.profiles, self.weights = facts["tensors"], facts["profiles"], facts.get("weights", {})
        self.num_io_tensors, self.caches, self.configs = len(self.tensors), [], []

    def get_tensor_name(self, number):
        return list(self.tensors)[number]

    def get_tensor_dtype(self, name):
        return SimpleNamespace(name=self.tensors[name][0])

    def create_serialization_config(self):
        flags = {SerializationFlag.EXCLUDE_WEIGHTS}  # the default of a stripped engine
        return SimpleNamespace(flags=flags, set_flag=flags.add, clear_flag=flags.discard)

    def serialize_with_config(self, config):
        self.module.serialized.append(frozenset(config.flags))
        weights = dict(self.weights)
        if SerializationFlag.EXCLUDE_WEIGHTS in config.flags:
            weights = {name: (kind, count, None) for name, (kind, count, _) in weights.items()}
        return memoryview(make_plan(self.tensors, self.profiles, weights=weights, **self.module.product))

    def create_runtime_config(self):
        return SimpleNamespace(create_runtime_cache=IRuntimeCache, set_runtime_cache=self.caches.append)

    def create_execution_context(self, config=None):
        self.configs.append(config)
        return None if self.module.no_context else Context(self)


class Context:
    def __init__(self, engine):
        self.engine, self.profile, self.shapes, self.addresses, self.switches = engine, 0, {}, {}, []

    def set_optimization_profile_async(self, number, stream):
        assert stream == 0x5000
        self.switches.append(number)
        self.profile, self.shapes = number, {}
        return number < len(self.engine.profiles)

    def set_input_shape(self, name, shape):
        if self.engine.profiles:
            low, high = self.engine.profiles[self.profile].get(name, (shape, shape))
            if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
                return False
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        _, shape, source = self.engine.tensors[name]
        return tuple(self.shapes[source]) if source in self.shapes and "data" not in shape else (-1,)

    def set_tensor_address(self, name, pointer):
        self.addresses[name] = pointer
        return True

    def execute_async_v3(self, stream):
        if self.engine.module.fail_run or stream != 0x5000:
            return False
        if self.engine.module.cuda.recorded is not None:
            self.engine.module.cuda.recorded.append(self._run)
            return True
        return self._run()

    def _run(self):
        weights = self.engine.weights.values()
        if any(data is None for _, _, data in weights):
            return False
        factors = [np.frombuffer(bytes.fromhex(data), _TYPES[kind]) for kind, _, data in weights]
        for name, (kind, _, source) in self.engine.tensors.items():
            if source is not None:
                numpy = np.dtype(_TYPES[kind])
                size = int(np.prod(self.shapes[source])) * numpy.itemsize
                given = self._at(source, size).view(numpy)
                value = given + given
                if factors:
                    value = (given.reshape(-1, factors[0].size) * np.prod(factors, axis=0, dtype=numpy)).reshape(-1)
                self._at(name, size).view(numpy)[:] = value
        return True

    def _at(self, name, size):
        pointer = self.addresses[name]
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))
