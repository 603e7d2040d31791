"""A fake of classic TensorRT's builder, ONNX parser and refitter, over the fake runtime in fake_tensorrt.py.

It is a fake: it builds graphs of Mul nodes only, and shows that wszoo calls in the right order with the right
arguments. What it refuses, and how, follows the docstrings of tensorrt 10.13 and tensorrt_rtx 1.7.1.
"""

import ctypes
import enum
from types import SimpleNamespace

import numpy as np
import onnx
from fake_tensorrt import Engine, FakeTensorRT, SerializationFlag, make_plan

from wszoo.backends.trt_types import WEIGHT_NAMES
from wszoo.weights.tensor import dtype_from_onnx

DataType = enum.Enum("DataType", sorted(set(WEIGHT_NAMES.values())))


class BuilderFlag(enum.Enum):
    REFIT = 1
    STRIP_PLAN = 2
    REFIT_IDENTICAL = 3
    VERSION_COMPATIBLE = 4
    EXCLUDE_LEAN_RUNTIME = 5


class HardwareCompatibilityLevel(enum.Enum):
    NONE = 0
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


ComputeCapability = enum.Enum(
    "ComputeCapability", ["SM75", "SM80", "SM86", "SM89", "SM120", "SM121", "CURRENT", "NONE"]
)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class IProgressMonitor:
    pass


class Weights:
    def __init__(self, dtype, pointer=0, size=0):
        self.dtype, self.pointer, self.size = dtype, pointer, size


class FakeClassic(FakeTensorRT):
    """The module. What goes wrong can be set: ``keeps_weights``, ``made_up``, ``misses``, ``rejects``, ``no_refit``."""

    DataType, BuilderFlag, SerializationFlag, Weights = DataType, BuilderFlag, SerializationFlag, Weights
    HardwareCompatibilityLevel, IProgressMonitor = HardwareCompatibilityLevel, IProgressMonitor
    ComputeCapability = ComputeCapability
    NetworkDefinitionCreationFlag = NetworkDefinitionCreationFlag
    __version__ = "11.4.0.106"

    def __init__(self, cuda, name="tensorrt"):
        super().__init__(cuda, name)
        if name == "tensorrt_rtx":
            self.__version__ = "1.7.1.116"
        else:
            self.product = {"release": (11, 4, 0, 106), "tag": b"ftrt"}
        self.keeps_weights, self.made_up, self.wrong, self.no_refit = False, None, 1.0, False
        self.underreports, self.rejects, self.unset, self.refits, self.built, self.timing = [], [], [], 0, [], []

    def Builder(self, logger):  # noqa: N802
        return Builder(self, logger)

    def OnnxParser(self, network, logger):  # noqa: N802
        return OnnxParser(network)

    def Refitter(self, engine, logger):  # noqa: N802
        return Refitter(self, engine, logger)

    def OnnxParserRefitter(self, refitter, logger):  # noqa: N802
        return OnnxParserRefitter(self, refitter)


class Config:
    def __init__(self, module):
        self.module, self.flags, self.profiles, self.timing = module, set(), [], None
        self.hardware_compatibility_level, self.progress_monitor = HardwareCompatibilityLevel.NONE, None
        self.num_compute_capabilities, self.capabilities = 0, {}

    def set_flag(self, flag):
        self.flags.add(flag)

    def set_compute_capability(self, capability, number):
        self.capabilities[number] = capability.name
        return number < self.num_compute_capabilities

    def add_optimization_profile(self, profile):
        self.profiles.append(profile.shapes)

    def create_timing_cache(self, data):
        return SimpleNamespace(data=data) if not data or data.startswith(b"timing") else None

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        self.timing = cache
        return True

    def get_timing_cache(self):
        return SimpleNamespace(serialize=lambda: memoryview(b"timing of kernels"))


class Profile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, low, best, high):
        self.shapes[name] = (list(low), list(high))


class Network:
    def __init__(self, builder):
        self.builder, self.inputs, self.outputs, self.weights, self.source = builder, [], [], {}, {}

    num_inputs = property(lambda self: len(self.inputs))
    num_outputs = property(lambda self: len(self.outputs))

    def get_input(self, number):
        return self.inputs[number]

    def get_output(self, number):
        return self.outputs[number]


