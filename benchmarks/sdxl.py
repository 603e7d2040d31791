"""Stable Diffusion XL at full size, with seeded weights: what a zoo ships for it, as a Markdown table.

    python benchmarks/sdxl.py [--work build/bench-sdxl] [--components text_encoder,unet] [--targets rtx-sm86,rtx-sm89]

One component after the other, each step in a process of its own: the weights are made and saved as diffusers saves
them, `wszoo build` exports them, compares the export with torch and builds every target, and `wszoo pull` fetches them
into an empty store and assembles the plan for one GPU. No GPU is needed. Sizes do not depend on the weights' values.

The unet needs about 20 GB of memory (TensorRT-RTX's builder takes 17 of them) and 40 GB of disk; of a component that
has been measured only the numbers stay under --work, and a later run prints them again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from wszoo.weights.tensor import Tensor

COMPONENTS = ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder")
TARGETS = ("rtx-sm86", "rtx-sm89", "rtx-sm120", "rtx-sm75", "portable")
PULLED = "sm89"
ROUNDS = 3
# NVIDIA's published numbers for weight-stripped engines: full and stripped MB, of classic TensorRT 10.0 plans for an
# RTX 4090, which hold compiled kernels and are not compressed. TensorRT-RTX compiles its kernels on the client.
PUBLISHED = {"text_encoder": (237.5, 4.37), "text_encoder_2": (1329.4, 8.28), "unet": (6493.0, 58.19)}
HEADER = (
    "component | engine MB | residual MB | shipped KB | % of engine | each further target KB | encode s | apply s "
    "| cp s | ratio | NVIDIA: full -> stripped MB"
)
MORE = (
    "component | weights MB | export + compare s | with it GiB | build GiB | off, part of max | pull + assemble s "
    "| MiB anonymous (resident)"
)

TEXT: dict[str, Any] = {
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "text_encoder": TEXT
    | {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    "text_encoder_2": TEXT
    | {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
    "unet": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 128,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [320, 640, 1280],
        "layers_per_block": 2,
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae": {
        "_class_name": "AutoencoderKL",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 1024,
        "scaling_factor": 0.13025,
        "force_upcast": True,
    },
}
INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


# ---- steps, each in a process of its own --------------------------------------------------------------------------


def make(work: Path, component: str, _targets: str) -> dict[str, Any]:
    """The model's folder, with the weights of one component."""
    import torch
    from wszoo_sdxl import tiny

    source = work / "source"
    source.mkdir()
    (source / "model_index.json").write_text(json.dumps(INDEX))
    (source / "scheduler").mkdir()
    (source / "scheduler" / "scheduler_config.json").write_text(json.dumps(tiny.SCHEDULER))
    for part, config in CONFIGS.items():
        (source / part).mkdir()
        (source / part / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer", "tokenizer_2"):
        tiny.write_tokenizer(source / name)
    part = "vae" if component.startswith("vae") else component
    torch.set_default_dtype(torch.float32 if part == "vae" else torch.float16)
    with torch.device("meta"):
        module = network(part)
    module = module.to_empty(device="cpu")
    tiny.fill(module, 0)
    module.save_pretrained(source / part, max_shard_size="10GB")
    return {}


def network(part: str) -> torch.nn.Module:
    import diffusers
    import transformers

    library, kind = INDEX[part]
    if library == "transformers":
        return getattr(transformers, kind)(transformers.CLIPTextConfig(**CONFIGS[part]))
    return getattr(diffusers, kind).from_config(CONFIGS[part])


class Stages:
    """Times every stage, and the process's peak of resident memory at its end, in GiB."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak: dict[str, float] = {}

    @contextmanager
    def stage(
        self, label: str, _total: int | None = None, _unit: str = "B", **_: object
    ) -> Iterator[Callable[[int], None]]:
        start = time.perf_counter()
        yield lambda _: None
        self.seconds[label] = time.perf_counter() - start
        self.peak[label] = status("VmHWM") / (1 << 20)
        print(f"{label}: {self.seconds[label]:.1f} s, peak {self.peak[label]:.1f} GiB", file=sys.stderr, flush=True)


def build(work: Path, component: str, targets: str) -> dict[str, Any]:
    import wszoo
    from wszoo.describe import show

    stages = Stages()
    zoo = wszoo.Zoo(work / "zoo", progress=stages)
    # Turing has neither an fp32 matrix product nor bf16 in TensorRT-RTX.
    options = {"components": component, "vae-precision": "mixed" if "sm75" in targets else "fp32"}
    report = zoo.build("sdxl", work / "source", tag="sdxl:1", targets=targets.split(","), options=options)
    view = show(zoo.store, report.ref)
    plans = [
        {"target": plan.target, "engine": plan.engine_bytes, "shipped": plan.plan_bytes, "shared": plan.shared_bytes}
        for plan in view.plans
    ]
    return {
        "plans": plans,
        "weights": view.weight_bytes,
        "stored": view.weight_stored_bytes,
        "error": view.options[f"error.{component}"],
        "seconds": stages.seconds,
        "peak": stages.peak,
    }


def pull(work: Path, component: str, _targets: str) -> dict[str, Any]:
    import wszoo

    memory, start = Memory(), time.perf_counter()
    model = wszoo.Zoo(work / "client").pull("sdxl:1", gpu=PULLED, source=str(work / "zoo"))
    engine = model[component].assemble()
    return {"seconds": time.perf_counter() - start, "engine": str(engine), **memory.report()}


def apply(work: Path, component: str, _targets: str) -> dict[str, Any]:
    """Putting the plan together from raw weights, and `cp` of the same file on the same disk; best of three each."""
    import wszoo
    from wszoo.plans import splice
    from wszoo.plans.spliced import read_body

    zoo = wszoo.Zoo(work / "client")
    part = zoo.pull("sdxl:1", gpu=PULLED)[component]
    engine, config, out = part.assemble(), part.plan.config, work / "out.plan"
    assert engine is not None
    copied = best(lambda: subprocess.run(["cp", engine, out], check=True), out)
    tensors = raw_tensors(part._assembled.graph.tensors, work / "weights.raw")  # noqa: SLF001 - packs are compressed
    body = read_body(zoo.store, part.plan.manifest, config)
    program = splice.Program.from_bytes(body, tensors, plan_size=config.engine_bytes)
    applied = best(lambda: splice.apply(program, tensors, out), out)
    return {"seconds": applied, "cp": copied, "residual": len(program.literals), "body": len(body)}


def best(function: Callable[[], object], out: Path) -> float:
    seconds = []
    for _ in range(ROUNDS):
        out.unlink(missing_ok=True)
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    out.unlink()
    return min(seconds)


def raw_tensors(tensors: Sequence[Tensor], path: Path) -> list[Tensor]:
    """The same, mapped from one file."""
    import numpy as np

    with path.open("wb") as file:
        for tensor in tensors:
            file.write(tensor.load())
    whole, start, found = np.memmap(path, np.uint8, "r"), 0, []
    for tensor in tensors:
        found.append(replace(tensor, load=partial(whole.__getitem__, slice(start, start + tensor.nbytes))))
        start += tensor.nbytes
    return found


STEPS = {"make": make, "build": build, "pull": pull, "apply": apply}


class Memory:
    """Peak of this process's anonymous pages, sampled, and of all resident ones, which include mapped files; in MiB."""

    def __init__(self) -> None:
        self.anonymous = 0
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while True:
            self.anonymous = max(self.anonymous, status("RssAnon"))
            time.sleep(0.005)

    def report(self) -> dict[str, float]:
        return {"anonymous": self.anonymous / 1024, "resident": status("VmHWM") / 1024}


def status(key: str) -> int:
    """A number from this process's status file, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


# ---- the table ----------------------------------------------------------------------------------------------------


def measure(component: str, work: Path, targets: str) -> dict[str, Any]:
    result = work / f"{component}.json"
    if result.exists():
        return json.loads(result.read_text())
    folder = work / component
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = {}
    for step in STEPS:
        command = [sys.executable, __file__, "--step", step, str(folder), component, targets]
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        found[step] = json.loads(done.stdout.splitlines()[-1])
        if step == "build":
            shutil.rmtree(folder / "source")
    result.write_text(json.dumps(found))
    shutil.rmtree(folder)
    return found


def row(component: str, found: dict[str, Any]) -> str:
    spliced = [plan for plan in found["build"]["plans"] if plan["target"].startswith("rtx")]
    first = max(spliced, key=lambda plan: (plan["target"] != "rtx-sm75", -TARGETS.index(plan["target"])))
    further = ", ".join(
        f"{plan['target'].removeprefix('rtx-')} {(plan['shipped'] - plan['shared']) / 1e3:.1f}"
        for plan in spliced
        if plan is not first
    )
    encode = found["build"]["seconds"].get(f"splice {component} for {first['target']}", float("nan"))
    full, stripped = PUBLISHED.get(component, (None, None))
    cells = [
        component,
        f"{first['engine'] / 1e6:.1f}",
        f"{found['apply']['residual'] / 1e6:.2f}",
        f"{first['shipped'] / 1e3:.1f}",
        f"{100 * first['shipped'] / first['engine']:.4f}",
        further,
        f"{encode:.1f}",
        f"{found['apply']['seconds']:.2f}",
        f"{found['apply']['cp']:.2f}",
        f"{found['apply']['seconds'] / found['apply']['cp']:.2f}",
        f"{full} -> {stripped}" if full else "-",
    ]
    return "| " + " | ".join(cells) + " |"


def more(component: str, found: dict[str, Any]) -> str:
    seconds, peak = found["build"]["seconds"], found["build"]["peak"]
    compared = peak[f"compare {component} with torch"]
    cells = [
        component,
        f"{found['build']['weights'] / 1e6:.1f} ({found['build']['stored'] / 1e6:.1f} stored)",
        f"{seconds[f'export {component}']:.0f} + {seconds[f'compare {component} with torch']:.0f}",
        f"{compared:.1f}",
        f"{max(peak.values()):.1f}",
        found["build"]["error"].split()[0],
        f"{found['pull']['seconds']:.1f}",
        f"{found['pull']['anonymous']:.0f} ({found['pull']['resident']:.0f})",
    ]
    return "| " + " | ".join(cells) + " |"


def table(header: str, rows: list[str]) -> str:
    return "\n".join([f"| {header} |", f"|{' --- |' * (header.count('|') + 1)}", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/bench-sdxl"), help="where numbers are kept")
    parser.add_argument("--components", default=",".join(COMPONENTS), help="with commas between")
    parser.add_argument("--targets", default=",".join(TARGETS), help="with commas between")
    parser.add_argument("--step", nargs=4, metavar=("STEP", "FOLDER", "COMPONENT", "TARGETS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, folder, component, targets = options.step
        print(json.dumps(STEPS[step](Path(folder), component, targets)))
        return
    options.work.mkdir(parents=True, exist_ok=True)
    names = [name for name in COMPONENTS if name in options.components.split(",")]
    measured = {name: measure(name, options.work, options.targets) for name in names}
    print(table(HEADER, [row(name, found) for name, found in measured.items()]))
    print()
    print(table(MORE, [more(name, found) for name, found in measured.items()]))


if __name__ == "__main__":
    main()
