"""Coding of frames: the form that pays, back to the same bytes, bounded on the way."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wszoo.codecs import frames, zstd
from wszoo.errors import IncompatibleError, IntegrityError, LimitError, MalformedError


@pytest.fixture(scope="module", autouse=True)
def _small():
    """Small frames are kept as they are; here they are coded like large ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "SMALL", 0)
        yield


def u8(data):
    return np.frombuffer(bytes(data), np.uint8)


def decoded(codec, stored, size):
    out = np.full(size, 0xAA, np.uint8)
    frames.decode(codec, u8(stored), out)
    return out.tobytes()


@given(data=st.binary(max_size=200), repeat=st.integers(0, 40), itemsize=st.sampled_from([1, 2, 4, 8]))
def test_every_frame_decodes_to_what_was_encoded(data, repeat, itemsize):
    raw = data * repeat
    coded = frames.encode(u8(raw), itemsize)
    assert decoded(coded.codec, coded.data, len(raw)) == raw
    assert len(coded.data) <= len(raw)


def test_small_frames_are_kept_as_they_are(monkeypatch):
    monkeypatch.setattr(frames, "SMALL", 1000)
    assert frames.encode(u8(bytes(1000)), 2).codec == "raw"
    assert frames.encode(u8(bytes(1002)), 2).codec == "zstd+bytes2"


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_large_frames_decode_into_any_place(itemsize, shift):
    elements = frames._BLOCK + 5  # more than the blocks in which elements are put together, and no multiple of them
    raw = np.arange(elements, dtype=f"<u{itemsize}").view(np.uint8)
    coded = frames.encode(raw, itemsize)
    assert coded.codec == f"zstd+bytes{itemsize}"
    room = np.full(len(raw) + 2, 0xAA, np.uint8)
    frames.decode(coded.codec, u8(coded.data), room[shift : shift + len(raw)])
    assert np.array_equal(room[shift : shift + len(raw)], raw)
    assert set(room[:shift]) | set(room[shift + len(raw) :]) == {0xAA}


@pytest.mark.parametrize("block", [1, 2, 3, 8])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_elements_are_put_together_from_any_number_of_blocks(monkeypatch, itemsize, block):
    """Pairs grow over the low bytes that they are made of: in the first blocks beside them, then on them."""
    monkeypatch.setattr(frames, "_BLOCK", block)
    for elements in range(1, 41):
        raw = np.random.default_rng(elements).integers(0, 256, elements * itemsize, np.uint8)
        planes = raw.reshape(elements, itemsize).T.tobytes()
        assert decoded(f"zstd+bytes{itemsize}", zstd.compress(planes, level=1), len(raw)) == raw.tobytes()


@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_a_length_that_is_no_multiple_of_the_element_is_coded_without_grouping(itemsize):
    assert frames.encode(u8(bytes(1000 * itemsize)), itemsize).codec == f"zstd+bytes{itemsize}"
    assert frames.encode(u8(bytes(1000 * itemsize + 1)), itemsize).codec == "zstd"


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
def test_an_empty_frame_is_raw_and_empty(itemsize):
    coded = frames.encode(u8(b""), itemsize)
    assert (coded.codec, len(coded.data)) == ("raw", 0)
    assert decoded("raw", b"", 0) == b""


def test_a_frame_that_gains_under_five_percent_stays_raw():
    rng = np.random.default_rng(0)
    noise, half = rng.bytes(100_000), rng.bytes(96_000) + bytes(4_000)
    assert frames.encode(u8(noise), 1).codec == "raw"
    assert frames.encode(u8(half), 1).codec == "raw"
    assert frames.encode(u8(rng.bytes(93_000) + bytes(7_000)), 1).codec == "zstd"


def test_grouping_pays_on_weights():
    values = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float16)
    raw = u8(values.tobytes())
    grouped, plain = len(frames.encode(raw, 2).data), len(frames.encode(raw, 1).data)
    assert grouped < 0.88 * len(raw)
    assert grouped < 0.97 * plain


