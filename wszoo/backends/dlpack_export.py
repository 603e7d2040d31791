"""Memory of ours, lent to other libraries through the DLPack protocol without a copy.

The capsule owns what is lent: whoever consumes it calls the deleter when its own array goes, from whatever thread, and
a capsule that nobody consumed does so itself.

Source: DLPack 1.1, ``include/dlpack/dlpack.h`` (``DLManagedTensor``, which every consumer still takes), and the Python
array API standard 2024.12 (``__dlpack__``).
"""

from __future__ import annotations

import ctypes
import re

from wszoo.backends.dlpack import Tensor, c_order

_CODES = {"int": 0, "uint": 1, "float": 2, "bfloat": 4, "bool": 6}
_DTYPE = re.compile(r"(int|uint|float|bfloat)(8|16|32|64)")
_NAME = ctypes.c_char_p(b"dltensor")  # a capsule keeps the pointer, so the text must stay
_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)  # takes the GIL: consumers call it without
_DESTRUCTOR = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)  # Python calls it, with the GIL
# Not py_object: a capsule that is being destroyed must not be referred to any more.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _DESTRUCTOR)(
    ("PyCapsule_New", ctypes.pythonapi)
)


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", Tensor), ("manager", ctypes.c_void_p), ("deleter", _DELETER))


# Address of a managed tensor -> everything that has to live as long as somebody has it.
_lent: dict[int, object] = {}


def _let_go(address: int) -> None:
    _lent.pop(address, None)


def _capsule_goes(capsule: int) -> None:
    if _is_valid(capsule, _NAME):  # who consumes one renames it
        _let_go(_pointer(capsule, _NAME))


# Called from C for as long as anything is lent, so they stay as long as this module.
_delete, _destroy = _DELETER(_let_go), _DESTRUCTOR(_capsule_goes)


def export(pointer: int, dtype: str, shape: tuple[int, ...], device: tuple[int, int], owner: object) -> object:
    """Lend memory in C order, without gaps.

    Args:
        pointer: address of the first element.
        dtype: lower-case ONNX element type of a byte or more.
        shape: dimensions, outermost first.
        device: DLPack device type and number.
        owner: keeps the memory alive.

    Returns:
        A capsule named ``dltensor``.

    Raises:
        BufferError: DLPack 1.0 has no such element type; this is what the protocol raises.
    """
    code, bits = _type(dtype)
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    steps = (ctypes.c_int64 * len(shape))(*c_order(shape))
    tensor = Tensor(pointer, *device, len(shape), code, bits, 1, sizes, steps, 0)
    managed = _Managed(tensor, None, _delete)
    address = ctypes.addressof(managed)
    _lent[address] = (managed, sizes, steps, owner)
    capsule: object = _new(address, _NAME, _destroy)
    return capsule


def _type(dtype: str) -> tuple[int, int]:
    if dtype == "bool":
        return _CODES[dtype], 8
    found = _DTYPE.fullmatch(dtype)
    if found is None:
        raise BufferError(f"DLPack 1.0 has no element type {dtype}")
    return _CODES[found[1]], int(found[2])
