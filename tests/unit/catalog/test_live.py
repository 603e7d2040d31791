"""Answering browsers, beside clients that pull."""

from __future__ import annotations

import http.client
import re
import threading
from contextlib import contextmanager

import pytest
from builders import publish_model

from wszoo.catalog.live import Catalog
from wszoo.distribution.serve import StoreServer

HTML = "text/html,application/xhtml+xml"


@contextmanager
def serving(store):
    with StoreServer(store, pages=Catalog(store)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(origin):
    with serving(origin) as running:
        yield running


def ask(server, path, *, method="GET", accept=HTML, host="zoo.example:1"):
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host)
        if accept:
            connection.putheader("Accept", accept)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read(), dict(response.getheaders())
    finally:
        connection.close()


def links(content):
    return re.findall(rb'(?:href|src)="([^"#]+)"', content)


def test_a_browser_gets_pages_and_everything_that_they_name(server):
    status, content, headers = ask(server, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    (data,) = re.findall(rb"data-files=\"([^\"]+)\"", content)
    model = next(path for path in links(content) if b"/models/" in path)
    for path in (*links(content), b"catalog/" + data):
        assert ask(server, f"/{path.decode()}", accept="*/*")[0] == 200
    _, page, _ = ask(server, f"/{model.decode()}")
    for path in links(page):
        name = path.decode().replace("../../", "/").replace("../", "/catalog/")
        assert ask(server, name, accept="*/*")[0] == 200


def test_clients_that_pull_see_no_pages(server, origin):
    assert ask(server, "/", accept="application/json")[:2] == (404, b"")
    assert ask(server, "/", accept="")[:2] == (404, b"")
    assert ask(server, "/index.json")[1] == origin.layout.index.read_bytes()


def test_head_has_the_length_and_no_body(server):
    status, content, headers = ask(server, "/", method="HEAD")
    assert (status, content) == (200, b"")
    assert int(headers["Content-Length"]) == len(ask(server, "/")[1])


@pytest.mark.parametrize(
    "path",
    [
        "/catalog/", "/catalog/models/none-0.html", "/catalog/models/../../index.html", "/catalog/site.json",
        "/catalog/data/0000000000000000.js", "/catalog/assets/site.css", "/catalog/models/%2e%2e.html",
    ],
)  # fmt: skip
def test_nothing_else_is_a_page(server, path):
    assert ask(server, path)[:2] == (404, b"")


def test_a_new_model_appears(server, origin):
    assert b"other:1" not in ask(server, "/")[1]
    publish_model(origin, "other:1", seed=5, targets=())
    assert b"other:1" in ask(server, "/")[1]


def model_page(server, host):
    model = next(path for path in links(ask(server, "/")[1]) if b"/models/" in path)
    return ask(server, f"/{model.decode()}", host=host)[1].decode()


def test_commands_name_the_address_that_was_asked(server):
    assert "--from http://zoo.example:8765<" in model_page(server, "zoo.example:8765")


@pytest.mark.parametrize("host", ["x'; rm -rf ~", "<script>", "a/b", "", "x" * 300, "user@host"])
def test_a_strange_host_is_not_repeated(server, host):
    text = model_page(server, host)
    assert "--from REMOTE<" in text
    assert not host or host not in text.replace("<script", "")


def test_many_at_once_get_the_same(server):
    found = []
    threads = [threading.Thread(target=lambda: found.append(ask(server, "/")[:2])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
