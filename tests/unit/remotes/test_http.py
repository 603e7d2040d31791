"""A web server that lies, refuses, stalls or breaks off: each gives its own error, and never wrong bytes."""

from __future__ import annotations

import email.utils
import socket
import threading
import time

import pytest
from contract.servers import threaded
from unit.remotes.faulty import FaultyServer

from wszoo.digest import Digest
from wszoo.errors import LimitError, MalformedError, NotFoundError, RemoteError, UsageError
from wszoo.names import Ref
from wszoo.remotes import web
from wszoo.remotes.http import HttpType
from wszoo.remotes.web import Web
from wszoo.schema.decode import MAX_DOCUMENT
from wszoo.schema.oci import Descriptor

DATA = bytes(range(256)) * 40
BLOB = Descriptor(media_type="a", digest=Digest.of(DATA), size=len(DATA))


@pytest.fixture
def serve():
    """Start a server that answers as the given function says; returns it."""
    stack = []

    def start(answer):
        manager = threaded(FaultyServer(answer))
        stack.append(manager)
        return manager.__enter__()

    yield start
    for manager in stack:
        manager.__exit__(None, None, None)


def read(url, offset=0, length=None, blob=BLOB):
    return b"".join(HttpType().open(url).open(blob, offset, length))


def test_a_request_asks_for_bytes_as_they_are(serve):
    server = serve(lambda it: it.reply(206, DATA[5:9], content_range=f"bytes 5-8/{len(DATA)}"))
    assert read(server.url, 5, 4) == DATA[5:9]
    method, path, headers = server.seen[0]
    assert (method, path) == ("GET", f"/blobs/sha256/{BLOB.digest.hex}")
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Range"] == "bytes=5-8"
    assert headers["User-Agent"].startswith("wszoo/")


def test_the_whole_blob_is_asked_for_without_a_range(serve):
    server = serve(lambda it: it.reply(200, DATA))
    assert read(server.url) == DATA
    assert "Range" not in server.seen[0][2]


def test_nothing_is_asked_when_nothing_is_wanted(serve):
    server = serve(lambda it: it.reply(500))
    assert read(server.url, len(DATA)) == b""
    assert read(server.url, 3, 0) == b""
    assert server.seen == []


LIES = {
    "another range": lambda it: it.reply(206, DATA[6:10], content_range=f"bytes 6-9/{len(DATA)}"),
    "a longer range": lambda it: it.reply(206, DATA[5:10], content_range=f"bytes 5-9/{len(DATA)}"),
    "another size": lambda it: it.reply(206, DATA[5:9], content_range="bytes 5-8/9"),
    "no range": lambda it: it.reply(206, DATA[5:9]),
    "a malformed range": lambda it: it.reply(206, DATA[5:9], content_range="bytes 5-٨/10240"),
    "a huge number": lambda it: it.reply(206, DATA[5:9], content_range="bytes 5-" + "9" * 5000 + "/*"),
    "a whole of another length": lambda it: it.reply(200, DATA + b"x"),
    "compressed": lambda it: it.reply(200, DATA, content_encoding="gzip"),
    "a web page": lambda it: it.reply(200, DATA, content_type="text/html; charset=utf-8"),
    "a short body": lambda it: (
        it.reply(206, DATA[5:8], content_range="bytes 5-8/10240", content_length="4")
        or it.connection.shutdown(socket.SHUT_WR)
    ),
    "a short body of no length": lambda it: it.reply(
        206, DATA[5:8], content_range="bytes 5-8/10240", content_length=None
    ),
    "shorter than that": lambda it: it.reply(416, content_range="bytes */3"),
    "no content": lambda it: it.reply(204),
    "a redirect to nowhere": lambda it: it.reply(302),
    "not http": lambda it: it.wfile.write(b"hello\r\n\r\n") and it.connection.shutdown(socket.SHUT_WR),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_about_a_range_is_an_error(serve, lie):
    server = serve(LIES[lie])
    with pytest.raises(RemoteError):
        read(server.url, 5, 4)


def test_more_bytes_than_asked_for_are_never_handed_over(serve):
    server = serve(lambda it: it.reply(206, DATA, content_range=f"bytes 5-8/{len(DATA)}", content_length=None))
    assert read(server.url, 5, 4) == DATA[:4]


@pytest.mark.parametrize(
    ("status", "permanent"),
    [(400, True), (401, True), (403, True), (408, False), (418, True), (429, False), (500, False), (503, False)],
)
def test_a_status_tells_whether_trying_again_makes_sense(serve, status, permanent):
    server = serve(lambda it: it.reply(status, b"the reason"))
    with pytest.raises(RemoteError, match=str(status)) as caught:
        read(server.url)
    assert caught.value.permanent is permanent
    assert caught.value.retry_after is None


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there_is_not_found(serve, status):
    with pytest.raises(NotFoundError, match=BLOB.digest.hex):
        read(serve(lambda it: it.reply(status)).url)


def test_retry_after_is_handed_on(serve):
    soon = email.utils.formatdate(time.time() + 100, usegmt=True)
    for value, low, high in (("7", 7, 7), (soon, 90, 101), ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0), ("-5", 0, 0)):
        server = serve(lambda it, value=value: it.reply(429, retry_after=value))
        with pytest.raises(RemoteError) as caught:
            read(server.url)
        assert low <= caught.value.retry_after <= high
    server = serve(lambda it: it.reply(503, retry_after="soon"))
    with pytest.raises(RemoteError) as caught:
        read(server.url)
    assert caught.value.retry_after is None


