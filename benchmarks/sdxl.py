"""Stable Diffusion XL at full size, with seeded weights: what a zoo ships for it, as a Markdown table.

    python benchmarks/sdxl.py [--work build/bench-sdxl] [--components text_encoder,unet] [--targets rtx-sm86,rtx-sm89]

One component after the other, each step in a process of its own: the weights are made and saved as diffusers saves
them, `wszoo build` exports them, compares the export with torch and builds every target, then the first target again
with another profile, and `wszoo pull` fetches them into an empty store and assembles the plan for one GPU. No GPU is
needed. Sizes do not depend on the weights' values.

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
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sdxl_model
from measure import Memory, Stages, against_cp, table

if TYPE_CHECKING:
    from wszoo.families.protocol import Export, ExportedComponent, ExportRequest
    from wszoo.schema.facts import PlanFacts

COMPONENTS = ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder")
TARGETS = ("rtx-sm86", "rtx-sm89", "rtx-sm120", "rtx-sm75", "portable")
# NVIDIA's published numbers for weight-stripped engines: full and stripped MB, of classic TensorRT 10.0 plans for an
# RTX 4090, which hold compiled kernels and are not compressed. TensorRT-RTX compiles its kernels on the client.
PUBLISHED = {"text_encoder": (237.5, 4.37), "text_encoder_2": (1329.4, 8.28), "unet": (6493.0, 58.19)}
HEADER = (
    "component | engine MB | residual MB | shipped KB | % of engine | each further target KB | further profile KB "
    "| encode s (own MiB) | apply s | cp s | ratio | NVIDIA: full -> stripped MB"
)
MORE = (
    "component | weights MB | zoo / raw weights | export + compare s | their GiB anonymous (resident) "
    "| builder GiB resident | off, part of max | pull + assemble s | MiB anonymous (resident)"
)
FURTHER = "512"  # the second profile; the first is the default, 1024

# ---- steps, each in a process of its own --------------------------------------------------------------------------


def make(work: Path, component: str, _targets: str) -> dict[str, Any]:
    sdxl_model.make(work / "source", component)
    return {}


class Once:
    """The family, exporting once: a further profile needs no further export."""

    name, summary = "sdxl", ""

    def __init__(self, scratch: Path) -> None:
        from wszoo_sdxl.family import SdxlFamily

        self._family, self._scratch = SdxlFamily(), scratch
        self._made: list[ExportedComponent] = []
        self._options: dict[str, str] = {}

    def export(self, request: ExportRequest) -> Export:
        export = self._family.export(replace(request, scratch=self._scratch))
        if not self._made:
            self._made = list(export.components)
            self._options = dict(export.options)
            return replace(export, components=self._made)
        (only,) = self._made
        from wszoo_sdxl.family import _Job

        (profiles,) = _Job(replace(request, scratch=self._scratch)).profiles.values()
        return replace(export, components=[replace(only, profiles=profiles)], options=self._options)


def build(work: Path, component: str, targets: str) -> dict[str, Any]:
    import wszoo
    from wszoo.describe import show
    from wszoo.names import Ref
    from wszoo.plugins import registry
    from wszoo.store.documents import facts_from_document

    stages, scratch = Stages(), work / "export"
    scratch.mkdir()
    registry().families["sdxl"] = Once(scratch)
    zoo = wszoo.Zoo(work / "zoo", progress=stages)
    first, options = next(iter(targets.split(","))), {"components": component}

    def built(profile: str, *names: str) -> list[dict[str, Any]]:
        report = zoo.build("sdxl", work / "source", tag="sdxl:1", targets=names, profiles=[profile], options=options)
        return [_sizes(facts_from_document(plan)) for plan in report.built]

    plans = built("1024", *targets.split(","))
    further = built(FURTHER, first) if first != "portable" else []
    view = show(zoo.store, Ref.parse("sdxl:1"))
    blobs = sum(zoo.store.blobs.size(digest) or 0 for digest in zoo.store.blobs.all())
    return {
        "plans": plans,
        "further": further,
        "weights": view.weight_bytes,
        "stored": view.weight_stored_bytes,
        "zoo": blobs,
        "error": view.options[f"error.{component}"],
        "stages": stages.found,
    }


def _sizes(facts: PlanFacts) -> dict[str, Any]:
    return {
        "target": facts.target.name,
        "engine": facts.engine_bytes,
        "shipped": facts.plan_bytes,
        "shared": facts.shared_bytes,
    }


def pull(work: Path, component: str, targets: str) -> dict[str, Any]:
    import wszoo

    with Memory() as memory:
        start = time.perf_counter()
        model = wszoo.Zoo(work / "client").pull("sdxl:1", gpu=_gpu(targets), source=str(work / "zoo"))
        engine = model[component].assemble()
        seconds = time.perf_counter() - start
    assert engine is not None
    return {"seconds": seconds, "engine": engine.stat().st_size, **memory.report()}


def _gpu(targets: str) -> str:
    """Of the first target."""
    return targets.split(",", maxsplit=1)[0].removeprefix("rtx-")


def apply(work: Path, component: str, targets: str) -> dict[str, Any]:
    """Putting the plan together from raw weights, and `cp` of the same file on the same disk; best of three each."""
    import wszoo

    zoo = wszoo.Zoo(work / "client")
    part = zoo.pull("sdxl:1", gpu=_gpu(targets))[component]
    return against_cp(zoo.store, part, work)


STEPS = {"make": make, "build": build, "pull": pull, "apply": apply}


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
            shutil.rmtree(folder / "export")
    result.write_text(json.dumps(found))
    shutil.rmtree(folder)
    return found


def row(component: str, found: dict[str, Any]) -> str:
    built = found["build"]
    spliced = [plan for plan in built["plans"] if plan["target"].startswith("rtx")]
    first = spliced[0]
    further = ", ".join(f"{plan['target'].removeprefix('rtx-')} {_own(plan)}" for plan in spliced[1:])
    encode = built["stages"][f"splice {component} for {first['target']}"]
    full, stripped = PUBLISHED.get(component, (None, None))
    cells = [
        component,
        f"{first['engine'] / 1e6:.1f}",
        f"{found['apply']['residual'] / 1e6:.2f}",
        f"{first['shipped'] / 1e3:.1f}",
        f"{100 * first['shipped'] / first['engine']:.4f}",
        further,
        ", ".join(map(_own, built["further"])),
        f"{encode['seconds']:.1f} ({encode['anonymous'] - encode['began']:.0f})",
        f"{found['apply']['seconds']:.2f}",
        f"{found['apply']['cp']:.2f}",
        f"{found['apply']['seconds'] / found['apply']['cp']:.2f}",
        f"{full} -> {stripped}" if full else "-",
    ]
    return "| " + " | ".join(cells) + " |"


def _own(plan: dict[str, Any]) -> str:
    return f"{(plan['shipped'] - plan['shared']) / 1e3:.1f}"


def more(component: str, found: dict[str, Any]) -> str:
    built, stages = found["build"], found["build"]["stages"]
    export, compare = stages[f"export {component}"], stages[f"compare {component} with torch"]
    makers = [stage["resident"] for label, stage in stages.items() if label.startswith("build ")]
    own, resident = (max(stage[key] for stage in (export, compare)) / 1024 for key in ("anonymous", "resident"))
    cells = [
        component,
        f"{built['weights'] / 1e6:.1f} ({built['stored'] / 1e6:.1f} stored)",
        f"{built['zoo'] / built['weights']:.3f}",
        f"{export['seconds']:.0f} + {compare['seconds']:.0f}",
        f"{own:.1f} ({resident:.1f})",
        f"{max(makers, default=0) / 1024:.1f}",
        built["error"].split()[0],
        f"{found['pull']['seconds']:.1f}",
        f"{found['pull']['anonymous']:.0f} ({found['pull']['resident']:.0f})",
    ]
    return "| " + " | ".join(cells) + " |"


def summary(measured: dict[str, dict[str, Any]]) -> str:
    """What all components together come to."""
    zoo, weights = (sum(found["build"][key] for found in measured.values()) for key in ("zoo", "weights"))
    count = min(len(found["build"]["plans"]) for found in measured.values())
    first = sum(found["build"]["plans"][0]["shipped"] for found in measured.values())
    return (
        f"Together: {weights / 1e6:.0f} MB of weights; a zoo of {count} targets takes {zoo / 1e6:.0f} MB, "
        f"{zoo / weights:.3f} of them. All plans of the first target ship {first / 1e6:.3f} MB."
    )


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
    print(f"\n{summary(measured)}")


if __name__ == "__main__":
    main()
