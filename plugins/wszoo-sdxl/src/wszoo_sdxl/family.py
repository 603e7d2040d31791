"""The family ``sdxl``: from a diffusers folder to five components, one after the other, each compared with torch."""

from __future__ import annotations

import gc
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from wszoo.errors import BuildError, UsageError
from wszoo.families.protocol import DemoResult, Export, ExportedComponent
from wszoo.families.resources import require_memory
from wszoo.families.sources import check_options
from wszoo.store.files import check_room
from wszoo_sdxl import components as parts
from wszoo_sdxl import layout as layouts
from wszoo_sdxl import lora, presets, recipe
from wszoo_sdxl.load import files_of, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import torch

    from wszoo.families.protocol import ExportRequest, PulledModel
    from wszoo.progress import Progress
    from wszoo.schema.plan import Profile
    from wszoo.weights.graph import Graph
    from wszoo_sdxl.components import Shape
    from wszoo_sdxl.layout import Layout

OPTIONS = {
    "components": "which to build, with commas between: text_encoder,text_encoder_2,unet,vae_decoder,vae_encoder",
    "vae-precision": "fp32 (the default), bf16, or fp16 for a VAE that was trained not to overflow in it",
    "lora": "FILE[:SCALE], with commas between several: merged into the weights",
    "compare": "'no' publishes without comparing with torch",
    "licence": "an SPDX expression, such as MIT or OpenRAIL++",
}
LIBRARIES = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime")
BASE_MEMORY = 1 << 30  # torch, the exporter, and the graph
SIZES = {"fp32": 4, "fp16": 2, "bf16": 2}  # bytes to a number


class SdxlFamily:
    """Stable Diffusion XL from diffusers folders: base, refiner, Turbo and fine-tunes."""

    name = "sdxl"
    summary = "Stable Diffusion XL: a diffusers folder with safetensors (base, refiner, Turbo), with LoRAs"

    def export(self, request: ExportRequest) -> Export:
        """Read the folder; the components are exported one at a time, when they are asked for.

        Raises:
            UsageError: an option, precision or profile that the family does not know, or a pickle.
            NotFoundError: a component or file is missing.
            BuildError: another model, or weights that do not fit; while iterating: an export that differs from torch.
            IncompatibleError: while iterating: not enough memory.
            StorageError: not enough room on the disk.
            MissingExtraError: torch, diffusers or transformers is not installed.
        """
        check_options(request.options, OPTIONS)
        job = _Job(request)
        return Export(
            components=job.components(),
            assets={**layouts.assets(job.layout), recipe.ASSET: recipe.encode(job.layout, job.shapes)},
            licence=request.options.get("licence", ""),
            options=job.record(),
            provenance=_provenance(),
        )

    def demo(self, model: PulledModel, arguments: Sequence[str], progress: Progress) -> DemoResult:
        """Draw pictures.

        Raises:
            UsageError: the arguments make no sense.
            NotFoundError: the model lacks a component or an asset.
            MalformedError: an asset that is not what it should be.
            MissingExtraError: diffusers, transformers or torch is not installed.
        """
        from wszoo_sdxl.demo import draw

        return draw(model, arguments, progress)


class _Job:
    """One export: what its steps share."""

    def __init__(self, request: ExportRequest) -> None:
        options = request.options
        self.request = request
        self.layout = layouts.read_layout(request.source, options.get("components", ""))
        self.precision = _precision(request.precision or "fp16", "--precision", ("fp16", "fp32"))
        self.vae = _precision(options.get("vae-precision", "fp32"), "--option vae-precision", ("fp32", "bf16", "fp16"))
        self.loras = lora.parse(options.get("lora", ""))
        self.compared = _yes(options.get("compare", "yes"))
        self.shapes = {name: self._shape(name) for name in self.layout.components}
        self.inputs = {name: parts.inputs_of(name, self.shapes[name], self.of(name)) for name in self.shapes}
        self.profiles = presets.profiles(
            self.inputs,
            self.shapes,
            request.profiles,
            scale=recipe.scale_of(self.layout),
            required=request.needs_profiles,
        )
        self._check_loras()
        self.files = {name: files_of(self.layout, name, self.of(name)) for name in self.shapes}
        largest = max(self._bytes(name) for name in self.files)
        check_room(request.scratch, sum(map(self._bytes, self.files)) + largest, "export and store the weights")

    def of(self, component: str) -> str:
        """The precision that a component is exported in."""
        return self.vae if component.startswith("vae") else self.precision

    def components(self) -> Iterator[ExportedComponent]:
        for name in self.layout.components:
            graph = self._component(name)
            yield ExportedComponent(name=name, graph=graph, profiles=self._profiles(name))
            del graph
            gc.collect()

    def record(self) -> dict[str, str]:
        """What the model's config says about how it was exported."""
        found = {
            "pipeline": str(self.layout.index.get("_class_name", "")),
            "precision": self.precision,
            "vae_precision": self.vae,
            "compared_with": "torch" if self.compared else "nothing, at the publisher's wish",
        }
        return found | ({"lora": ",".join(map(str, self.loras))} if self.loras else {})

    def _component(self, name: str) -> Graph:
        request = self.request
        require_memory(BASE_MEMORY + self._bytes(name), f"export {name}")
        with request.progress.stage(f"load {name}"):
            network = load(self.layout, name, self.of(name), self.loras, mixed=bool(request.precision))
        module = parts.wrap(name, network)
        with request.progress.stage(f"export {name}"):
            graph = _export(name, module, self._example(name, 0), request.scratch)
        if self.compared:
            from wszoo_sdxl.compare import compare

            with request.progress.stage(f"compare {name} with torch", 2, "cases") as advance:
                compare(graph, module, self._cases(name, advance), precision=self.of(name), name=name)
        return graph
