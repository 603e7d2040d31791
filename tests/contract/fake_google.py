"""A fake of the few requests of Google's object store (XML API) that pushing and pulling send.

It is no emulator: one bucket in memory, no signatures, no parts. The package index has two emulators:
fake-gcs-server refuses this API's uploads, and gcp-storage-emulator 2026.7.19 answers them without ETag or generation,
which obstore wants, and writes whatever ``x-goog-if-generation-match`` says. Google's own testbench is not there.
"""

from __future__ import annotations

import hashlib
import threading
from email.utils import formatdate
from urllib.parse import unquote, urlsplit

from unit.remotes.faulty import FaultyServer

TOKEN = "fake-token"


class FakeGoogle(FaultyServer):
    """Start it with ``contract.servers.threaded``; ``objects`` holds (bytes, generation) by path."""

    def __init__(self):
        super().__init__(_answer)
        self.objects = {}
        self.lock = threading.Lock()


def _answer(it):
    google, path = it.server, unquote(urlsplit(it.path).path)
    if it.headers.get("Authorization") != f"Bearer {TOKEN}":
        it.reply(401, b"<Error><Code>AuthenticationRequired</Code></Error>")
    elif it.command == "PUT":
        with google.lock:
            _put(it, google.objects, path)
    elif path not in google.objects:
        it.reply(404)
    else:
        _get(it, *google.objects[path])


def _put(it, objects, path):
    now, wanted = objects.get(path, (b"", 0))[1], it.headers.get("x-goog-if-generation-match")
    if wanted is not None and int(wanted) != now:
        it.reply(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        return
    objects[path] = it.body, now + 1
    it.reply(200, **_about(*objects[path]))


def _get(it, data, generation):
    about, asked = _about(data, generation), it.headers.get("Range")
    if it.command == "HEAD":
        it.reply(200, content_length=str(len(data)), **about)
    elif asked is None:
        it.reply(200, data, **about)
    else:
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1]
        where = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        if part:
            it.reply(206, part, content_range=where, **about)
        else:
            it.reply(416)


def _about(data, generation):
    return {
        "etag": f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"',
        "last_modified": formatdate(usegmt=True),
        "x_goog_generation": str(generation),
    }
