"""Frames are decoded to exactly the size that the caller expects, or refused before they cost anything."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from wszoo.codecs import zstd
from wszoo.errors import IntegrityError, LimitError, MalformedError


@settings(deadline=None)
@given(
    data=st.binary(max_size=4096), dictionary=st.one_of(st.none(), st.binary(max_size=512)), level=st.integers(1, 22)
)
def test_what_is_compressed_is_restored(data, dictionary, level):
    frame = zstd.compress(data, level=level, dictionary=dictionary)
    assert zstd.decompress(frame, size=len(data), dictionary=dictionary) == data


@pytest.mark.parametrize("nearest", [False, True])
@given(planes=st.lists(st.binary(max_size=300), max_size=4), repeat=st.sampled_from([0, 1, 1000]))
def test_planes_make_one_frame(planes, repeat, nearest):
    planes = [plane * repeat for plane in planes]
    frame = zstd.compress_planes(planes, level=1, nearest=nearest)
    assert zstd.decompress(frame, size=sum(map(len, planes))) == b"".join(planes)


def test_a_dictionary_is_reached_from_the_end_of_the_data():
    dictionary = bytes(range(256)) * 8000
    data = bytes(reversed(range(256))) * 8000 + dictionary[:1000]
    frame = zstd.compress(data, level=19, dictionary=dictionary)
    assert zstd.decompress(frame, size=len(data), dictionary=dictionary) == data


@pytest.mark.parametrize("size", [0, 9, 11, 1 << 40])
def test_another_size_than_expected_is_refused(size):
    with pytest.raises(MalformedError, match="declares 10 bytes"):
        zstd.decompress(zstd.compress(b"0123456789", level=3), size=size)


def test_a_bomb_is_refused_by_its_header():
    frame = zstd.compress(bytes(64 << 20), level=3)
    assert len(frame) < 10_000
    with pytest.raises(MalformedError, match="declares 67,108,864 bytes"):
        zstd.decompress(frame, size=1000)
    with pytest.raises(LimitError):
        zstd.declared_size(frame, limit=1 << 20)
    assert zstd.declared_size(frame, limit=64 << 20) == 64 << 20


def test_a_frame_without_its_size_is_refused():
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 100)
    with pytest.raises(MalformedError, match="does not declare"):
        zstd.decompress(frame, size=100)


def test_trailing_bytes_and_second_frames_are_refused():
    frame = zstd.compress(b"x" * 100, level=3)
    for more in (b"\0", b"garbage", frame):
        with pytest.raises(MalformedError):
            zstd.decompress(frame + more, size=100)
        with pytest.raises(MalformedError):
            zstd.decompress(frame + more, size=200)


def test_a_huge_window_is_refused():
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=1000)
    frame = compressor.compress(b"x" * 1000) + compressor.flush()
    if zstandard.get_frame_parameters(frame).window_size > 1 << 23:
        with pytest.raises(LimitError, match="window"):
            zstd.decompress(frame, size=1000)


@pytest.mark.parametrize("frame", [b"", b"\x28", b"not zstd", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18\x04\0\0\0abcd"])
def test_what_is_not_a_frame_is_refused(frame):
    with pytest.raises(MalformedError):
        zstd.decompress(frame, size=4)


@settings(deadline=None, max_examples=300)
@given(place=st.integers(0, 10_000), value=st.integers(1, 255))
def test_a_damaged_frame_gives_another_result_or_an_error(place, value):
    data = b"some text that compresses, some text that compresses" * 9
    frame = bytearray(zstd.compress(data, level=19))
    frame[place % len(frame)] ^= value
    with contextlib.suppress(IntegrityError):
        assert len(zstd.decompress(bytes(frame), size=len(data))) == len(data)


def test_a_damaged_frame_does_not_spoil_what_is_decoded_next():
    data = bytes(range(256)) * 100
    good = zstd.compress(data, level=1)
    for _ in range(3):
        with pytest.raises(MalformedError):
            zstd.decompress(good[:-1], size=len(data))
        assert zstd.decompress(good, size=len(data)) == data


WITHOUT_MEMORY = """
import resource
import zstandard
from wszoo.codecs import zstd
from wszoo.errors import LimitError

