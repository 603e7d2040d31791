"""The family ``sdxl``: from a diffusers folder to five components, one after the other, each compared with torch."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from wszoo.errors import BuildError, UsageError
from wszoo.families.protocol import DemoResult, Export, ExportedComponent
from wszoo.families.provenance import library_versions
from wszoo.families.resources import require_memory
from wszoo.families.sources import check_options
from wszoo.store.files import check_room
from wszoo_sdxl import components as parts
from wszoo_sdxl import download, lora, presets, recipe
from wszoo_sdxl import layout as layouts
from wszoo_sdxl.load import files_of, load
from wszoo_sdxl.tensors import count_numbers, precisions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import torch

    from wszoo.families.protocol import ExportRequest, PulledModel, SourceRequest
    from wszoo.progress import Progress
    from wszoo.schema.model import Value
    from wszoo.weights.apart import Graph
    from wszoo_sdxl.components import Shape

OPTIONS = {
    "components": "which to build, with commas between: text_encoder,text_encoder_2,unet,vae_decoder,vae_encoder",
    "vae-precision": "auto (the default: mixed if sm75 is a target, else fp32), fp32, mixed, bf16, or fp16",
    "lora": "FILE[:SCALE], with commas between several: merged into the weights",
    "compare": "'no' publishes without comparing with torch",
    "licence": "an SPDX expression, such as MIT or OpenRAIL++",
}
LIBRARIES = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime")
BASE_MEMORY = 3 << 29  # torch, the exporter, and a graph of 10,000 nodes: 1.5 GB when SDXL's unet is compared
BF16_OPSET = 22  # the first whose Conv takes bf16
VAE = ("fp32", "mixed", "bf16", "fp16")
NETWORK = ("fp16", "fp32")
TURING = "7.5"  # TensorRT-RTX has no fp32 matrix product for it
SIZES = {"fp32": 4, "mixed": 4, "fp16": 2, "bf16": 2}  # bytes to a number


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
            assets={**layouts.assets(job.layout), recipe.ASSET: recipe.encode(job.layout)},
            licence=request.options.get("licence", ""),
            options=job.record,
            provenance=library_versions(LIBRARIES),
        )

    def choose_files(self, names: Sequence[str], request: SourceRequest) -> Sequence[str]:
        """Of a repository: the configs, and each network's weights in the variant that it is exported from.

        Raises:
            UsageError: an option or precision that the family does not know.
        """
        check_options(request.options, OPTIONS)
        network, vae = _precisions(request)
        precisions = {name: vae if name.startswith("vae") else network for name in layouts.COMPONENTS}
        return download.choose(names, precisions, request.options.get("components", ""))

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
        self.precision, self.vae = _precisions(request)
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
        self.record = self._record()
        self.files = {name: files_of(self.layout, name, self.of(name)) for name in self.shapes}
        largest = max(self._bytes(name) for name in self.files)
        check_room(request.scratch, sum(map(self._bytes, self.files)) + largest, "export and store the weights")

    def of(self, component: str) -> str:
        """The precision that a component is exported in."""
        return self.vae if component.startswith("vae") else self.precision

    def components(self) -> Iterator[ExportedComponent]:
        for name in self.layout.components:
            graph = self._component(name)
            gc.collect()  # modules have reference cycles, and the builder will need their memory
            yield ExportedComponent(name=name, graph=graph, profiles=self.profiles[name])

    def _component(self, name: str) -> Graph:
        request = self.request
        require_memory(self._memory(name), f"export {name}")
        with request.progress.stage(f"load {name}"):
            network = load(self.layout, name, self.of(name), self.loras, any_type=bool(request.precision))
        module = parts.wrap(name, network)
        with request.progress.stage(f"export {name}"):
            graph = _export(name, module, self.inputs[name], self._example(name, 0), request.scratch)
        if self.compared:
            from wszoo_sdxl.compare import compare

            with request.progress.stage(f"compare {name} with torch", 2, "cases") as advance:
                found = compare(graph, module, self._cases(name, advance), precision=self.of(name), name=name)
            # Export.options is read when all components are there.
            self.record[f"error.{name}"] = f"{found.max_relative_error:.2g} of max|output|"
        return graph

    def _record(self) -> dict[str, str]:
        """What the model's config will say about how it was exported."""
        found = {
            "pipeline": str(self.layout.index.get("_class_name", "")),
            "precision": self.precision,
            "vae_precision": self.vae,
            "compared_with": "torch" if self.compared else "nothing, as the publisher wished",
        }
        return found | ({"lora": ",".join(map(str, self.loras))} if self.loras else {})

    def _shape(self, name: str) -> Shape:
        return parts.shape_of(name, self.layout.configs[layouts.folder_of(name)])

    def _memory(self, name: str) -> int:
        # Weights that are stored in the wanted type stay mapped and cost nothing, compared or not; others are converted
        # and held.
        held = precisions(self.files[name]) != {self.of(name)} or bool(self.loras)
        return BASE_MEMORY + self._bytes(name) * held

    def _bytes(self, name: str) -> int:
        return count_numbers(self.files[name]) * SIZES[self.of(name)]

    def _example(self, name: str, seed: int, batch: int = 2, grow: tuple[int, int] = (4, 6)) -> parts.Arrays:
        shape = self.shapes[name]
        step = {"unet": shape.multiple, "vae_encoder": 2 * shape.scale}.get(name, 2)
        return parts.example(self.inputs[name], shape, seed, batch, (grow[0] * step, grow[1] * step))

    def _cases(self, name: str, advance: Callable[[int], None]) -> Iterator[parts.Arrays]:
        # Both dimensions and the batch change between the two, and from the export's own.
        for seed, (batch, grow) in enumerate([(2, (4, 2)), (3, (2, 6))], start=1):
            yield self._example(name, seed, batch, grow)
            advance(1)

    def _check_loras(self) -> None:
        for each in self.loras:
            changed = lora.components_of(each)
            for part in sorted(changed):
                if not self.layout.has(part):
                    raise BuildError(f"{each.path.name} changes the {part}, which this model does not have")
            if not changed.intersection(self.layout.components):
                raise UsageError(
                    f"{each.path.name} changes only {', '.join(sorted(changed))}, and none of it is built",
                    hint="leave the LoRA out, or build that component too",
                )


