"""Pulling, beside the tools that one would use otherwise, as Markdown tables.

    python benchmarks/transfer.py [--megabytes 2000] [--tensors 2000] [--rounds 3] [--work build/bench-transfer]

Loopback: a model of random fp16 weights lies on nginx, in Debian's docker-registry, and behind a simulator of the Hub's
API that redirects to that nginx. Every tool starts as a process of its own with an empty folder and fetches the same
blobs. wszoo also hashes each blob, syncs it to the disk, and, in the row that says so, hands out every tensor decoded
(``Zoo.stream``); the last row is curl with weights that need no decoding. The times are the best of the rounds, from
the start of the process: ``ready`` until the last tensor was there or the pull was over, ``s`` until the process
ended, everything synced.

Link: trained weights come through a proxy that lets 100 Mbit/s pass; curl fetches them as they are, not compressed.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from throttle import Throttle
from transfer_models import publish, random_model, trained_model
from transfer_tools import Measured, Places, measure, nginx, peers, pull_command, registry, simulated_hub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transfer_tools import Tool

LINK = 100e6 / 8  # bytes a second
OURS = "**wszoo stream, all tensors decoded**"
PLAIN = "curl, the weights as they are"


@contextmanager
def plain_weights(root: Path, size: int) -> Iterator[str]:
    """A file beside the blobs as large as the weights are; its name. What is in it makes no difference to curl."""
    path = root / "weights.bin"
    try:
        with path.open("wb") as file:
            while file.tell() < size:
                file.write(bytes(min(1 << 24, size - file.tell())))
        yield path.name
    finally:
        path.unlink(missing_ok=True)


def loopback(options: argparse.Namespace, work: Path) -> None:
    """The first table."""
    root = work / f"origin-{options.megabytes}-{options.tensors}"
    ref, raw = publish(root, random_model(options.megabytes, options.tensors))
    blobs = [path for path in (root / "blobs" / "sha256").iterdir() if path.name[0] != "."]
    stored = sum(path.stat().st_size for path in blobs)
    with ExitStack() as stack:
        url = stack.enter_context(nginx(root, work))
        plain = stack.enter_context(plain_weights(root, raw))
        places = Places(
            root=root,
            url=url,
            registry=stack.enter_context(registry(root, work, ref)),
            hub=stack.enter_context(simulated_hub(root, url)),
        )
        tools: dict[str, Tool] = {
            OURS: pull_command(url, ref, decode=True),
            "wszoo pull": pull_command(url, ref, decode=False),
            **peers(places, work),
            PLAIN: lambda _: ["curl", "-s", "-O", f"{url}/{plain}"],
        }
        sizes = dict.fromkeys(tools, stored) | {PLAIN: raw}
        found: dict[str, list[Measured]] = {name: [] for name in tools}
        for _ in range(options.rounds):  # in turn, so that a disturbance does not hit one tool alone
            for name, tool in tools.items():
                found[name].append(measure(tool, work, sizes[name]))
    print(f"{stored / 1e6:.0f} MB in {len(blobs)} blobs: {raw / 1e6:.0f} MB of fp16 weights, ", end="")
    print(f"{options.tensors} small tensors; loopback; best of {options.rounds}.\n")
    first, *others = found.items()
    fastest = min(min(each.seconds for each in runs) for name, runs in others if name not in {"wszoo pull", PLAIN})
    print("| tool | ready s | of the fastest peer | s | MB/s | CPU s/GB | anonymous MiB | resident MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, runs in (first, *others):
        seconds, ready = (min(each[at] for each in runs) for at in (0, 4))
        cpu = min(each.cpu for each in runs) / sizes[name] * 1e9
        memory = [f"{max(each[at] for each in runs) >> 20}" for at in (2, 3)]
        times = [f"{ready:.2f}", f"{ready / fastest:.2f}", f"{seconds:.2f}", f"{sizes[name] / ready / 1e6:.0f}"]
        print("|", " | ".join([name, *times, f"{cpu:.2f}", *memory]), "|")


def link(options: argparse.Namespace, work: Path) -> None:
    """The second table."""
    print(f"\nA link of {LINK * 8 / 1e6:.0f} Mbit/s, {options.link_megabytes} MB of trained weights; one round.\n")
    print("| weights | MB | MB sent | wszoo stream: all decoded s | all stored s | curl, plain s | faster by |")
    print("|---|---|---|---|---|---|---|")
    for dtype in ("float16", "bfloat16"):
        root = work / f"trained-{dtype}-{options.link_megabytes}"
        ref, raw = publish(root, trained_model(dtype, options.link_megabytes))
        stored = sum(path.stat().st_size for path in (root / "blobs" / "sha256").iterdir())
        with ExitStack() as stack:
            plain, url = (stack.enter_context(each) for each in (plain_weights(root, raw), nginx(root, work)))
            slow = stack.enter_context(Throttle(("127.0.0.1", int(url.rpartition(":")[2])), LINK).running())
            there = f"http://127.0.0.1:{slow.port}"
            ours = measure(pull_command(there, ref, decode=True), work, stored)
            command = ["curl", "-s", "-O", f"{there}/{plain}"]
            theirs = measure(lambda _: command, work, raw)  # noqa: B023 - called at once
        times = [f"{seconds:.2f}" for seconds in (ours.ready, ours.seconds, theirs.seconds)]
        gain = f"{1 - ours.seconds / theirs.seconds:.1%}"
        print("|", " | ".join([dtype, f"{raw / 1e6:.0f}", f"{stored / 1e6:.0f}", *times, gain]), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--tensors", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--link-megabytes", type=int, default=1000)
    parser.add_argument("--only", choices=["loopback", "link"])
    parser.add_argument("--work", type=Path, default=Path("build/bench-transfer"))
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if options.only != "link":
        loopback(options, work)
    if options.only != "loopback":
        link(options, work)


if __name__ == "__main__":
    main()
