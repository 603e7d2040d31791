"""Protobuf's text format, read back by protobuf itself."""

from __future__ import annotations

from google.protobuf import struct_pb2, text_format
from hypothesis import given
from hypothesis import strategies as st

from wszoo.export.pbtxt import Symbol, dumps


def read(message):
    return text_format.Parse(dumps(message), struct_pb2.Struct())


@given(st.text())
def test_any_text_comes_back(text):
    assert read({"fields": {"key": text, "value": {"string_value": text}}}) == read_back(text)


def read_back(text):
    wanted = struct_pb2.Struct()
    kept = text.encode("utf-8", "replace").decode()
    wanted.fields[kept].string_value = kept
    return wanted


def test_a_name_cannot_end_its_string_and_add_fields():
    hostile = 'x" } fields { key: "evil'
    assert list(read({"fields": {"key": hostile, "value": {"string_value": "v"}}}).fields) == [hostile]


def test_lists_become_repeated_fields_and_symbols_have_no_quotes():
    assert dumps({"a": [1, 2], "b": [{"c": Symbol("K")}], "d": [], "e": {}}) == "a: 1\na: 2\nb {\n  c: K\n}\ne {\n}\n"
