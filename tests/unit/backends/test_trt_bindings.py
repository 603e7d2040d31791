"""Every name that the TensorRT code uses exists in the bindings: tensorrt_rtx 1.7, tensorrt_lean 11.4, tensorrt 10.13.

The first two are installed and asked; of the third there are type stubs. Names are taken from the code itself, by the
variables that hold TensorRT's objects there.
"""

import ast
import importlib.metadata
import re
from pathlib import Path

import pytest
import tensorrt_lean
import tensorrt_rtx

import wszoo.backends
from wszoo.schema.plan import PlanConfig

FOLDER = Path(wszoo.backends.__file__).parent
# Variable -> the classes whose objects it holds somewhere.
ROLES = {
    "refitter": ("Refitter",),
    "parser": ("OnnxParser", "OnnxParserRefitter"),
    "engine": ("ICudaEngine",),
    "_engine": ("ICudaEngine",),
    "_context": ("IExecutionContext",),
    "runtime": ("Runtime",),
    "_runtime": ("Runtime",),
    "builder": ("Builder",),
    "network": ("INetworkDefinition",),
    "config": ("IBuilderConfig", "ISerializationConfig"),
    "_cache": ("IRuntimeCache", "ITimingCache"),
    "prototype": ("Weights",),
    "theirs": ("ITensor", "IOptimizationProfile"),
}
LOADING = ("trt_load", "trt_reader", "trt_refit", "trt_engine", "trt_validity", "trt_log")
BUILDING = ("trt_build", "trt_parse", "trt_native", "trt_timing", "trt_profiles", "trt_progress", "trt_smoke")
BUILDING += ("tensorrt", "trt_cache")
# Asked for before they are used (hasattr), or belonging to objects of wszoo's own of the same variable name.
OPTIONAL = {
    "get_engine_validity",
    "EngineValidity",
    "EngineInvalidityDiagnostics",
    "INCLUDE_REFIT",
    "OnnxParserRefitter",
}
OPTIONAL |= {
    "IRuntimeCache",
    "CudaGraphStrategy",
    "refit_cuda_engine_async",
    "create_runtime_cache",
    "set_runtime_cache",
}
OPTIONAL |= {"deserialize", "cuda_graph_strategy"}  # of TensorRT-RTX's runtime cache and configuration
OURS = {*PlanConfig.__struct_fields__, "context", "records", "save"}  # of wszoo's objects in such variables


def _used(module):
    """(variable, attribute) for every ``variable.attribute`` and ``self.variable.attribute``."""
    for node in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text("utf-8"))):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            yield name, node.attr


def _uses(modules):
    return sorted({use for module in modules for use in _used(module)})


class _Stubs:
    """The names in the type stubs of tensorrt 10.13, line by line: the file is not valid Python."""

    def __init__(self):
        files = importlib.metadata.files("tensorrt-stubs")
        path = next(file.locate() for file in files if file.name == "tensorrt.pyi")
        self.classes, members = {}, set()
        for line in Path(path).read_text("utf-8").splitlines():
            if found := re.match(r"class (\w+)", line):
                members = self.classes.setdefault(found[1], {"__init__"})
            elif found := re.match(r"    (?:def )?(\w+)\s*[(:=]", line):
                members.add(found[1])

    def has(self, kind, name=None):
        return kind in self.classes and (name is None or name in self.classes[kind])


class _Installed:
    def __init__(self, module):
        self.module = module

    def has(self, kind, name=None):
        found = getattr(self.module, kind, None)
        return found is not None and (name is None or hasattr(found, name))


PRODUCTS = {
    "tensorrt_rtx": (_Installed(tensorrt_rtx), LOADING + BUILDING),
    "tensorrt_lean": (_Installed(tensorrt_lean), LOADING),
    "tensorrt": (_Stubs(), LOADING + BUILDING),
}
CASES = [(product, *use) for product, (_, modules) in PRODUCTS.items() for use in _uses(modules)]
CASES = [case for case in CASES if case[1] in ROLES and case[2] not in OPTIONAL | OURS]


def test_the_bindings_are_those_that_this_page_is_about():
    assert tensorrt_rtx.__version__.startswith("1.7.")
    assert tensorrt_lean.__version__.startswith("11.4.")
    assert importlib.metadata.version("tensorrt-stubs").startswith("10.13.")


def test_the_code_was_read():
    names = {(variable, name) for _, variable, name in CASES}
    assert {
        ("refitter", "set_named_weights"),
        ("config", "create_timing_cache"),
        ("engine", "serialize_with_config"),
    } <= names
    assert len(names) > 40


@pytest.mark.parametrize(("product", "variable", "name"), CASES)
def test_an_attribute_that_is_used_exists(product, variable, name):
    bindings = PRODUCTS[product][0]
    kinds = [kind for kind in ROLES[variable] if bindings.has(kind)]
    if product == "tensorrt_lean" and not kinds:
        kinds = [kind for kind in ROLES[variable] if kind in {"OnnxParserRefitter", "OnnxParser"}]
        assert kinds, f"{variable} holds nothing that the lean runtime has"
        return
    assert any(bindings.has(kind, name) for kind in kinds), f"none of {kinds} has {name!r}"


@pytest.mark.parametrize("product", PRODUCTS)
def test_names_of_the_module_exist(product):
    bindings, modules = PRODUCTS[product]
    used = {name for variable, name in _uses(modules) if variable in {"trt", "_trt", "module"}}
    missing = {name for name in used - OPTIONAL - {"__name__", "__version__"} if not bindings.has(name)}
    assert missing == set()


@pytest.mark.parametrize("product", PRODUCTS)
def test_flags_and_levels_exist(product):
    bindings, _ = PRODUCTS[product]
    wanted = {
        "BuilderFlag": "STRIP_PLAN REFIT REFIT_IDENTICAL VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME",
        "SerializationFlag": "EXCLUDE_WEIGHTS",
        "HardwareCompatibilityLevel": "NONE AMPERE_PLUS SAME_COMPUTE_CAPABILITY",
        "DataType": "FLOAT HALF BF16 FP8 INT8 UINT8 INT32 INT64 BOOL INT4 FP4",
        "SeekPosition": "SET CUR END",
    }
    assert [
        f"{kind}.{name}" for kind, names in wanted.items() for name in names.split() if not bindings.has(kind, name)
    ] == []


def test_weights_are_made_of_a_type_an_address_and_a_number_of_elements():
    for module in (tensorrt_rtx, tensorrt_lean):
        weights = module.Weights(module.DataType.HALF, 64, 3)
        assert (weights.dtype.name, weights.size, weights.nbytes) == ("HALF", 3, 6)