size = 64 << 20
options = zstandard.ZstdCompressionParameters.from_level(1, window_log=26, source_size=size)
encoder = zstandard.ZstdCompressor(compression_params=options).compressobj(size=size)
frame = encoder.compress(bytes(size)) + encoder.flush()
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
reader = zstd.Reader(frame, size=size)
resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), resource.RLIM_INFINITY))
try:
    reader.fill(bytearray(1 << 20))
except LimitError as error:
    print(error.message)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory")
def test_a_window_that_there_is_no_memory_for_is_not_called_damage():
    done = subprocess.run([sys.executable, "-c", WITHOUT_MEMORY], capture_output=True, text=True, check=True)
    assert "a window of 67,108,864 bytes" in done.stdout


def test_a_decoder_with_a_large_window_is_not_kept():
    data = bytes(32 << 20)
    for level, kept in ((1, True), (19, False)):
        window = {"window_log": 25} if level == 19 else {}
        parameters = zstandard.ZstdCompressionParameters.from_level(level, source_size=len(data), **window)
        reader = zstd.Reader(zstandard.ZstdCompressor(compression_params=parameters).compress(data), size=len(data))
        reader.fill(bytearray(len(data)))
        reader.finish()
        assert (reader._decoder in zstd._idle) == kept


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_truncated_frame_is_refused(cut):
    frame = zstd.compress(bytes(range(256)) * 4, level=3)
    with pytest.raises(MalformedError):
        zstd.decompress(frame[:-cut], size=1024)


def read(frame, size, part):
    reader, out = zstd.Reader(frame, size=size), bytearray(size)
    for start in range(0, size, part):
        reader.fill(memoryview(out)[start : start + part])
    reader.finish()
    return out


@given(data=st.binary(max_size=300), repeat=st.sampled_from([1, 1000]), part=st.integers(1, 999))
def test_a_frame_is_read_part_by_part(data, repeat, part):
    whole = data * repeat
    assert read(zstd.compress(whole, level=1), len(whole), part * repeat) == whole


def test_frames_that_are_read_in_turn_do_not_mix():
    contents = [bytes([number]) * 100_000 for number in range(3)]
    readers = [zstd.Reader(zstd.compress(each, level=1), size=len(each)) for each in contents]
    outs = [bytearray(100_000) for _ in contents]
    for start in range(0, 100_000, 10_000):
        for reader, out in zip(readers, outs, strict=True):
            reader.fill(memoryview(out)[start : start + 10_000])
    assert outs == contents


_WHOLE = zstd.compress(bytes(range(256)) * 4, level=1)
_CHECKED = zstandard.ZstdCompressor(write_checksum=True).compress(bytes(range(256)) * 4)


@pytest.mark.parametrize(
    "frame",
    [
        _WHOLE[:-1],
        _WHOLE + b"\0",
        _WHOLE + _WHOLE,
        _CHECKED[:-1],
        _CHECKED[:-1] + bytes([_CHECKED[-1] ^ 1]),
        _WHOLE[:7] + bytes([_WHOLE[7] & ~1]) + _WHOLE[8:],  # the first block says that it is not the last
        _WHOLE[:7] + bytes([_WHOLE[7] | 6]) + _WHOLE[8:],  # a type that no block has
    ],
    ids=["cut", "a byte more", "two frames", "checksum cut", "checksum wrong", "no last block", "no such block"],
)
def test_what_is_not_one_whole_frame_is_never_read_to_its_end(frame):
    assert zstandard.frame_header_size(_WHOLE) == 7
    with pytest.raises(MalformedError, match="cannot be decoded"):
        read(frame, 1024, 1024)


def test_more_or_less_content_than_a_frame_declares_is_refused():
    declared = zstd.compress(bytes(1000), level=1)
    header = zstandard.frame_header_size(declared)
    for other in (999, 1001):
        blocks = zstd.compress(bytes(other), level=1)[header:]
        with pytest.raises(MalformedError, match="cannot be decoded"):
            read(declared[:header] + blocks, 1000, 1000)


def test_a_frame_of_empty_blocks_is_refused():
    content = b"content" * 100
    encoder = zstandard.ZstdCompressor().compressobj(size=len(content))
    whole = encoder.compress(content) + encoder.flush()
    at = zstandard.frame_header_size(whole)
    stuffed = whole[:at] + bytes(3) * 1000 + whole[at:]
    assert zstandard.ZstdDecompressor().decompress(stuffed) == content
    with pytest.raises(LimitError, match="more than 256 blocks"):
        zstd.Reader(stuffed, size=len(content))
