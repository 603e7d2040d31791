"""The family ``cnn``: from a checkpoint folder to one component, ``model``, compared with torch."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from wszoo.errors import BuildError, NotFoundError, UsageError
from wszoo.families.checkpoints import read_json, weight_files
from wszoo.families.profiles import profiles_for
from wszoo.families.protocol import DemoResult, Export, ExportedComponent
from wszoo.families.provenance import library_versions
from wszoo.families.sources import check_options, read_asset
from wszoo.schema.model import Value
from wszoo.schema.plan import Profile, ShapeRange
from wszoo_cnn.checkpoint import PRECISIONS, TRIED, Checkpoint, choose_precision
from wszoo_cnn.preprocess import ASSET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from wszoo.families.compare import Comparison
    from wszoo.families.protocol import ExportRequest, PulledModel
    from wszoo.progress import Progress
    from wszoo.weights.graph import Graph

OPTIONS = {
    "image-size": "an edge, or HEIGHTxWIDTH; the checkpoint's own when left out",
    "licence": "an SPDX expression, such as MIT or Apache-2.0",
}
DEFAULT_PROFILE = "b1-8"
COMPARED_BATCHES = (1, 2, 5)

_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_MAX_EDGE = 8192
_BLOBS = 5  # to an edge


class CnnFamily:
    """Vision classifiers from transformers and timm checkpoints."""

    name = "cnn"
    summary = "image classifiers: a transformers or timm checkpoint folder with safetensors, in fp32 or fp16"

    def export(self, request: ExportRequest) -> Export:
        """Load a checkpoint, export it, and compare the export with torch.

        Raises:
            UsageError: an option, precision or profile that the family does not know, or a pickle checkpoint.
            NotFoundError: no config or no weights.
            BuildError: the checkpoint does not fit, cannot be exported, or its export differs from torch's output.
            MissingExtraError: torch, transformers or timm is not installed.
        """
        check_options(request.options, OPTIONS)
        files, precision, checkpoint = _load(request)
        height, width = _image_size(request.options.get("image-size", ""), checkpoint.size)
        takes = Value(name="pixel_values", dtype=PRECISIONS[precision], shape=("batch", 3, height, width))
        profiles = profiles_for([takes], request.profiles, presets=presets(height, width), default=DEFAULT_PROFILE)
        with request.progress.stage(f"export {checkpoint.architecture}"):
            graph = _export(checkpoint, (height, width), precision, request.scratch)
        with request.progress.stage("compare with torch", len(COMPARED_BATCHES), "batches") as advance:
            comparison = _compare(graph, checkpoint, (height, width), precision, advance)
        return Export(
            components=[ExportedComponent(name="model", graph=graph, profiles=profiles)],
            assets=_assets(files[0].parent, checkpoint, (height, width)),
            licence=request.options.get("licence", ""),
            options={
                "library": checkpoint.library,
                "architecture": checkpoint.architecture,
                "precision": precision,
                "image_size": f"{height}x{width}",
                **comparison.as_options(),
            },
            provenance=library_versions(("torch", "onnx", "onnxscript", "onnxruntime", checkpoint.library)),
        )

    def demo(self, model: PulledModel, arguments: Sequence[str], progress: Progress) -> DemoResult:
        """Classify image files.

        Raises:
            UsageError: the arguments make no sense, or a file is not an image.
            NotFoundError: no such file.
            MalformedError: an asset that is not what it should be.
        """
        from wszoo_cnn.demo import classify

        return classify(model, arguments, progress)


def presets(height: int, width: int) -> dict[str, Profile]:
    """Optimization profiles by name: ``b8`` is batch 8 only, ``b1-8`` is batch 1 to 8, best at 8."""
    names = [(least, most) for most in _BATCHES for least in {1, most}]
    return {
        (f"b{least}" if least == most else f"b{least}-{most}"): _profile(least, most, height, width)
        for least, most in sorted(names)
    }


def _profile(least: int, most: int, height: int, width: int) -> Profile:
    shapes = ShapeRange(min=(least, 3, height, width), opt=(most, 3, height, width), max=(most, 3, height, width))
    name = f"b{least}" if least == most else f"b{least}-{most}"
    return Profile(name=name, inputs={"pixel_values": shapes})


def _load(request: ExportRequest) -> tuple[list[Path], str, Checkpoint]:
    folder = request.source
    if not folder.is_dir():
        raise NotFoundError(f"no such folder: {folder}", hint="give the folder that holds config.json and the weights")
    config = read_json(folder / "config.json")
    files = weight_files(folder)
    precision = choose_precision(files, request.precision)
    with request.progress.stage("load the checkpoint"):
        if "model_type" in config:
            from wszoo_cnn import from_transformers

            return files, precision, from_transformers.load(folder, config, precision)
        if "architecture" in config:
            from wszoo_cnn import from_timm

            return files, precision, from_timm.load(files, config, precision)
    raise BuildError(
        f"{folder / 'config.json'} has neither a 'model_type' (transformers) nor an 'architecture' (timm)",
        hint=f"tried are: {TRIED}",
    )


def _image_size(text: str, own: tuple[int, int]) -> tuple[int, int]:
    if not text:
        return own
    match = re.fullmatch(r"([1-9][0-9]{0,3})(?:x([1-9][0-9]{0,3}))?", text)
    if match is None or max(int(match[1]), int(match[2] or 1)) > _MAX_EDGE:
        raise UsageError(f"not an image size: {text!r}", hint="write --option image-size=256 or image-size=256x320")
    return int(match[1]), int(match[2] or match[1])


def _export(checkpoint: Checkpoint, size: tuple[int, int], precision: str, folder: Path) -> Graph:
    from wszoo.families.torch_export import export_module, require_torch

    torch = require_torch()
    pixels = torch.zeros(2, 3, *size, dtype=getattr(torch, PRECISIONS[precision]))
    return export_module(
        checkpoint.module,
        {"pixel_values": pixels},
        outputs=["logits"],
        folder=folder,
        dynamic={"pixel_values": {0: "batch"}},
    )


def _compare(
    graph: Graph,
    checkpoint: Checkpoint,
    size: tuple[int, int],
    precision: str,
    advance: Any,  # noqa: ANN401
) -> Comparison:
    from wszoo.families.torch_export import TOLERANCES, compare

    def cases() -> Iterator[dict[str, NDArray[Any]]]:
        for seed, batch in enumerate(COMPARED_BATCHES):
            yield {"pixel_values": noise(seed, batch, *size).astype(PRECISIONS[precision])}
            advance(1)

    # A second copy, in fp32, only while fp16 is compared: networks differ too much in what rounding does to them.
    truth = None if precision == "fp32" else copy.deepcopy(checkpoint.module).float()
    result = compare(graph, checkpoint.module, cases(), tolerance=TOLERANCES[precision], truth=truth)
    classes = graph.outputs[0].shape[-1]
    if classes != len(checkpoint.labels):
        raise BuildError(f"the model has {classes} classes, and its config names {len(checkpoint.labels)}")
    return result


def noise(seed: int, batch: int, height: int, width: int) -> NDArray[np.float32]:
    """Seeded images to compare on: blobs, grain, and a cast of colour, of about the range of normalised pixels.

    Grain alone would not do: a classifier averages over the picture, and all grain looks the same to it.

    Returns:
        ``(batch, 3, height, width)``.
    """
    generator = np.random.default_rng(seed)
    rows, columns = (np.arange(edge) * _BLOBS // edge for edge in (height, width))
    blobs = generator.standard_normal((batch, 3, _BLOBS, _BLOBS), np.float32)[:, :, rows][:, :, :, columns]
    cast = generator.standard_normal((batch, 3, 1, 1), np.float32)
    grain = generator.standard_normal((batch, 3, height, width), np.float32)
    return blobs + cast + np.float32(0.3) * grain


def _assets(folder: Path, checkpoint: Checkpoint, size: tuple[int, int]) -> dict[str, bytes]:
    how = checkpoint.preprocess if checkpoint.preprocess.size == size else checkpoint.preprocess.resized(*size)
    assets = {
        ASSET: msgspec.json.format(msgspec.json.encode(how)) + b"\n",
        "labels.txt": "".join(f"{label}\n" for label in checkpoint.labels).encode(),
    }
    card = folder / "README.md"
    if card.is_file():
        assets[card.name] = read_asset(card)
    return assets