@pytest.mark.parametrize("elements", [100_000, 1_000_000])
def test_weights_are_coded_by_how_frequent_their_bytes_are(elements):
    values = np.random.default_rng(0).standard_normal(elements).astype(np.float32) * np.float32(0.02)
    raw = values.view(np.uint8)
    counts = [np.bincount(plane, minlength=256) / elements for plane in raw.reshape(-1, 4).T]
    entropy = sum(-np.sum(share[share > 0] * np.log2(share[share > 0])) / 8 for share in counts)  # bytes an element
    assert len(frames.encode(raw, 4).data) < 1.01 * entropy * elements
    grouped = np.ascontiguousarray(raw.reshape(-1, 4).T)
    assert len(zstd.compress(grouped, level=frames.LEVEL)) > 1.013 * entropy * elements


def test_rows_that_repeat_are_still_found():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((50, 512)).astype(np.float16)[rng.integers(0, 50, 1000)]
    assert len(frames.encode(rows.reshape(-1).view(np.uint8), 2).data) < 0.3 * rows.nbytes


ZEROS = zstd.compress(bytes(1000), level=1)


@pytest.mark.parametrize(
    ("codec", "stored", "size", "says"),
    [
        ("raw", b"abc", 4, "3 bytes is declared as 4"),
        ("raw", b"abc", 2, "3 bytes is declared as 2"),
        ("zstd", ZEROS, 999, "1,000 bytes, not the 999"),
        ("zstd", ZEROS, 1001, "1,000 bytes, not the 1,001"),
        ("zstd", ZEROS[:-1], 1000, "zstd frame"),
        ("zstd", ZEROS + b"\0", 1000, "cannot be decoded"),
        ("zstd", ZEROS + ZEROS, 1000, "cannot be decoded"),
        ("zstd", b"", 0, "not a zstd frame"),
        ("zstd", b"garbage!", 8, "not a zstd frame"),
        ("zstd", ZEROS[:5], 1000, "header"),
        ("zstd+bytes8", ZEROS, 1001, "cannot have elements of 8"),
        ("zstd+bytes2", zstd.compress(bytes(999), level=1), 1000, "999 bytes, not the 1,000"),
    ],
)
def test_a_frame_that_is_not_as_declared_is_refused(codec, stored, size, says):
    with pytest.raises(MalformedError, match=says):
        decoded(codec, stored, size)


@pytest.mark.parametrize("codec", ["", "RAW", "zstd+bytes3", "zstd+bytes16", "zstd+bytes4\n", "zstd2", "lzma"])
def test_an_unknown_codec_asks_for_a_later_wszoo(codec):
    with pytest.raises(IncompatibleError) as caught:
        decoded(codec, b"", 0)
    assert repr(codec) in caught.value.message
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize("codec", ["zstd", "zstd+bytes4"])
def test_a_bomb_is_refused_before_anything_is_allocated(codec):
    bomb = u8(zstd.compress(bytes(256 << 20), level=1))
    assert len(bomb) < 10_000
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError, match="268,435,456 bytes, not the 1,024"):
            frames.decode(codec, bomb, np.empty(1024, np.uint8))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_window_of_gigabytes_is_refused():
    # Frame header by hand: no single segment, window descriptor 0xA0 (2^30), content size of 8 bytes says 16.
    header = zstd.MAGIC + bytes([0b1100_0000, 0xA0]) + (16).to_bytes(8, "little")
    with pytest.raises(LimitError, match="window"):
        decoded("zstd", header + b"\x81\x00\x00" + bytes(16), 16)


@given(st.binary(max_size=60), st.sampled_from(["raw", "zstd", "zstd+bytes2"]), st.integers(0, 64))
def test_garbage_gives_typed_errors_or_the_declared_size(garbage, codec, size):
    for stored in (garbage, zstd.MAGIC + garbage, ZEROS[:8] + garbage):
        with suppress(IntegrityError):
            assert len(decoded(codec, stored, size)) == size
