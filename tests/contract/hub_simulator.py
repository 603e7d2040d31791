"""A simulator of the part of the Hugging Face Hub's HTTP API that pushing and pulling use.

It is no Hub: one repository with one branch, LFS instead of Xet, all in memory. What it answers follows what
huggingface_hub 2.4 asks for and reads; the real Hub has not been pushed to by these tests.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from urllib.parse import parse_qs, unquote, urlsplit

from unit.remotes.faulty import FaultyServer

TOKEN = "hf_simulated"
REPO = "acme/zoo"
SMALL = 1 << 16  # bytes up to which a file goes into the commit itself


class HubSimulator(FaultyServer):
    """Start it with ``contract.servers.threaded``.

    Attributes:
        commits: path -> bytes, by number.
        elsewhere: path -> (size, sha256 in hexadecimal, URL) of files that lie on another server, in every commit.
    """

    def __init__(self):
        super().__init__(_answer)
        self.commits = [{}]
        self.elsewhere = {}
        self.uploaded = {}
        self.lock = threading.Lock()

    @staticmethod
    def sha(number):
        return f"{number:040x}"


def _answer(it):
    hub, url = it.server, urlsplit(it.path)
    path = url.path
    if path.startswith("/cdn/"):  # where redirects and uploads go, without a token
        _cdn(it, hub, path.removeprefix("/cdn/"))
    elif it.headers.get("Authorization") != f"Bearer {TOKEN}":
        _json(it, {"error": "Invalid credentials"}, 401)
    elif path.startswith(f"/{REPO}/resolve/"):
        _resolve(it, hub, *path.removeprefix(f"/{REPO}/resolve/").split("/", 1))
    elif path == f"/{REPO}.git/info/lfs/objects/batch":
        _batch(it, hub)
    elif path.startswith(f"/api/models/{REPO}"):
        _api(it, hub, path.removeprefix(f"/api/models/{REPO}").strip("/").split("/")[0], url)
    else:
        it.reply(404, b'{"error": "Repository not found"}', x_error_code="RepoNotFound")


def _json(it, value, status=200, **headers):
    it.reply(status, json.dumps(value).encode(), content_type="application/json", **headers)


def _number(hub, revision):
    return len(hub.commits) - 1 if revision == "main" else int(revision, 16)


def _resolve(it, hub, revision, path):
    data = hub.commits[_number(hub, revision)].get(unquote(path))
    if path in hub.elsewhere:
        size, oid, url = hub.elsewhere[path]
        facts = {"x_linked_etag": f'"{oid}"', "x_linked_size": str(size), "x_repo_commit": hub.sha(0)}
        it.reply(302, location=url, **facts)
    elif data is None:
        it.reply(404, b"Entry not found", x_error_code="EntryNotFound")
    elif it.command == "HEAD":
        facts = {"etag": f'"{hashlib.sha256(data).hexdigest()}"', "x_repo_commit": hub.sha(_number(hub, revision))}
        it.reply(200, content_length=str(len(data)), **facts)
    elif len(data) > SMALL:
        it.reply(302, location=f"{_elsewhere(it)}/cdn/{hashlib.sha256(data).hexdigest()}")
    else:
        _send(it, data)


def _elsewhere(it):
    """The same server by another name: to a client another host, which gets no token."""
    return it.server.url.replace("127.0.0.1", "localhost")


def _send(it, data):
    asked = it.headers.get("Range")
    if asked is None:
        it.reply(200, data)
        return
    first, last = (int(each) for each in asked.removeprefix("bytes=").split("-"))
    it.reply(206, data[first : last + 1], content_range=f"bytes {first}-{last}/{len(data)}")


def _cdn(it, hub, oid):
    if it.command == "PUT":
        assert hashlib.sha256(it.body).hexdigest() == oid
        hub.uploaded[oid] = it.body
        it.reply(200)
    else:
        _send(it, hub.uploaded[oid])


def _batch(it, hub):
    objects = []
    for each in json.loads(it.body)["objects"]:
        upload = {"actions": {"upload": {"href": f"{hub.url}/cdn/{each['oid']}", "header": {}}}}
        objects.append({**each, **({} if each["oid"] in hub.uploaded else upload)})
    _json(it, {"transfer": "basic", "objects": objects})


def _api(it, hub, verb, url):
    if verb in {"", "revision"}:
        files = [{"rfilename": path} for path in (*hub.commits[-1], *hub.elsewhere)]
        _json(it, {"_id": "0", "id": REPO, "sha": hub.sha(len(hub.commits) - 1), "siblings": files, "tags": []})
    elif verb == "tree":
        files = hub.commits[_number(hub, url.path.split("/tree/")[1].split("/")[0])]
        there = [
            {
                "type": "file",
                "oid": "0",
                "path": path,
                "size": size,
                "lfs": {"oid": oid, "size": size, "pointerSize": 0},
            }
            for path, (size, oid, _) in hub.elsewhere.items()
        ]
        _json(it, [_entry(path, data) for path, data in files.items()] + there)
    elif verb == "paths-info":
        text = it.body.decode()
        paths = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
        files = hub.commits[-1]
        _json(
            it,
            [{"type": "file", "oid": "0", "path": path, "size": len(files[path])} for path in paths if path in files],
        )
    elif verb == "preupload":
        asked = json.loads(it.body)["files"]
        modes = {each["path"]: "lfs" if each["size"] > SMALL else "regular" for each in asked}
        _json(
            it,
            {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]},
        )
    elif verb == "commit":
        _commit(it, hub)
    else:
        it.reply(404)


def _entry(path, data):
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


def _commit(it, hub):
    lines = [json.loads(line) for line in it.body.splitlines()]
    parent = next(each["value"] for each in lines if each["key"] == "header").get("parentCommit")
    with hub.lock:
        if parent is not None and parent != hub.sha(len(hub.commits) - 1):
            _json(it, {"error": "The branch has moved"}, 412)
            return
        files = dict(hub.commits[-1])
        for each in lines:
            value = each["value"]
            if each["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif each["key"] == "lfsFile":
                files[value["path"]] = hub.uploaded[value["oid"]]
        hub.commits.append(files)
        sha = hub.sha(len(hub.commits) - 1)
    _json(it, {"success": True, "commitOid": sha, "commitUrl": f"{hub.url}/{REPO}/commit/{sha}"})
