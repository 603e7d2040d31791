"""Web servers keep the contract of remotes: ours, nginx, and Python's own, which knows no ranges."""

from __future__ import annotations

import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from contract.servers import free_port, process, program, serving, threaded

from wszoo.remotes.http import HttpType
from wszoo.testing.remotes import ReadContract


class TestServe(ReadContract):
    @pytest.fixture
    def remote(self, zoo):
        with serving(zoo) as server:
            yield HttpType().open(server.url)


class TestServerWithoutRanges(ReadContract):
    @pytest.fixture
    def remote(self, zoo):
        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        handler = functools.partial(Quiet, directory=str(zoo.layout.root))
        with threaded(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
            yield HttpType().open(f"http://127.0.0.1:{server.server_address[1]}/")


NGINX = """\
daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;
events {{}}
http {{
  access_log off; default_type application/octet-stream;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  server {{ listen 127.0.0.1:{port}; location /zoo/ {{ alias {root}/; }} }}
}}
"""


class TestNginx(ReadContract):
    @pytest.fixture
    def remote(self, zoo, tmp_path):
        nginx, port = program("nginx", "apt-get install nginx-light"), free_port()
        tmp_path.chmod(0o755)
        config = tmp_path / "nginx.conf"
        config.write_text(NGINX.format(folder=tmp_path, port=port, root=zoo.layout.root))
        words = [nginx, "-e", "stderr", "-c", str(config), "-g", "user root;" if _is_root() else ""]
        url = f"http://127.0.0.1:{port}/zoo"
        with process(words, f"{url}/oci-layout", log=tmp_path / "log"):
            yield HttpType().open(url)


def _is_root():
    import os

    return hasattr(os, "geteuid") and os.geteuid() == 0
