"""Serving a store: its files and nothing else, with exact ranges."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from builders import around, snapshot
from contract.servers import serving

from wszoo.distribution.pull import pull
from wszoo.distribution.serve import StoreServer
from wszoo.errors import StorageError
from wszoo.names import Ref
from wszoo.remotes.http import HttpType

REF = Ref.parse("net:1")


@pytest.fixture
def server(origin):
    with serving(origin) as running:
        yield running


def ask(server, path, method="GET", **headers):
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())
    finally:
        connection.close()


def test_a_file_that_cannot_be_read_is_told_in_the_log(origin, monkeypatch):
    def unreadable(path):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("wszoo.distribution.serve.open_regular", unreadable)
    lines = []
    with serving(origin, log=lines.append) as server:
        with pytest.raises(http.client.RemoteDisconnected):
            ask(server, "/index.json")
        monkeypatch.undo()
        assert ask(server, "/index.json")[0] == 200
    assert [line for line in lines if "got no answer" in line and "Input/output error" in line]


def test_a_model_is_pulled_over_http_when_pinned(origin, server, store):
    before = snapshot(origin.layout.root)
    remote = HttpType().open(server.url)
    pinned = REF.pinned(remote.resolve(REF).digest)
    assert pull(store, remote, pinned, around()).fetched
    assert snapshot(origin.layout.root) == before


@pytest.mark.parametrize(
    "path",
    [
        "/", "/wszoo", "/wszoo/refs/", "/blobs", "/blobs/sha256/", "/../secret", "/blobs/sha256/../../index.json",
        "/%2e%2e/secret", "/index.json/", "/blobs/sha256/" + "A" * 64, "/blobs/sha256/" + "0" * 64,
        "/blobs/sha256/" + "0" * 63, "/blobs/sha256/" + "0" * 65, "/blobs/sha512/" + "0" * 128, "/oci-layout%00",
        "http://other/index.json", "index.json",
    ],
)  # fmt: skip
def test_nothing_else_is_served(server, origin, path):
    (origin.layout.root.parent / "secret").write_text("secret")
    status, body, _ = ask(server, path)
    assert (status, body) == (404, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "NONSENSE"])
def test_nothing_can_be_changed(server, origin, method):
    before = snapshot(origin.layout.root)
    assert ask(server, "/index.json", method)[0] in {400, 501}
    assert snapshot(origin.layout.root) == before


RANGES = {
    "bytes=0-3": (0, 4), "bytes=2-": (2, None), "bytes=-3": (-3, None), "bytes=0-99999": (0, None),
    "bytes=-99999": (0, None), "bytes=5-5": (5, 6),
}  # fmt: skip


@pytest.mark.parametrize("header", RANGES)
def test_ranges_are_exact(server, origin, header):
    data = origin.layout.marker.read_bytes()
    start, end = RANGES[header]
    status, body, headers = ask(server, "/oci-layout", Range=header)
    assert body == data[start:end]
    assert (status == 206) == (body != data)
    if status == 206:
        assert headers["Content-Range"].endswith(f"/{len(data)}")
    assert ask(server, "/oci-layout", "HEAD", Range=header)[1] == b""


@pytest.mark.parametrize("header", ["bytes=99-", "bytes=99-100", "bytes=-0"])
def test_a_range_behind_the_end_is_refused_with_the_size(server, origin, header):
    status, body, headers = ask(server, "/oci-layout", Range=header)
    assert (status, body) == (416, b"")
    assert headers["Content-Range"] == f"bytes */{origin.layout.marker.stat().st_size}"


@pytest.mark.parametrize("header", ["bytes=3-1", "bytes=a-b", "bytes=-", "lines=1-2", "bytes=0-1,3-4", "x" * 5000])
def test_a_range_that_is_none_gives_the_whole_file(server, origin, header):
    assert ask(server, "/oci-layout", Range=header)[:2] == (200, origin.layout.marker.read_bytes())


def test_it_listens_on_this_machine_only_unless_told(server):
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_in_use_is_an_error_with_a_hint(server, origin):
    with pytest.raises(StorageError, match="cannot listen") as caught:
        StoreServer(origin, port=server.server_address[1])
    assert "--port" in caught.value.hint


def test_what_clients_send_cannot_forge_a_log_line(origin):
    lines = []
    with serving(origin, log=lines.append) as server, socket.create_connection(server.server_address) as raw:
        raw.sendall(b"GET /\x1b[31mred HTTP/1.0\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 404")
    assert lines
    assert all(line.isprintable() for line in lines)


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_the_command_serves_until_interrupted(origin):
    words = [sys.executable, "-m", "wszoo", "serve", "--port", "0", "--json", "--store", str(origin.layout.root)]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = iter(running.stdout.readline, "")
        document = ""
        for line in lines:
            document += line
            if line.rstrip() == "}":
                break
        with urllib.request.urlopen(json.loads(document)["url"] + "/index.json") as response:
            assert json.load(response)["manifests"]
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == 0
    finally:
        running.kill()
        running.communicate()
