"""Answers in large pieces where the line is fast, and at once where it is slow."""

from __future__ import annotations

import hashlib
import time

import pytest
from contract.servers import threaded
from unit.remotes.faulty import FaultyServer

from wszoo.digest import Digest
from wszoo.remotes import web_pieces
from wszoo.remotes.http import HttpType
from wszoo.remotes.web_pieces import PIECE, pool_manager
from wszoo.schema.oci import Descriptor

DATA = bytes(range(251)) * 33_000  # 8 MB
BLOB = Descriptor(media_type="application/octet-stream", digest=Digest.of(DATA), size=len(DATA))


def pieces(server):
    """Sizes of the pieces that a blob comes in, whose bytes are right."""
    running, sizes = hashlib.sha256(), []
    for piece in HttpType().open(server.url).open(BLOB):
        running.update(piece)
        sizes.append(len(piece))
    assert Digest.from_hash(running) == BLOB.digest
    return sizes


def test_a_fast_line_fills_whole_pieces():
    with threaded(FaultyServer(lambda it: it.reply(body=DATA))) as server:
        sizes = pieces(server)
    assert max(sizes) == PIECE
    assert sum(size == PIECE for size in sizes) >= len(DATA) // PIECE - 2


def test_a_slow_line_is_read_as_it_comes(monkeypatch):
    monkeypatch.setattr(web_pieces, "_QUICK", 0.0)
    with threaded(FaultyServer(lambda it: it.reply(body=DATA))) as server:
        assert max(pieces(server)) <= web_pieces._FIRST


def test_a_line_that_slows_down_is_read_in_smaller_pieces(monkeypatch):
    monkeypatch.setattr(web_pieces, "_SLOW", 0.05)
    monkeypatch.setattr(web_pieces, "_QUICK", 0.04)
    half = len(DATA) // 2

    def answer(it):
        it.send_response(200)
        it.send_header("Content-Length", str(len(DATA)))
        it.end_headers()
        it.wfile.write(DATA[:half])
        for start in range(half, half + 1_000_000, 100_000):
            it.wfile.flush()
            time.sleep(0.1)
            it.wfile.write(DATA[start : start + 100_000])
        it.wfile.write(DATA[half + 1_000_000 :])

    with threaded(FaultyServer(answer)) as server:
        sizes = pieces(server)
    assert min(sizes[sizes.index(PIECE) : -1]) < PIECE // 4


def test_an_answer_in_chunks_is_read_whole():
    def answer(it):
        it.send_response(200)
        it.send_header("Transfer-Encoding", "chunked")
        it.end_headers()
        for start in range(0, len(DATA), 1_000_000):
            part = DATA[start : start + 1_000_000]
            it.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        it.wfile.write(b"0\r\n\r\n")

    with threaded(FaultyServer(answer)) as server:
        assert sum(pieces(server)) == len(DATA)


def test_connections_are_used_again():
    ports = set()

    def answer(it):
        ports.add(it.client_address[1])
        it.reply(body=DATA)

    with threaded(FaultyServer(answer)) as server:
        remote = HttpType().open(server.url)
        for _ in range(3):
            assert sum(len(piece) for piece in remote.open(BLOB)) == len(DATA)
    assert len(ports) == 1


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:1"])
def test_both_schemes_have_these_answers(proxy):
    manager = pool_manager(2, proxy)
    for scheme in ("http", "https"):
        pool = manager.connection_from_host("zoo.example", scheme=scheme)
        assert pool.ConnectionCls.response_class is web_pieces.Answer
