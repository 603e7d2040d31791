"""A fake: a registry that answers the referrers API. The real one that the tests can install does not have it."""

from __future__ import annotations

import http.server
import json
import re


class FakeReferrersRegistry(http.server.ThreadingHTTPServer):
    """Keeps manifests in memory by repository; ``asked`` lists the paths that were read.

    ``pages`` pages with another tool's referrers come before those that it keeps, each with a link to the next one,
    or to ``elsewhere``.
    """

    daemon_threads = True

    def __init__(self, *, tags=True):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.manifests, self.blobs, self.asked, self.tags = {}, {}, [], tags
        self.pages, self.elsewhere = 0, ""

    @property
    def location(self):
        return f"oci://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        known, (path, _, page) = self.server, self.path.partition("?")
        known.asked.append(path)
        if match := re.fullmatch(r"/v2/(.+)/referrers/(sha256:[0-9a-f]+)", path):
            page = int(page or 0)
            if page < known.pages:
                return self._answer(200, _listed([]), f'<{known.elsewhere or path}?{page + 1}>; rel="next"')
            return self._answer(200, self._referrers(*match.groups()))
        if match := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path):
            found = known.manifests.get(match.groups())
            return self._answer(200, found) if found else self._answer(404, b"{}")
        found = known.blobs.get(path.rsplit("/", 1)[-1])
        return self._answer(200, found) if found is not None else self._answer(404, b"{}")

    def _referrers(self, name, digest):
        from wszoo.digest import Digest

        found = []
        for (repository, key), data in self.server.manifests.items():
            document = json.loads(data)
            if repository == name and key.startswith("sha256:") and document.get("subject", {}).get("digest") == digest:
                kind = {"mediaType": document["mediaType"], "artifactType": document["artifactType"]}
                found.append({**kind, "digest": Digest.of(data), "size": len(data)})
        return _listed(found)

    def _answer(self, status, data, link=""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        if link:
            self.send_header("Link", link)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def _listed(manifests):
    media_type = "application/vnd.oci.image.index.v1+json"
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}).encode()