def test_a_redirect_is_followed_without_the_password(serve):
    other = serve(lambda it: it.reply(200, DATA))
    server = serve(lambda it: it.reply(307, location=f"{other.url}/elsewhere?signature=1"))
    assert read(server.url.replace("//", "//user:secret@")) == DATA
    assert "Authorization" in server.seen[0][2]
    assert "Authorization" not in other.seen[0][2]


def test_a_redirect_keeps_the_range(serve):
    other = serve(lambda it: it.reply(206, DATA[5:9], content_range="bytes 5-8/10240"))
    server = serve(lambda it: it.reply(302, location=f"{other.url}/x"))
    assert read(server.url, 5, 4) == DATA[5:9]
    assert other.seen[0][2]["Range"] == "bytes=5-8"


def test_a_redirect_loop_ends(serve):
    server = serve(lambda it: it.reply(302, location=it.path))
    with pytest.raises(RemoteError, match="redirects") as caught:
        read(server.url)
    assert caught.value.permanent
    assert len(server.seen) == web.REDIRECTS + 1


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://host/x", "javascript:1"])
def test_a_redirect_to_another_scheme_is_refused(serve, target):
    with pytest.raises(RemoteError, match="less safe"):
        read(serve(lambda it: it.reply(302, location=target)).url)


def test_a_password_in_the_url_is_sent_and_never_shown(serve):
    server = serve(lambda it: it.reply(403))
    remote = HttpType().open(server.url.replace("//", "//user:secret@"))
    assert "secret" not in remote.url
    for ask in (remote.refs, lambda: list(remote.open(BLOB))):
        with pytest.raises(RemoteError) as caught:
            ask()
        assert "secret" not in str(caught.value)
    assert server.seen[0][2]["Authorization"].startswith("Basic ")


def test_names_that_do_not_resolve_and_closed_ports_are_told_apart():
    with pytest.raises(RemoteError, match=r"cannot find the host 'nowhere\.invalid'"):
        read("http://nowhere.invalid/zoo")
    with pytest.raises(RemoteError, match="cannot connect") as caught:
        read("http://127.0.0.1:1/zoo")
    assert not caught.value.permanent


