"""A fake of the TensorRT runtime and of cuda.bindings.runtime, for machines without an RTX GPU.

It is a fake: it shows that wszoo calls in the right order with the right arguments, not that TensorRT accepts them. Its
signatures, return values and refusals follow tensorrt_rtx 1.7.1 and cuda-bindings 13. A plan is a real header and JSON;
every output is its input doubled. "Device memory" is host memory of its own, and every copy is checked against its
bounds.
"""

import ctypes
import enum
import json
from types import ModuleType, SimpleNamespace

import numpy as np

_TYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "BF16": np.uint16}


def make_plan(tensors, profiles=(), *, release=(1, 7, 1, 116), tag=b"vtrt"):
    """A fake plan: ``tensors`` maps a name to (dtype, shape, name of the input that it doubles or None)."""
    body = json.dumps({"tensors": tensors, "profiles": list(profiles)}).encode()
    head = tag + bytes(12) + (64 + len(body)).to_bytes(8, "little") + bytes(release)
    return head.ljust(64, b"\0") + body


class FakeCuda(ModuleType):
    class cudaMemcpyKind(enum.IntEnum):  # noqa: N801
        cudaMemcpyHostToDevice = 1  # noqa: N815
        cudaMemcpyDeviceToHost = 2  # noqa: N815

    def __init__(self, devices=1, room=1 << 30):
        super().__init__("cuda.bindings.runtime")
        self.devices, self.room, self.allocated, self.streams = devices, room, {}, 0

    def cudaGetDeviceCount(self):  # noqa: N802
        return (0, self.devices) if self.devices is not None else (35, None)

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

    def cudaMemcpyAsync(self, target, source, size, kind, stream):  # noqa: N802
        device = target if kind == 1 else source
        if not self.inside(device, size) or stream != 0x5000:
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
        self.runtimes = []

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
        while size > sum(map(len, parts)):
            part = reader.read(min(7, size - sum(map(len, parts))), 0)
            if not part:
                return None
            parts.append(part)
        if self.module.refuse:
            self.logger.log(SimpleNamespace(name="ERROR"), self.module.refuse)
            return None
        return Engine(self.module, json.loads(b"".join(parts)))


class Engine:
    def __init__(self, module, facts):
        self.module, self.facts = module, facts
        self.tensors, self.profiles = facts["tensors"], facts["profiles"]
        self.num_io_tensors, self.caches = len(self.tensors), []

    def get_tensor_name(self, number):
        return list(self.tensors)[number]

    def get_tensor_dtype(self, name):
        return SimpleNamespace(name=self.tensors[name][0])

    def create_runtime_config(self):
        return SimpleNamespace(create_runtime_cache=IRuntimeCache, set_runtime_cache=self.caches.append)

    def create_execution_context(self, config=None):
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
        for name, (kind, _, source) in self.engine.tensors.items():
            if source is not None:
                numpy = np.dtype(_TYPES[kind])
                size = int(np.prod(self.shapes[source])) * numpy.itemsize
                given = self._at(source, size).view(numpy)
                self._at(name, size).view(numpy)[:] = given + given
        return True

    def _at(self, name, size):
        pointer = self.addresses[name]
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))
