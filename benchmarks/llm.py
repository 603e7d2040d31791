"""Language models at full size, with seeded weights: what a zoo ships for them, as a Markdown table.

    python benchmarks/llm.py [--work build/bench-llm] [--models phi-2:fp16,gemma-2b:int4] [--profile c2048-one]

One model after the other, each step in a process of its own: the weights are drawn and written as shards, tensor by
tensor; `wszoo build` exports, quantizes, compares the first layers with transformers, and builds; `wszoo pull` fetches
it into an empty store and assembles the plan for one GPU. No GPU and no network are needed, nor this repository: the
installed packages will do. Sizes do not depend on the weights' values.

TensorRT-RTX's builder takes about 3.3 times the plan in memory: a model that would not fit is left out and named.
What has been measured stays under --work, and a later run prints it again. Memory is the peak of anonymous pages:
mapped files, which the system may drop, do not count.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import Memory, Stages, against_cp, table

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGETS = "rtx-sm89,rtx-sm86"
PULLED = "sm89"
BUILDER_FACTOR = 3.3  # memory of TensorRT-RTX's builder over the plan
SHARD = 2 << 30
INDEX = "model.safetensors.index.json"
SEED = 3

# Published configurations, as transformers' classes take them.
LLAMA2: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-6x1024": (
        "LlamaConfig",
        {
            **LLAMA2,
            "hidden_size": 1024,
            "intermediate_size": 2816,
            "num_hidden_layers": 6,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
        },
    ),
    "phi-2": (
        "PhiConfig",
        {
            "vocab_size": 51200,
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "max_position_embeddings": 2048,
            "partial_rotary_factor": 0.4,
        },
    ),
    "gemma-2b": (
        "GemmaConfig",
        {
            "vocab_size": 256000,
            "hidden_size": 2048,
            "intermediate_size": 16384,
            "num_hidden_layers": 18,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "max_position_embeddings": 8192,
        },
    ),
    "gemma-7b": (
        "GemmaConfig",
        {
            "vocab_size": 256000,
            "hidden_size": 3072,
            "intermediate_size": 24576,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "head_dim": 256,
            "max_position_embeddings": 8192,
        },
    ),
    "llama2-7b": ("LlamaConfig", LLAMA2),
    "mistral-7b": (
        "MistralConfig",
        {
            **LLAMA2,
            "intermediate_size": 14336,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
            "max_position_embeddings": 32768,
        },
    ),
    "chatglm3-6b": (
        "GlmConfig",
        {
            "vocab_size": 65024,
            "hidden_size": 4096,
            "intermediate_size": 13696,
            "num_hidden_layers": 28,
            "num_attention_heads": 32,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "attention_bias": True,
            "max_position_embeddings": 8192,
        },
    ),
}
MODELS = "gemma-2b:int4,gemma-2b:int8,gemma-2b:fp16,phi-2:int4,phi-2:fp16,llama2-7b:int4"
# Of the published full and stripped sizes (MB, classic TensorRT plans with compiled kernels, not compressed) those that
# could be had. TensorRT-RTX compiles its kernels on the client.
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
    """The model's folder in fp16, written tensor by tensor."""
    import torch
    import transformers

    name, numbers = CONFIGS[model.partition(":")[0]]
    config = getattr(transformers, name)(**numbers)
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config)
    config.architectures = [type(module).__name__]
    source = source_of(work, model)
    shutil.rmtree(source, ignore_errors=True)  # a run that was cut off has left no index
    source.mkdir()
    config.save_pretrained(source)
    parameters = dict(module.named_parameters())  # tied ones once
    shards, index = list(_shards(parameters)), {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write(source / file, {key: tuple(parameters[key].shape) for key in names}, SEED + number)
        index |= dict.fromkeys(names, file)
    (source / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return {"parameters": sum(math.prod(each.shape) for each in parameters.values())}


def _shards(parameters: dict[str, Any]) -> Iterator[list[str]]:
    names, size = [], 0
    for name, value in parameters.items():
        names.append(name)
        size += 2 * math.prod(value.shape)
        if size > SHARD:
            yield names
            names, size = [], 0
    if names:
        yield names


def _write(path: Path, shapes: dict[str, tuple[int, ...]], seed: int) -> None:
    """One safetensors file: weights as noise that keeps signals alive, norms near one."""
    import numpy as np

    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    generator = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, shape in shapes.items():
            values = generator.standard_normal(math.prod(shape), np.float32)
            if len(shape) == 1:
                values = values * 0.05 + (1.0 if "norm" in name and "weight" in name else 0.0)
            else:
                values *= 0.02 if "embed" in name else shape[-1] ** -0.5
            file.write(values.astype(np.float16).data)


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
    return against_cp(zoo.store, part, work)


def source_of(work: Path, model: str) -> Path:
    """The checkpoint, which the precisions of a model share."""
    return work.parent / f"{model.partition(':')[0]}-source"


STEPS = {"make": make, "build": build, "pull": pull, "apply": apply}


# ---- the table ----------------------------------------------------------------------------------------------------


def measure(model: str, work: Path, profile: str) -> dict[str, Any]:
    result = work / f"{model.replace(':', '-')}.json"
    if result.exists():
        return json.loads(result.read_text())
    folder = work / model.replace(":", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found: dict[str, Any] = {}
    steps = [step for step in STEPS if step != "make" or not (source_of(folder, model) / INDEX).is_file()]
    for step in steps:
        command = [sys.executable, __file__, "--step", step, str(folder), model, profile]
        done = subprocess.run(
            command, check=False, stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        if done.returncode:
            print(f"{model}: the step '{step}' failed with {done.returncode}", file=sys.stderr)
            found["failed"] = step
            break
        found[step] = json.loads(done.stdout.splitlines()[-1])
    result.write_text(json.dumps(found))
    shutil.rmtree(folder)
    return found


def row(model: str, found: dict[str, Any]) -> str:
    plans = {plan["target"]: plan for plan in found["build"]["plans"]}
    first, second = (plans[name] for name in TARGETS.split(","))
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
        f"{(second['shipped'] - second['shared']) / 1e3:.1f}",
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
    measured, left = {}, []
    wanted = options.models.split(",")
    for number, model in enumerate(wanted):
        needed = estimate(model)
        if needed > memory_bytes() and not options.anyway:
            left.append(f"{model} (about {needed / 2**30:.0f} GiB to build)")
            continue
        measured[model] = measure(model, options.work.resolve(), options.profile)
        name = model.partition(":")[0]
        if not any(later.startswith(f"{name}:") for later in wanted[number + 1 :]):
            shutil.rmtree(options.work / f"{name}-source", ignore_errors=True)
    done = {model: found for model, found in measured.items() if "build" in found}
    left += [f"{model} (failed: {found['failed']})" for model, found in measured.items() if "failed" in found]
    print(table(HEADER, [row(model, found) for model, found in done.items()]))
    print()
    print(table(MORE, [more(model, found) for model, found in done.items()]))
    if left:
        print(f"\nLeft out, of {memory_bytes() / 2**30:.0f} GiB here: {', '.join(left)}")


if __name__ == "__main__":
    main()
