"""Element types as TensorRT names them."""

from __future__ import annotations

TRT_NAMES = {
    "float32": "FLOAT",
    "float16": "HALF",
    "bfloat16": "BF16",
    "float8e4m3fn": "FP8",
    "int8": "INT8",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
}
"""Lower-case ONNX element type -> the name in ``tensorrt.DataType``, for all that an input or output can have."""

ONNX_NAMES = {theirs: ours for ours, theirs in TRT_NAMES.items()}
"""The other way round."""

WEIGHT_NAMES = {**TRT_NAMES, "int4": "INT4", "float4e2m1": "FP4"}
"""The same for weights, which may have two elements in a byte."""
