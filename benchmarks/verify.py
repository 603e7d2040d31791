"""``wszoo verify`` against ``xargs -P sha256sum`` over the same files with as many cores, as a markdown table."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wszoo.parallel import cores
from wszoo.store.store import Store

ROUNDS = 5
SIZES = {"packs of 48 MB": (48_000_000, 40), "100 kB each": (100_000, 4000)}


def fill(store: Store, size: int, count: int) -> None:
    """A store of random blobs."""
    data = bytearray(os.urandom(size))
    for number in range(count):
        data[:8] = number.to_bytes(8, "little")
        store.blobs.put(data)


def seconds(words: list[str], **options: object) -> float:
    """How long a command takes."""
    start = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    return time.perf_counter() - start


def measure(root: Path) -> tuple[float, float, float, float]:
    """The best of some rounds, taken in turn: wszoo's command, the same without Python's start, sha256sum, openssl."""
    blobs = root / "blobs" / "sha256"
    names = "\0".join(path.name for path in blobs.iterdir()).encode()
    own = [sys.executable, "-m", "wszoo", "verify", "--fresh", "--quiet", "--store", str(root)]
    alone = (
        "import sys, time; from pathlib import Path; from wszoo.store.store import Store; "
        "from wszoo.store.verify import verify; s = Store(Path(sys.argv[1])); t = time.perf_counter(); "
        "assert not verify(s).problems; print(time.perf_counter() - t)"
    )
    peer = ["xargs", "-0", "-P", str(cores()), "-n", "8", "sha256sum"]
    openssl = [*peer[:-1], "openssl", "dgst", "-sha256"]
    times: list[list[float]] = [[], [], [], []]
    for _ in range(ROUNDS):
        times[0].append(seconds(own))
        done = subprocess.run([sys.executable, "-c", alone, str(root)], check=True, capture_output=True, text=True)
        times[1].append(float(done.stdout))
        times[2].append(seconds(peer, input=names, cwd=blobs))
        times[3].append(seconds(openssl, input=names, cwd=blobs))
    whole, hashing, other, best = map(min, times)
    return whole, hashing, other, best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", default=None, help="folder for the stores; deleted afterwards")
    work = parser.parse_args().work
    if work:
        Path(work).mkdir(parents=True, exist_ok=True)
    peer = f"xargs -P{cores()} sha256sum"
    print(f"| store | MB | wszoo verify MB/s | without Python's start | {peer} | ratio | reach | openssl |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (size, count) in SIZES.items():
        with tempfile.TemporaryDirectory(dir=work) as folder:
            fill(Store(Path(folder)), size, count)
            total = size * count / 1e6
            rates = [total / each for each in measure(Path(folder))]
        whole, hashing, other, openssl = (f"{rate:.0f}" for rate in rates)
        ratio = f"{rates[0] / rates[2]:.2f}"
        print(f"| {name} | {total:.0f} | {whole} | {hashing} | {other} | {ratio} | 0.90 | {openssl} |")


if __name__ == "__main__":
    main()
