"""A model folder as diffusers writes it: which networks it has, and the small files that travel with them.

::

    folder/
        model_index.json                which class each part is of; [null, null] where there is none
        text_encoder/                   config.json, model.safetensors              not in the refiner
        text_encoder_2/                 the same
        unet/                           config.json, diffusion_pytorch_model.safetensors
        vae/                            the same
        tokenizer/  tokenizer_2/        vocab.json, merges.txt, tokenizer_config.json, ...
        scheduler/                      scheduler_config.json

Weight files may be sharded, and may carry a variant (``model.fp16.safetensors``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wszoo.errors import BuildError, NotFoundError, UsageError
from wszoo.families.checkpoints import read_json, refuse_pickles
from wszoo.families.sources import read_asset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

COMPONENTS = ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder")
FOLDERS = {"vae_decoder": "vae", "vae_encoder": "vae"}
CLASSES = {
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
}
SCHEDULER = "scheduler.scheduler_config.json"

INDEX = "model_index.json"
_PIPELINE = "StableDiffusionXL"
TOKENIZER_FILES = (
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A folder that has been looked at.

    Attributes:
        folder: the model's.
        index: ``model_index.json``.
        configs: each network's ``config.json``, by its folder's name.
        components: those to build, in the order of :data:`COMPONENTS`.
    """

    folder: Path
    index: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]
    components: tuple[str, ...]

    def has(self, part: str) -> bool:
        """True when the model has a part of that name (``tokenizer``, ``text_encoder``)."""
        return is_there(self.index, part)


def folder_of(component: str) -> str:
    """The folder that holds a component's weights."""
    return FOLDERS.get(component, component)


def is_there(index: Mapping[str, Any], part: str) -> bool:
    """True when ``model_index.json`` names a class for a part."""
    entry = index.get(part)
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(name, str) for name in entry)  # noqa: PLR2004


def read_layout(folder: Path, wanted: str = "") -> Layout:
    """Read the index and the configs, and check that they are of SDXL.

    Args:
        folder: in diffusers' layout.
        wanted: components to build, with commas between; empty for all that there are.

    Raises:
        UsageError: not a folder in this layout, pickles, or an unknown component.
        NotFoundError: a component or file is missing.
        MalformedError: a JSON file that is none.
        BuildError: another pipeline, or a network of another class.
    """
    _check_folder(folder)
    index = read_json(folder / INDEX)
    pipeline = str(index.get("_class_name", ""))
    if not pipeline.startswith(_PIPELINE):
        raise BuildError(
            f"{folder / INDEX} is of a {pipeline or 'pipeline without a name'}, not of Stable Diffusion XL",
            hint=f"the family 'sdxl' takes {_PIPELINE}Pipeline and its relatives: base, refiner, Turbo, fine-tunes",
        )
    components = _choose(index, wanted)
    parts = dict.fromkeys(folder_of(name) for name in components)
    return Layout(
        folder=folder,
        index=index,
        configs={part: _config(folder, index, part) for part in parts},
        components=components,
    )


def assets(layout: Layout) -> dict[str, bytes]:
    """The tokenizers, the scheduler's configuration and the model card, by portable names (``tokenizer.vocab.json``).

    Raises:
        NotFoundError: the scheduler's configuration, or a tokenizer, is missing.
        UsageError, LimitError, StorageError: a file that cannot be taken, see :func:`read_asset`.
    """
    found = {SCHEDULER: read_asset(layout.folder / "scheduler" / "scheduler_config.json")}
    for part in (part for part in ("tokenizer", "tokenizer_2") if layout.has(part)):
        paths = [layout.folder / part / name for name in TOKENIZER_FILES]
        files = {f"{part}.{path.name}": read_asset(path) for path in paths if path.is_file()}
        if f"{part}.tokenizer.json" not in files and f"{part}.vocab.json" not in files:
            raise NotFoundError(f"{layout.folder / part} holds neither tokenizer.json nor vocab.json")
        found |= files
    card = layout.folder / "README.md"
    return {**found, card.name: read_asset(card)} if card.is_file() else found


def _check_folder(folder: Path) -> None:
    if (folder / INDEX).is_file():
        return
    hint = "convert it with diffusers: StableDiffusionXLPipeline.from_single_file(FILE).save_pretrained(FOLDER)"
    if folder.is_file():
        if folder.suffix == ".safetensors":
            raise UsageError(f"{folder} is a single file, and the family 'sdxl' takes diffusers' folders", hint=hint)
        raise UsageError(
            f"{folder} is not a diffusers folder; if it is a pickle, loading it would run the code in it",
            hint="get the model as safetensors, in diffusers' layout",
        )
    if not folder.is_dir():
        raise NotFoundError(f"no such folder: {folder}", hint=f"give the folder that holds {INDEX}")
    refuse_pickles(folder)
    raise NotFoundError(f"no {INDEX} in {folder}", hint=f"give a folder in diffusers' layout, or {hint}")


def _choose(index: Mapping[str, Any], wanted: str) -> tuple[str, ...]:
    there = [name for name in COMPONENTS if is_there(index, folder_of(name))]
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names:
        if name not in COMPONENTS:
            raise UsageError(f"no component {name!r}", hint=f"--option components= takes {', '.join(COMPONENTS)}")
        if name not in there:
            raise NotFoundError(f"the model has no {name}", hint=f"it has {', '.join(there)}")
    for name in ("text_encoder_2", "unet", "vae_decoder"):
        if name not in there:
            raise BuildError(f"{INDEX} names no {folder_of(name)}, without which there is no SDXL")
    return tuple(name for name in there if name in names or not names)


def _config(folder: Path, index: Mapping[str, Any], part: str) -> dict[str, Any]:
    kind = _class_of(index[part])
    if kind != CLASSES[part]:
        raise BuildError(f"{part} is a {kind}; the family 'sdxl' exports {CLASSES[part]}")
    if not (folder / part).is_dir():
        raise NotFoundError(f"{folder} has no folder {part}, which its {INDEX} names", hint="download all of the model")
    config = read_json(folder / part / "config.json")
    named = str(config.get("_class_name") or kind)
    if named != kind:
        raise BuildError(f"{folder / part / 'config.json'} is of a {named}, and {INDEX} says {kind}")
    return config


def _class_of(entry: Sequence[str]) -> str:
    return entry[1]
