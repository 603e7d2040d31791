"""Real servers on 127.0.0.1 for the contract tests; each is stopped by who started it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from wszoo.distribution.serve import StoreServer


def program(name, package):
    """The path of a server's program; without it a test fails in CI and is passed over elsewhere."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        message = f"{name} is not installed: {package}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def process(words, ready, *, log, seconds=30, **options):
    """Run a server until the block ends; ``ready`` is a URL that answers, whatever it answers, when it is up."""
    with log.open("wb") as output:
        running = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, **options)
        try:
            deadline = time.monotonic() + seconds
            while not _answers(ready):
                if running.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{words[0]} did not start: {log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.05)
            yield running
        finally:
            running.terminate()
            try:
                running.wait(2)  # SeaweedFS takes half a minute to say goodbye
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500
    except OSError:
        return False


@contextmanager
def threaded(server):
    """Run a server of the standard library in a thread."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving(store, **options):
    """``wszoo serve`` in this process."""
    with threaded(StoreServer(store, **options)) as server:
        yield server
