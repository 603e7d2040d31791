"""Language models at full size, with seeded weights: what a zoo ships for them, as a Markdown table.

    python benchmarks/llm.py [--work build/bench-llm] [--models phi-2:fp16,gemma-2b:int4] [--profile c2048-one]

One model after the other, each step in a process of its own: the weights are drawn and written as shards; `wszoo build`
exports, quantizes, compares some layers with transformers, and builds; `wszoo pull` fetches it into an empty store and
assembles the plan for one GPU; then putting the plan together is timed against `cp`, in turns. No GPU and no network
are needed, nor this repository: the installed packages will do. Sizes do not depend on the weights' values.

TensorRT-RTX's builder takes about 3.3 times the plan in memory: a model that would not fit is left out and named.
Rows are printed to stderr as soon as they are known, and the tables in the end. A model that fails does not stop the
next. What has been measured stays under --work, and a later run prints it again. Files go as soon as nothing needs
them: the peak is about four times the plan, and the checkpoint where a later precision shares it and there is room.

Memory is the peak of anonymous pages: mapped files, which the system may drop, do not count. The export's rate is the
checkpoint's bytes over the seconds from looking at the network to quantized weights: checking every number, tracing,
converting, quantizing and writing. Comparing with transformers and packing into the store are not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_model import CONFIGS, INDEX, write_checkpoint
from measure import Memory, Stages, against_cp, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TARGETS = "rtx-sm89,rtx-sm86"
PULLED = "sm89"
BUILDER_FACTOR = 3.3  # memory of TensorRT-RTX's builder over the plan
ROOM = 4.2  # times the plan on the disk after building: the client's packs, the plan, raw weights, the plan again
MODELS = "gemma-2b:int4,gemma-2b:int8,gemma-2b:fp16,phi-2:int4,phi-2:fp16,llama2-7b:int4"
# Of the published full and stripped sizes (MB, classic TensorRT plans with compiled kernels, not compressed) those that
# could be had. TensorRT-RTX compiles its kernels on the client. TensorRT-LLM's own page (its repository,
# examples/sample_weight_stripping/README.md) has others of the same networks: llama-7b int4 (AWQ) 3.7 GB -> 5.3 MB,
# llama-7b int8 6.54 GB -> 28.69 MB, llama2-70b fp8 on two GPUs 64.78 GB -> 60.61 MB.
PUBLISHED = {
    "llama2-7b:fp16": (12856, 4.04),
    "llama2-7b:int8": (6684, 41.54),
    "llama2-7b:int4": (3691, 5.41),
}
REACH = {"fp16": 0.003, "bf16": 0.003, "int8": 0.01, "int4": 0.02}
HEADER = (
    "model | weights MB | engine MB | shipped KB | % of engine | reach % | next target KB | encode s | apply s | cp s "
    "| ratio | NVIDIA: full -> stripped MB"
)
MORE = (
    "model | checkpoint MB | check, export, quantize s | MB/s | compare s | before building GiB | build s "
    "| build GiB | logits off by quantizing | pull + assemble s"
)


# ---- steps, each in a process of its own --------------------------------------------------------------------------


def make(work: Path, model: str, _profile: str) -> dict[str, Any]:
    """The model's folder in fp16, written shard by shard."""
    parameters = write_checkpoint(source_of(work, model), *CONFIGS[model.partition(":")[0]])
    return {"parameters": parameters}


def build(work: Path, model: str, profile: str) -> dict[str, Any]:
    import wszoo
    from wszoo.describe import show

    precision = model.partition(":")[2]
    stages = Stages()
    zoo = wszoo.Zoo(work / "zoo", progress=stages)
    report = zoo.build(
        "llm", source_of(work, model), tag="llm:1", targets=TARGETS.split(","), profiles=[profile], precision=precision
    )
    view = show(zoo.store, report.ref)
    plans = [
        {"target": plan.target, "engine": plan.engine_bytes, "shipped": plan.plan_bytes, "shared": plan.shared_bytes}
        for plan in view.plans
    ]
    return {
        "plans": plans,
        "weights": view.weight_bytes,
        "stored": view.weight_stored_bytes,
        "options": dict(view.options),
        "checkpoint": sum(path.stat().st_size for path in source_of(work, model).glob("*.safetensors")),
        "stages": stages.found,
    }


