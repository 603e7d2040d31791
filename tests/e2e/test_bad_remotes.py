"""What the command says when the other side fails: a clear error, the documented exit code, and the next pull works."""

from __future__ import annotations

import errno
import json
import socket

import pytest
from builders import publish_model
from faults.server import Fault, FaultServer

from wszoo.cli import main
from wszoo.names import Ref
from wszoo.remotes import http
from wszoo.store.store import Store
from wszoo.store.verify import verify
from wszoo.transfer import Tuning, download
from wszoo.transfer import tuning as tunings

REF = Ref.parse("net:1")


@pytest.fixture
def run(capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("WSZOO_STORE", str(tmp_path / "mine"))
    monkeypatch.setenv("WSZOO_CONFIG", str(tmp_path / "wszoo.toml"))
    monkeypatch.setattr(tunings, "DEFAULT", Tuning(segment=4 << 10, backoff=0.01, backoff_cap=0.05, attempts=3))

    def call(*words):
        with pytest.raises(SystemExit) as exit_:
            main(words)
        return (exit_.value.code or 0, *capfd.readouterr())

    return call


@pytest.fixture
def server(origin):
    with FaultServer(origin.layout.root).running() as running:
        yield running


@pytest.fixture
def words(origin, server):
    pinned = REF.pinned(origin.refs.get(REF).descriptor.digest)
    return ["pull", str(pinned), "--from", server.url, "--gpu", "sm89", "--no-assemble"]


def assert_refused(answer, code, says):
    found, out, err = answer
    assert (found, out) == (code, ""), err
    assert says in err
    assert "Traceback" not in err


CASES = {
    "length": (Fault("short"), 9, "its descriptor says"),
    "cut": (Fault("cut"), 9, "broke off"),
    "range": (Fault("range"), 9, "was asked for bytes"),
    "digest": (Fault("flip"), 4, "damaged"),
    "redirect loop": (Fault("redirect"), 9, "redirects more than"),
    "html": (Fault("html"), 9, "a web page instead of bytes"),
    "401": (Fault("status", 401), 9, "401"),
    "403": (Fault("status", 403), 9, "403"),
    "404": (Fault("status", 404), 3, "not found (404)"),
    "503": (Fault("status", 503), 9, "503"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_server_that_always_fails_is_told_about_and_the_next_pull_goes_on(run, server, words, tmp_path, case):
    fault, code, says = CASES[case]
    # The first requests are for documents. Ranges are asked for only of what is larger.
    late = {
        "range": lambda request: request.start,
        "length": lambda request: request.number >= 8 and request.whole,  # of a range the header shows it first
    }.get(case, lambda request: request.number >= 8)
    server.fault = lambda request: fault if case in {"html", "redirect loop"} or late(request) else None
    assert_refused(run(*words), code, says)
    store = Store(tmp_path / "mine")
    assert store.refs.all() == []
    server.fault = None
    assert run(*words)[0] == 0
    assert verify(store).problems == ()


def test_a_host_that_is_not_found_is_told(run):
    answer = run("pull", f"net:1@sha256:{'0' * 64}", "--from", "http://nowhere.invalid/zoo")
    assert_refused(answer, 9, "cannot find the host 'nowhere.invalid'")


def test_an_index_over_the_cap_is_refused(run, words, monkeypatch):
    monkeypatch.setattr(http, "MAX_DOCUMENT", 100)
    assert_refused(run(*words), 4, "larger than the 100 bytes")


def test_a_tag_that_moves_in_the_middle_gives_what_it_was_at_first(run, server, origin, tmp_path):
    first, moved = origin.refs.get(REF).descriptor.digest, []

    def move(request):
        if not moved:
            moved.append(request)
            publish_model(origin, "net:1", seed=1)

    server.fault = move
    code, out, err = run("pull", "net:1", "--from", server.url, "--allow-unsigned", "--gpu", "sm89", "--json")
    assert code == 0, err
    assert origin.refs.get(REF).descriptor.digest != first
    assert json.loads(out)["index_digest"] == first
    assert Store(tmp_path / "mine").refs.get(REF).descriptor.digest == first
    assert verify(Store(tmp_path / "mine")).problems == ()


def test_a_tag_that_moved_since_it_was_pinned_is_told(run, server, words, origin):
    publish_model(origin, "net:1", seed=1)
    assert_refused(run(*words), 3, "net:1")


def test_everything_that_is_here_is_used_without_a_connection(run, words, monkeypatch):
    assert run(*words)[0] == 0

    def refuse(*_):
        pytest.fail("it connects")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert run(*words, "--offline")[0] == 0
    assert run("pull", "net:1", "--gpu", "sm89", "--no-assemble")[0] == 0
    assert run("resolve", "net:1", "--gpu", "sm89")[0] == 0


def test_offline_without_everything_is_not_found_and_connects_nowhere(run, server, words):
    assert_refused(run(*words, "--offline"), 3, "net:1")
    assert server.requests == []


def test_a_disk_that_is_full_half_way_is_told_and_the_next_pull_goes_on(run, words, tmp_path, monkeypatch):
    write_all, written = download.write_all, []

    def full(write, data):
        written.append(len(data))
        if sum(written) > 9_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(write, data)

    monkeypatch.setattr(download, "write_all", full)
    assert_refused(run(*words), 8, "No space left on device")
    store = Store(tmp_path / "mine")
    assert store.refs.all() == []
    assert verify(store).problems == (), "what is there is whole"
    monkeypatch.setattr(download, "write_all", write_all)
    assert run(*words)[0] == 0
    assert verify(store).problems == ()