def _export(name: str, module: torch.nn.Module, inputs: Sequence[Value], example: parts.Arrays, folder: Path) -> Graph:
    from wszoo.families.torch_export import export_module

    dynamic = {
        value.name: {axis: dim for axis, dim in enumerate(value.shape) if isinstance(dim, str)} for value in inputs
    }
    return export_module(
        module,
        {key: parts.to_torch(array) for key, array in example.items()},
        outputs=parts.OUTPUTS[name],
        folder=folder,
        name=name,
        dynamic={key: axes for key, axes in dynamic.items() if axes},
        opset=BF16_OPSET if any(value.dtype == "bfloat16" for value in inputs) else None,
    )


def _precisions(request: ExportRequest | SourceRequest) -> tuple[str, str]:
    """Of the text encoders and the unet, and of the VAE."""
    vae = request.options.get("vae-precision", "auto")
    if vae == "auto":
        vae = "mixed" if any(TURING in target.compute_capabilities for target in request.targets) else "fp32"
    return (
        _precision(request.precision or "fp16", "--precision", NETWORK),
        _precision(vae, "--option vae-precision", ("auto", *VAE)),
    )


def _precision(text: str, flag: str, known: Sequence[str]) -> str:
    if text not in known:
        raise UsageError(f"{flag}: no precision {text!r}", hint=f"the family 'sdxl' knows {', '.join(known)} there")
    return text


def _yes(text: str) -> bool:
    if text not in {"yes", "no"}:
        raise UsageError(f"--option compare={text!r} is neither yes nor no")
    return text == "yes"
