"""A web server that misbehaves as told; for clients of HTTP."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FaultyServer(ThreadingHTTPServer):
    """Answers each request by ``answer(handler)``; ``seen`` holds (method, path, headers)."""

    daemon_threads = True

    def __init__(self, answer):
        self.answer, self.seen = answer, []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_):
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _any(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        self.server.answer(self)

    def reply(self, status=200, body=b"", **headers):
        """Send a response; ``content_length=None`` leaves the header out and closes."""
        self.send_response(status)
        headers = {"content_length": str(len(body)), **headers}
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-").title(), value)
        if headers["content_length"] is None:
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


for _method in ("GET", "HEAD", "PUT", "POST", "PATCH"):
    setattr(_Handler, f"do_{_method}", _Handler._any)
