"""Pulling over loopback beside tools that only copy, as a Markdown table.

    python benchmarks/transfer.py [--megabytes 1500] [--tensors 2000] [--rounds 3] [--work build/bench-transfer]

A model of random fp16 weights (normal, so that they compress as trained ones do) lies on a web server: nginx if it is
installed, else ``wszoo serve``. Every tool starts as a process of its own with an empty folder and fetches the same
blobs. wszoo also hashes each blob, syncs it to the disk, and decodes every tensor once; the others do none of that, but
where the table says so. Times are the best of the rounds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PULL = """
import sys
from pathlib import Path
from wszoo.api import surroundings
from wszoo.names import Ref
from wszoo.parallel import ordered_map
from wszoo.pull import pull
from wszoo.remotes.http import HttpType
from wszoo.store.store import Store
from wszoo.weights.packs import PackReader
store, url, ref, decode = sys.argv[1:]
made = Store(Path(store))
config = pull(made, HttpType().open(url), Ref.parse(ref), surroundings("none")).selection.model.config
if decode == "1":
    tensors = PackReader(made.blobs, config).component("net")
    for _ in ordered_map(lambda tensor: int(tensor.load()[::4096].sum()), tensors):
        pass
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
anon = next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1]
print(int(peak) >> 10, int(anon) >> 10)
"""

NGINX = """
worker_processes 2; pid {work}/nginx.pid; error_log {work}/error.log; daemon off; user root;
events {{ worker_connections 256; }}
http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {work}/t1; proxy_temp_path {work}/t2;
  fastcgi_temp_path {work}/t3; uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5;
  server {{ listen 127.0.0.1:{port}; root {root}; }} }}
"""


def publish(root: Path, megabytes: int, small: int) -> str:
    """Write the model into a store, unless it is there; the pinned ref."""
    import numpy as np

    from wszoo.names import Ref
    from wszoo.progress import Silent
    from wszoo.publish import publish as publish_index
    from wszoo.publish import write_model, write_plan
    from wszoo.schema.model import GRAPH, Component, Graph, ModelConfig
    from wszoo.schema.plan import Kind, PlanConfig, Target
    from wszoo.store.store import Store
    from wszoo.weights.packs import Packer, weights_digest
    from wszoo.weights.tensor import DTYPES, Tensor

    store, ref = Store(root), Ref.parse("bench:1")
    if (entry := store.refs.find(ref)) is None:
        rng = np.random.default_rng(0)
        shapes = [(64, 64)] * small + [(1024, 16384)] * ((megabytes * 1_000_000 - small * 8192) >> 25)

        def tensor(number: int, shape: tuple[int, int]) -> Tensor:
            seed = int(rng.integers(1 << 40))
            make = np.random.default_rng
            return Tensor(
                f"t{number}",
                DTYPES["float16"],
                shape,
                lambda: (
                    (make(seed).standard_normal(shape, np.float32) * 0.02).astype(np.float16).reshape(-1).view("u1")
                ),
            )

        packer = Packer(store.blobs, {})
        infos = packer.add([tensor(number, shape) for number, shape in enumerate(shapes)], Silent())
        proto = store.blobs.put(b"graph")
        component = Component(graph=Graph(digest=proto, size=5, layer=proto), inputs=(), outputs=(), tensors=infos)
        table = packer.table()
        config = ModelConfig(family="onnx", components={"net": component}, packs=table.packs, frames=table.frames)
        plan = PlanConfig(
            component="net",
            target=Target(name="portable", backend="onnxruntime"),
            kind=Kind.PORTABLE,
            engine_digest=proto,
            engine_bytes=5,
            graph=proto,
            weights=weights_digest(infos),
        )
        publish_index(store, ref, write_model(store, config), [write_plan(store, plan, [(GRAPH, proto)])])
        entry = store.refs.get(ref)
    return str(ref.pinned(entry.descriptor.digest))


@contextmanager
def serving(root: Path, work: Path) -> Iterator[tuple[str, str]]:
    """A web server: its URL and name."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx:
        (work / "nginx.conf").write_text(NGINX.format(work=work, port=port, root=root))
        words = [nginx, "-c", str(work / "nginx.conf")]
    else:
        words = [sys.executable, "-m", "wszoo", "serve", "--store", str(root), "--port", str(port)]
    server = subprocess.Popen(words)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", "nginx" if nginx else "wszoo serve"
    finally:
        server.terminate()
        server.wait()


def tools(root: Path, url: str, ref: str, work: Path) -> dict[str, Callable[[Path], list[str] | str]]:
    """Name -> what to run for an empty folder."""
    blobs = sorted(path for path in (root / "blobs" / "sha256").iterdir())
    listed = work / "urls.txt"
    listed.write_text("".join(f"{url}/blobs/sha256/{path.name}\n" for path in blobs))
    config = work / "curl.txt"
    config.write_text("".join(f'url = "{url}/blobs/sha256/{path.name}"\nremote-name\n' for path in blobs))

    def pull(decode: str) -> Callable[[Path], list[str] | str]:
        return lambda to: [sys.executable, "-c", PULL, str(to / "store"), url, ref, decode]

    found: dict[str, Callable[[Path], list[str] | str]] = {
        "wszoo pull, all tensors decoded": pull("1"),
        "wszoo pull": pull("0"),
        "curl": lambda _: ["curl", "-s", "-K", str(config)],
        "curl, then sha256sum and sync": lambda to: f"curl -s -K {config} && sha256sum * > /dev/null && sync -f {to}",
    }
    if shutil.which("aria2c"):
        aria = ["aria2c", "-q", "-x8", "-s8", "-j8", "--file-allocation=none", "-i", str(listed)]
        found["aria2c -x8"] = lambda _: aria
    return found


def measure(make: Callable[[Path], list[str] | str], work: Path) -> tuple[float, float, str]:
    """Wall time and processor time in seconds, and what the tool said last."""
    to = work / "to"
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir()
    subprocess.run(["sync"], check=True)
    before, began = os.times(), time.perf_counter()
    command = make(to)
    done = subprocess.run(command, cwd=to, shell=isinstance(command, str), check=True, capture_output=True, text=True)
    took, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    shutil.rmtree(to)
    return took, cpu, done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1500)
    parser.add_argument("--tensors", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("build/bench-transfer"))
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    root = work / f"origin-{options.megabytes}-{options.tensors}"
    ref = publish(root, options.megabytes, options.tensors)
    stored = sum(path.stat().st_size for path in (root / "blobs" / "sha256").iterdir())
    with serving(root, work) as (url, server):
        best: dict[str, tuple[float, float, str]] = {}
        for _ in range(options.rounds):  # in turn, so that a disturbance does not hit one tool alone
            for name, make in tools(root, url, ref, work).items():
                best[name] = min(best.get(name, (float("inf"), 0.0, "")), measure(make, work))
    print(f"{stored / 1e6:.0f} MB in {len(list((root / 'blobs' / 'sha256').iterdir()))} blobs ", end="")
    print(f"({options.megabytes} MB of fp16 weights, {options.tensors} small tensors) from {server}.\n")
    print("| tool | s | MB/s | CPU s/GB | peak memory MiB |\n|---|---|---|---|---|")
    for name, (took, cpu, said) in best.items():
        memory = said.split()[0] if said else ""
        print(f"| {name} | {took:.2f} | {stored / took / 1e6:.0f} | {cpu / stored * 1e9:.2f} | {memory} |")


if __name__ == "__main__":
    main()
