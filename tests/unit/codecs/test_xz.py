from __future__ import annotations

import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wszoo.codecs import xz
from wszoo.errors import IntegrityError, LimitError, MalformedError


@given(st.binary(max_size=2000))
def test_round_trip(data: bytes) -> None:
    assert xz.decompress(xz.compress(data), limit=len(data)) == data


def test_a_bomb_is_refused_before_it_unfolds() -> None:
    bomb = xz.compress(bytes(64 << 20))
    assert len(bomb) < 20_000
    with pytest.raises(LimitError, match="1000 bytes"):
        xz.decompress(bomb, limit=1000)


def test_a_huge_dictionary_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    blob = lzma.compress(b"x" * 100, format=lzma.FORMAT_XZ, filters=filters)
    with pytest.raises(LimitError, match="bytes to decode"):
        xz.decompress(blob, limit=1000)


def test_a_stream_cut_anywhere_or_followed_by_anything_is_refused() -> None:
    blob = xz.compress(b"some text, some text, some text")
    for end in range(len(blob)):
        with pytest.raises(IntegrityError):
            xz.decompress(blob[:end], limit=100)
    for tail in (b"\0", blob):
        with pytest.raises(MalformedError, match="cut short, or something follows"):
            xz.decompress(blob + tail, limit=100)


@given(st.binary(max_size=200))
def test_garbage_gives_typed_errors(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        xz.decompress(b"\xfd7zXZ\0" + data, limit=100)