@pytest.mark.parametrize("url", ["http://[::1/zoo", "http://", "http:///zoo", "http://host:99999/", "http://h/?q=1"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(UsageError, match="not a URL"):
        HttpType().open(url)


def test_a_server_that_speaks_no_tls_is_an_error(serve):
    server = serve(lambda it: it.reply(200, DATA))
    with pytest.raises(RemoteError, match=r"127\.0\.0\.1"):
        read(server.url.replace("http://", "https://"))


def test_a_server_that_stalls_is_given_up(serve, monkeypatch):
    monkeypatch.setattr(web, "READ_SECONDS", 0.2)
    release = threading.Event()
    server = serve(lambda it: release.wait(5))
    with pytest.raises(RemoteError, match="does not answer"):
        read(server.url)
    release.set()


def test_bytes_are_handed_over_as_they_come(serve):
    """A watchdog counts seconds without a byte; on a slow line a whole piece may take minutes."""
    release = threading.Event()

    def answer(it):
        it.send_response(200)
        it.send_header("Content-Length", str(len(DATA)))
        it.end_headers()
        it.wfile.write(DATA[:10])
        it.wfile.flush()
        release.wait(20)
        it.wfile.write(DATA[10:])

    body = HttpType().open(serve(answer).url).open(BLOB)
    assert next(body) == DATA[:10]
    release.set()
    assert b"".join(body) == DATA[10:]


def test_a_reader_is_stopped_from_another_thread(serve):
    release = threading.Event()

    def answer(it):
        it.send_response(200)
        it.send_header("Content-Length", str(len(DATA)))
        it.end_headers()
        it.wfile.write(DATA[:10])
        it.wfile.flush()
        release.wait(20)

    body = HttpType().open(serve(answer).url).open(BLOB)
    caught = []

    def reader():
        try:
            list(body)
        except RemoteError as error:
            caught.append(error)

    thread = threading.Thread(target=reader)
    thread.start()
    time.sleep(0.3)
    body.close()
    thread.join(5)
    release.set()
    assert not thread.is_alive()
    assert caught


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda it: it.reply(404), NotFoundError),
        (lambda it: it.reply(200, b"<!doctype html>"), MalformedError),
        (lambda it: it.reply(200, b"{}", content_type="text/html"), MalformedError),
        (lambda it: it.reply(200, b'{"manifests": [{}]}'), MalformedError),
        (lambda it: it.reply(200, b"[" * 100_000), (MalformedError, LimitError)),
        (lambda it: it.reply(200, b""), MalformedError),
        (lambda it: it.reply(500), RemoteError),
    ],
    ids=["none", "page", "page by type", "no digest", "deep", "empty", "broken"],
)
def test_an_index_that_is_none_is_an_error(serve, answer, error):
    remote = HttpType().open(serve(answer).url)
    for ask in (remote.refs, lambda: remote.resolve(Ref.parse("net:1"))):
        with pytest.raises(error):
            ask()


def test_an_endless_index_is_cut(serve, monkeypatch):
    monkeypatch.setattr("wszoo.remotes.http.MAX_DOCUMENT", 1 << 20)
    assert MAX_DOCUMENT > 1 << 20

    def endless(it):
        it.send_response(200)
        it.end_headers()
        it.close_connection = True
        while True:
            it.wfile.write(b" " * 65536)

    with pytest.raises(LimitError):
        HttpType().open(serve(endless).url).refs()


def test_proxies_of_the_environment_are_used_and_exceptions_honoured(serve, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    proxy = serve(lambda it: it.reply(200, DATA))
    monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:pw@"))
    assert read("http://zoo.invalid/z") == DATA
    _, path, headers = proxy.seen[0]
    assert path.startswith("http://zoo.invalid/z/blobs/")
    assert headers["proxy-authorization"].startswith("Basic ")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    direct = serve(lambda it: it.reply(200, DATA))
    assert read(direct.url) == DATA
    assert len(proxy.seen) == 1


def test_connections_are_used_again(serve):
    peers = set()

    def answer(it):
        peers.add(it.client_address)
        it.reply(206, DATA[5:9], content_range="bytes 5-8/10240")

    remote = HttpType().open(serve(answer).url)
    for _ in range(5):
        assert b"".join(remote.open(BLOB, 5, 4)) == DATA[5:9]
    assert len(peers) == 1


def test_certificates_are_checked(tmp_path):
    import ssl
    import subprocess

    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*words, "-keyout", key, "-out", cert], check=True, capture_output=True)
    server = FaultyServer(lambda it: it.reply(200, DATA))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with threaded(server), pytest.raises(RemoteError, match="certificate") as caught:
        list(HttpType().open(server.url.replace("http:", "https:")).open(BLOB))
    assert caught.value.permanent


def test_other_methods_than_get_do_not_follow_redirects(serve):
    server = serve(lambda it: it.reply(307, location="/there"))
    with pytest.raises(RemoteError, match="307"):
        Web().request("POST", server.url)


def test_an_endless_refusal_is_not_read_to_its_end(serve):
    def endless(it):
        it.send_response(401)
        it.end_headers()
        it.close_connection = True
        while True:
            it.wfile.write(b" " * 65536)

    with pytest.raises(RemoteError, match="refused"):
        read(serve(endless).url)
