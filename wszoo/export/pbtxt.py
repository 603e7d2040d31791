"""Protobuf's text format, as much as a Triton configuration needs.

A message is a mapping from field names to values: text, whole numbers, :class:`Symbol` for an enum's member, another
mapping for a message, and a list for a repeated field, which is written as one field an element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Value = str | int | Mapping[str, "Value"] | Sequence["Value"]


class Symbol(str):
    """The name of an enum's member, written without quotes."""

    __slots__ = ()


def dumps(message: Mapping[str, Value]) -> str:
    """A message as text, a field a line; equal messages give equal text."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Mapping[str, Value]) -> list[str]:
    lines = []
    for name, value in message.items():
        for each in [value] if isinstance(value, str | int | Mapping) else value:
            if isinstance(each, Mapping):
                lines += [f"{name} {{", *(f"  {line}" for line in _lines(each)), "}"]
            else:
                lines.append(f"{name}: {_scalar(each)}")
    return lines


def _scalar(value: Value) -> str:
    if isinstance(value, Symbol) or not isinstance(value, str):
        return str(value)
    return '"' + "".join(map(_escape, value.encode("utf-8", "replace"))) + '"'


def _escape(byte: int) -> str:
    """Names come from whoever published the model: nothing in them may end the string."""
    char = chr(byte)
    return char if char.isascii() and char.isprintable() and char not in '"\\' else f"\\{byte:03o}"