class Builder:
    def __init__(self, module, logger):
        self.module, self.logger = module, logger

    def create_network(self, flags):
        return Network(self)

    def create_builder_config(self):
        return Config(self.module)

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        self.module.built.append(config)
        config.progress_monitor.phase_start("build", None, 1)
        config.progress_monitor.step_complete("build", 0)
        if {BuilderFlag.REFIT, BuilderFlag.REFIT_IDENTICAL} <= config.flags:
            return None
        stripped = BuilderFlag.STRIP_PLAN in config.flags and not self.module.keeps_weights
        weights = {
            name: (kind, count, None if stripped else data.hex())
            for name, (kind, count, data) in network.weights.items()
        }
        if self.module.made_up and stripped:
            weights[self.module.made_up] = ("FLOAT", 1, None)
        (name,) = [tensor.name for tensor in network.inputs]
        tensors = {name: (network.inputs[0].dtype.name, list(network.inputs[0].shape), None)}
        tensors |= {out.name: (out.dtype.name, list(out.shape), name) for out in network.outputs}
        return memoryview(make_plan(tensors, config.profiles, weights=weights, **self.module.product))


class OnnxParser:
    num_errors = 0

    def __init__(self, network):
        self.network, self.model, self.data = network, None, {}

    def load_model_proto(self, proto):
        self.model = onnx.ModelProto.FromString(proto)
        return True

    def load_initializer(self, name, address, size):
        self.data[name] = ctypes.string_at(address, size)
        return True

    def parse_model_proto(self):
        graph = self.model.graph
        assert {node.op_type for node in graph.node} == {"Mul"}
        for init in graph.initializer:
            kind = WEIGHT_NAMES[dtype_from_onnx(init.data_type).name]
            data = self.data.get(init.name, init.raw_data)
            self.network.weights[init.name] = (kind, int(np.prod(init.dims)), data)
        self.network.inputs = [_tensor(value) for value in graph.input]
        self.network.outputs = [_tensor(value) for value in graph.output]
        return True


def _tensor(value):
    shape = [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim]
    kind = WEIGHT_NAMES[dtype_from_onnx(value.type.tensor_type.elem_type).name]
    return SimpleNamespace(name=value.name, dtype=DataType[kind], shape=shape, is_shape_tensor=False)


class Refitter:
    max_threads = 0

    def __init__(self, module, engine, logger):
        assert isinstance(engine, Engine)
        self.module, self.engine, self.logger, self.given = module, engine, logger, {}

    def get_all_weights(self):
        return list(self.engine.weights)

    def get_weights_prototype(self, name):
        kind, count, _ = self.engine.weights[name]
        return Weights(DataType[kind], 0, count)

    def set_named_weights(self, name, weights):
        fits = name in self.engine.weights and name not in self.module.rejects
        fits = fits and self.engine.weights[name][:2] == [weights.dtype.name, weights.size]
        if fits:
            self.given[name] = weights
        return fits

    def get_named_weights(self, name):
        return self.given.get(name, Weights(DataType.FLOAT, 0, 0))

    def get_missing_weights(self):
        missing = [name for name in self.engine.weights if name not in self.given]
        return [name for name in missing if name not in self.module.underreports]

    def refit_cuda_engine_async(self, stream):
        assert stream == 0x5000
        return self._refit()

    def refit_cuda_engine(self):
        return self._refit()

    def _refit(self):
        if self.module.no_refit or set(self.given) != set(self.engine.weights):
            self.logger.log(
                SimpleNamespace(name="ERROR"), "Refitter::refitCudaEngine: Error Code 3: weights do not fit"
            )
            return False
        for name, weights in self.given.items():
            kind, count, _ = self.engine.weights[name]
            data = ctypes.string_at(weights.pointer, count * {"HALF": 2, "BF16": 2}.get(kind, 4))
            scaled = (
                (np.frombuffer(data, np.float32) * np.float32(self.module.wrong)).tobytes() if kind == "FLOAT" else data
            )
            self.engine.weights[name] = [kind, count, scaled.hex()]
        self.module.refits += 1
        return True


class OnnxParserRefitter:
    def __init__(self, module, refitter):
        self.module, self.refitter, self.names, self.data = module, refitter, None, {}

    def load_model_proto(self, proto):
        self.names = [init.name for init in onnx.ModelProto.FromString(proto).graph.initializer]
        return True

    def load_initializer(self, name, address, size):
        self.data[name] = (address, size)
        return name in self.names

    def refit_model_proto(self):
        for name, (address, _) in self.data.items():
            if name not in self.module.unset:
                kind, count, _ = self.refitter.engine.weights[name]
                self.refitter.set_named_weights(name, Weights(DataType[kind], address, count))
        return True
