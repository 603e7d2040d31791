"""Time to resolve over an index of 1,000 plans: from descriptors' annotations to a choice for every component."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from typing import TYPE_CHECKING

from wszoo.digest import Digest
from wszoo.gpu.machine import Gpu, Machine, Runtime
from wszoo.gpu.request import GpuRequest
from wszoo.resolver import Candidate, resolve
from wszoo.schema.facts import PlanFacts, from_annotations, to_annotations
from wszoo.schema.oci import Descriptor
from wszoo.schema.plan import Kind, Target

if TYPE_CHECKING:
    from collections.abc import Callable

PLANS = 1000
ROUNDS = 30
TARGET_MS = 20
COMPONENTS = ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder")
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


def descriptors() -> list[Descriptor]:
    """An index's worth of plans: five components, for many TensorRT-RTX releases and compute capabilities."""
    made = []
    for number, (patch, capability, component) in enumerate(
        itertools.product(range(1 + PLANS // 30), CAPABILITIES, COMPONENTS)
    ):
        portable = number < len(COMPONENTS)
        target = Target(
            name="portable" if portable else f"rtx-sm{capability.replace('.', '')}",
            backend="onnxruntime" if portable else "tensorrt_rtx",
            version="" if portable else f"1.7.{patch}.116",
            compute_capabilities=() if portable else (capability,),
        )
        facts = PlanFacts(
            component=component,
            kind=Kind.PORTABLE if portable else Kind.SPLICE,
            target=target,
            profiles=("default",),
            engine_digest=Digest.of(b"engine %d" % number),
            plan_digest=Digest.of(b"layer %d" % number),
            engine_bytes=1 << 30,
            plan_bytes=50_000 + number,
        )
        digest = Digest.of(b"plan %d" % number)
        annotations = to_annotations(facts)
        made.append(
            Descriptor(
                media_type="application/vnd.oci.image.manifest.v1+json",
                digest=digest,
                size=900,
                annotations=annotations,
            )
        )
    return made[:PLANS]


def candidates(index: list[Descriptor]) -> list[Candidate]:
    """What the resolver takes, decoded from the annotations."""
    return [
        Candidate(digest=descriptor.digest, facts=facts)
        for descriptor in index
        if (facts := from_annotations(descriptor)) is not None
    ]


def milliseconds(work: Callable[[], object]) -> float:
    """Median of several runs."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def main() -> None:
    """Print one row of a markdown table."""
    index = descriptors()
    plans = candidates(index)
    gpu = Gpu(name="NVIDIA GeForce RTX 4090", compute_capability="8.9", memory_bytes=24 << 30)
    machine = Machine(os="linux", arch="x86_64", gpus=(gpu,))
    runtimes = [
        Runtime(backend="tensorrt_rtx", version="1.7.1.116", devices=("cuda",)),
        Runtime(backend="onnxruntime", version="1.22.0", devices=("cpu",)),
    ]
    raw = [json.dumps(descriptor.annotations) for descriptor in index]
    pure = milliseconds(lambda: resolve(plans, machine, runtimes, GpuRequest()))
    whole = milliseconds(lambda: resolve(candidates(index), machine, runtimes, GpuRequest()))
    peer = milliseconds(lambda: [json.loads(json.loads(text)["org.wszoo.plan"]) for text in raw])
    print("| what | reach | measured | resolving alone | json.loads of the same annotations |")
    print("|---|---|---|---|---|")
    print(f"| resolve over {len(plans)} plans | < {TARGET_MS} ms | {whole:.1f} ms | {pure:.1f} ms | {peer:.1f} ms |")


if __name__ == "__main__":
    main()