def pull(work: Path, _model: str, _profile: str) -> dict[str, Any]:
    import wszoo

    start = time.perf_counter()
    with Memory() as memory:
        model = wszoo.Zoo(work / "client").pull("llm:1", gpu=PULLED, source=str(work / "zoo"))
        engine = model["model"].assemble()
    return {"seconds": time.perf_counter() - start, "engine": str(engine), **memory.report()}


def apply(work: Path, _model: str, _profile: str) -> dict[str, Any]:
    """Putting the plan together from raw weights, and `cp` of the same file on the same disk; best of three each."""
    import wszoo

    zoo = wszoo.Zoo(work / "client")
    part = zoo.pull("llm:1", gpu=PULLED)["model"]
    return against_cp(zoo.store, part, work, keep_store=False)


def source_of(work: Path, model: str) -> Path:
    """The checkpoint, which the precisions of a model share."""
    return work.parent / f"{model.partition(':')[0]}-source"


STEPS = {"make": make, "build": build, "pull": pull, "apply": apply}


# ---- the table ----------------------------------------------------------------------------------------------------


def measure(model: str, options: argparse.Namespace, *, shared: bool) -> dict[str, Any]:
    """All steps of a model; ``shared`` when a later one takes the same checkpoint."""
    work = options.work.resolve()
    result = work / f"{model.replace(':', '-')}.json"
    if result.exists():
        return json.loads(result.read_text())
    folder = work / model.replace(":", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found: dict[str, Any] = {}
    for step in STEPS:
        if step == "make" and (source_of(folder, model) / INDEX).is_file():
            continue
        begun = time.perf_counter()
        answer = run(step, folder, model, options.profile)
        say(f"{model}: {step} took {time.perf_counter() - begun:.0f} s")
        if answer is None:
            found["failed"] = step
            break
        found[step] = answer
        if step == "build":
            announce(model, found)
            if not shared or shutil.disk_usage(work).free < ROOM * found["build"]["plans"][0]["engine"]:
                shutil.rmtree(source_of(folder, model), ignore_errors=True)
        if step == "pull":
            shutil.rmtree(folder / "zoo")
    if "failed" not in found:
        result.write_text(json.dumps(found))
    shutil.rmtree(folder)
    announce(model, found)
    return found


def run(step: str, folder: Path, model: str, profile: str) -> dict[str, Any] | None:
    command = [sys.executable, __file__, "--step", step, str(folder), model, profile]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        say(f"{model}: the step '{step}' failed with {done.returncode}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def announce(model: str, found: Mapping[str, Any]) -> None:
    if "build" in found:
        say(table(HEADER, [row(model, found)]) + "\n\n" + table(MORE, [more(model, found)]))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def row(model: str, found: dict[str, Any]) -> str:
    plans = {plan["target"]: plan for plan in found["build"]["plans"]}
    first, *others = (plans[name] for name in TARGETS.split(","))
    percent = 100 * first["shipped"] / first["engine"]
    seconds = {label: each["seconds"] for label, each in found["build"]["stages"].items()}
    encode = next((value for label, value in seconds.items() if label.startswith("splice")), float("nan"))
    applied = found.get("apply", {"seconds": float("nan"), "cp": float("nan")})
    full, stripped = PUBLISHED.get(model, (None, None))
    cells = [
        model,
        f"{found['build']['weights'] / 1e6:.0f}",
        f"{first['engine'] / 1e6:.0f}",
        f"{first['shipped'] / 1e3:.1f}",
        f"{percent:.4f}",
        f"{REACH[model.partition(':')[2]]}",
        ", ".join(f"{(plan['shipped'] - plan['shared']) / 1e3:.1f}" for plan in others),
        f"{encode:.1f}",
        f"{applied['seconds']:.1f}",
        f"{applied['cp']:.1f}",
        f"{applied['seconds'] / applied['cp']:.2f}",
        f"{full} -> {stripped}" if full else "-",
    ]
    return "| " + " | ".join(cells) + " |"


def more(model: str, found: dict[str, Any]) -> str:
    stages = found["build"]["stages"]
    seconds = {label: each["seconds"] for label, each in stages.items()}
    peak = {label: each["anonymous"] / 1024 for label, each in stages.items()}
    parts = ("look at the network", "check weights", "export", "quantize")
    exported = sum(value for label, value in seconds.items() if label.startswith(parts))
    builds = [value for label, value in seconds.items() if label.startswith("build ")]
    before = [value for label, value in peak.items() if label.startswith((*parts, "compare"))]
    checkpoint = found["build"]["checkpoint"]
    cells = [
        model,
        f"{checkpoint / 1e6:.0f}",
        f"{exported:.0f}",
        f"{checkpoint / 1e6 / exported:.0f}",
        f"{sum(value for label, value in seconds.items() if label.startswith('compare')):.0f}",
        f"{max(before):.1f}",
        f"{builds[0]:.0f}" if builds else "-",
        f"{max(peak.values()):.1f}",
        found["build"]["options"].get("error.logits", "-").split()[0],
        f"{found['pull']['seconds']:.0f}" if "pull" in found else "-",
    ]
    return "| " + " | ".join(cells) + " |"


def memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def estimate(model: str) -> float:
    """Bytes that building takes: parameters times bytes each, embeddings in fp16, times the builder's factor."""
    name, precision = model.split(":")
    numbers = CONFIGS[name][1]
    width, inner, layers = numbers["hidden_size"], numbers["intermediate_size"], numbers["num_hidden_layers"]
    gates = 2 if name == "phi-2" else 3
    inside = layers * (4 * width * width + gates * width * inner)
    words = numbers["vocab_size"] * width * (1 if name.startswith("gemma") else 2)
    each = {"int4": 0.52, "int8": 1.0}.get(precision, 2.0)
    return BUILDER_FACTOR * (inside * each + words * 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/bench-llm"), help="where numbers are kept")
    parser.add_argument("--models", default=MODELS, help=f"NAME:PRECISION, with commas between; {', '.join(CONFIGS)}")
    parser.add_argument("--profile", default="c2048-one", help="see docs/llm.md")
    parser.add_argument("--anyway", action="store_true", help="also build what would not fit into memory")
    parser.add_argument("--step", nargs=4, metavar=("STEP", "FOLDER", "MODEL", "PROFILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, folder, model, profile = options.step
        print(json.dumps(STEPS[step](Path(folder), model, profile)))
        return
    options.work.mkdir(parents=True, exist_ok=True)
    wanted = options.models.split(",")
    measured = {}
    for number, model in enumerate(wanted):
        if estimate(model) <= memory_bytes() or options.anyway:
            name = model.partition(":")[0]
            later = any(other.startswith(f"{name}:") for other in wanted[number + 1 :])
            measured[model] = measure(model, options, shared=later)
    print_tables(wanted, measured)


def print_tables(wanted: Sequence[str], measured: Mapping[str, dict[str, Any]]) -> None:
    done = {model: found for model, found in measured.items() if "build" in found}
    print(table(HEADER, [row(model, found) for model, found in done.items()]))
    print()
    print(table(MORE, [more(model, found) for model, found in done.items()]))
    left = [f"{model} (failed: {found['failed']})" for model, found in measured.items() if "failed" in found]
    left += [f"{m} (about {estimate(m) / 2**30:.0f} GiB to build)" for m in wanted if m not in measured]
    if left:
        print(f"\nLeft out, of {memory_bytes() / 2**30:.0f} GiB here: {', '.join(left)}")


if __name__ == "__main__":
    main()
