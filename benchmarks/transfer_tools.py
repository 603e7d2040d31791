"""What transfers are measured with: servers, the tools, and a clock that also watches memory."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Command = list[str] | str
    Tool = Callable[[Path], Command]

PULL = """
import sys, time, wszoo
store, url, ref, decode = sys.argv[1:]
zoo = wszoo.Zoo(store)
if decode == "1":
    for tensor in zoo.stream(ref, gpu="none", source=url):
        tensor.array.reshape(-1).view("u1")[::4096].sum()  # what is mapped is read now
        ready = time.time()
else:
    zoo.pull(ref, gpu="none", source=url)
    ready = time.time()
print(ready)
"""

SNAPSHOT = """
from huggingface_hub import snapshot_download
snapshot_download("acme/zoo", local_dir="here")
"""

NGINX = """
worker_processes auto; pid {work}/nginx.pid; error_log {work}/error.log; daemon off; user root;
events {{ worker_connections 256; }}
http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {work}/t1; proxy_temp_path {work}/t2;
  fastcgi_temp_path {work}/t3; uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5;
  server {{ listen 127.0.0.1:{port}; root {root}; }} }}
"""

REGISTRY = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


class Measured(NamedTuple):
    """One run.

    Attributes:
        seconds: wall time.
        cpu: processor time in seconds, the servers' not among it.
        anonymous: peak of anonymous memory in bytes, looked at 100 times a second.
        resident: peak of all resident memory in bytes, with the pages of mapped files, which the system may drop.
        ready: wall time until ours had handed out the last tensor, or had pulled; the same as ``seconds`` for others.
    """

    seconds: float
    cpu: float
    anonymous: int
    resident: int
    ready: float


@dataclass(frozen=True)
class Places:
    """Where the model lies.

    Attributes:
        root: the store.
        url: of nginx.
        registry: host and port.
        hub: URL of the simulator.
    """

    root: Path
    url: str
    registry: str
    hub: str


def pull_command(url: str, ref: str, *, decode: bool) -> Tool:
    """Our own pull; with ``decode``, a stream of which every tensor is read once."""
    return lambda to: [sys.executable, "-c", PULL, str(to / "store"), url, ref, str(int(decode))]


def peers(places: Places, work: Path) -> dict[str, Tool]:
    """Name -> what to run for an empty folder; those that are installed."""
    urls = [f"{places.url}/blobs/sha256/{path.name}" for path in sorted((places.root / "blobs" / "sha256").iterdir())]
    (work / "urls.txt").write_text("".join(f"{url}\n" for url in urls))
    (work / "curl.txt").write_text("".join(f'url = "{url}"\nremote-name\n' for url in urls))
    curl = f"curl -s -K {work / 'curl.txt'}"
    aria = ["aria2c", "-q", "-x8", "-s8", "-j8", "--file-allocation=none", "-i", str(work / "urls.txt")]
    skopeo = ["skopeo", "--insecure-policy", "--override-os", "linux", "copy", "-q", "--all", "--src-tls-verify=false"]
    hub = ["env", f"HF_ENDPOINT={places.hub}", "HF_TOKEN=hf_simulated", "HF_HUB_DISABLE_XET=1", "HF_HOME=home"]
    hub += ["HF_HUB_DISABLE_PROGRESS_BARS=1", sys.executable, "-c", SNAPSHOT]
    found: dict[str, Tool] = {
        "curl": lambda _: curl.split(),
        "curl, then sha256sum and sync": lambda to: f"{curl} && sha256sum * > /dev/null && sync -f {to}",
        "aria2c -x8": lambda _: aria,
        "skopeo copy, from docker-registry": lambda _: [*skopeo, f"docker://{places.registry}/zoo/bench:1", "oci:to:1"],
        "huggingface_hub, simulated Hub": lambda _: hub,
    }
    if not places.registry or not shutil.which("skopeo"):
        del found["skopeo copy, from docker-registry"]
    if not shutil.which("aria2c"):
        del found["aria2c -x8"]
    return found


def measure(tool: Tool, work: Path, expected: int) -> Measured:
    """Run a tool in an empty folder, where it must leave at least ``expected`` bytes."""
    to = work / "to"
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    subprocess.run(["sync"], check=True)
    command, peaks, over = tool(to), [0, 0], threading.Event()
    before, began = os.times(), time.time()
    with subprocess.Popen(
        command, cwd=to, shell=isinstance(command, str), stdout=subprocess.PIPE, text=True
    ) as process:
        watcher = threading.Thread(target=_watch, args=(process.pid, peaks, over))
        watcher.start()
        said, _ = process.communicate()
        code, took, after = process.returncode, time.time() - began, os.times()
        over.set()
        watcher.join()
    left = sum(path.stat().st_size for path in to.rglob("*") if path.is_file())
    if code or left < expected:
        raise SystemExit(f"{command} ended with {code} and {left} of {expected} bytes")
    shutil.rmtree(to)
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    ours = isinstance(command, list) and PULL in command
    return Measured(took, cpu, *peaks, float(said) - began if ours else took)


def _watch(pid: int, peaks: list[int], over: threading.Event) -> None:
    """Look at a process's memory 100 times a second."""
    while not over.wait(0.01):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            found = dict(line.split(":", 1) for line in lines if line.startswith(("RssAnon", "VmHWM")))
            for at, name in enumerate(("RssAnon", "VmHWM")):
                peaks[at] = max(peaks[at], int(found.get(name, "0 kB").split()[0]) << 10)


@contextmanager
def nginx(root: Path, work: Path) -> Iterator[str]:
    """A web server; its URL."""
    port = _free_port()
    (work / "nginx.conf").write_text(NGINX.format(work=work, port=port, root=root))
    binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
    with _server([binary, "-c", str(work / "nginx.conf")], port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def registry(root: Path, work: Path, ref: str) -> Iterator[str]:
    """A registry with the model in it: host and port; empty where none is installed."""
    if shutil.which("docker-registry") is None:
        yield ""
        return
    port, config = _free_port(), work / "registry.yml"
    config.write_text(REGISTRY.format(root=work / "registry", port=port))
    with _server(["docker-registry", "serve", str(config)], port):
        words = [sys.executable, "-m", "wszoo", "push", ref, f"oci://127.0.0.1:{port}/zoo", "--store", str(root)]
        subprocess.run([*words, "--quiet"], check=True, capture_output=True)
        yield f"127.0.0.1:{port}"


@contextmanager
def simulated_hub(root: Path, url: str) -> Iterator[str]:
    """The tests' simulator of the Hub's API; files come from the web server, as the Hub's come from elsewhere too."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from contract.hub_simulator import HubSimulator
    from contract.servers import threaded

    with threaded(HubSimulator()) as hub:
        for path in sorted((root / "blobs" / "sha256").iterdir()):
            where = f"blobs/sha256/{path.name[:2]}/{path.name}"
            hub.elsewhere[where] = (path.stat().st_size, path.name, f"{url}/blobs/sha256/{path.name}")
        yield hub.url


@contextmanager
def _server(words: list[str], port: int) -> Iterator[None]:
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
